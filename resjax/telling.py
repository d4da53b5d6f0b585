"""What is said of files, whatever is in them: short, in one line, and nothing that a terminal obeys."""

import contextlib
import os
import re
import shlex
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

# What a spreadsheet computes where a cell begins so; a number, and a sign alone, it does not.
_FORMULA = re.compile(r"'|[=+\-@\t\r](?!$)")
_LONGEST = 200  # letters of a value
_NUMBER = re.compile(r'[+-]?\d+(\.\d+)?')
# Letters of Cyrillic and Greek that look as one of Latin, and those.
_LOOKS = str.maketrans('аеорсухіјѕԁһӏԛԝАВЕКМНОРСТУХІЈЅԚԜοενκρυχιΑΒΕΖΗΙΚΜΝΟΡΤΥΧ',
                       'aeopcyxijsdhlqwABEKMHOPCTYXIJSQWoevkpuxiABEZHIKMNOPTYX')  # fmt: skip


def one_line(error: Exception) -> str:
  """Returns what an error says, in one short line of letters, whatever a file made it say."""
  text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
  return printable(text[:300])


def printable(text: str) -> str:
  r"""Returns a text with `\x1b`, `\u202e`, `\udce9` for what moves a cursor, turns lines around, or is no UTF-8."""
  return text if text.isprintable() else ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def utf8(name: str) -> str:
  r"""Returns a name that UTF-8 has bytes for: a file's name that was none has `\udce9` where such a byte was."""
  return name.encode('utf-8', 'backslashreplace').decode()


def distinct(name: str, others: Iterable[str]) -> str:
  r"""Returns a name as a refusal shows it: with code points, `'e\u0301'`, where another one looks the same."""
  alike = _looks(name)
  same = any(other != name and _looks(other) == alike for other in others)
  return ascii(name) if same else repr(name)


def _looks(name: str) -> str:
  """What a name looks like: accents as one sign, wide letters as others, Cyrillic and Greek ones as Latin."""
  return unicodedata.normalize('NFKC', name).translate(_LOOKS)


def say(text: str, file: TextIO | None = None) -> None:
  """Prints one line, to standard output unless said otherwise, as `printable` makes it: paths hold anything."""
  print(printable(text), file=file)


def flag(name: str, value: str | os.PathLike[str]) -> str:
  """Returns `--name=value` as a shell reads it."""
  return shlex.quote(f'--{name}={os.fspath(value)}')


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
  """Inside, an error of the system names this file: a full disk's names none, and another's may be a name beside it."""
  try:
    yield
  except OSError as error:
    if error.errno is None or isinstance(error, BrokenPipeError):
      raise
    raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def shown(value: Any) -> str:
  """Returns a value for a message: in one line, and not too long."""
  try:
    text = ' '.join(repr(value).split())
  except ValueError:  # an integer of thousands of digits
    text = 'a value too long to show'
  return text if len(text) <= _LONGEST else f'{text[:_LONGEST]}...'


def cell(value: Any) -> Any:
  """Returns a value of a CSV file as no spreadsheet computes it: with an apostrophe before `=1+1`, `-x`, `@x` and such.

  Text that begins with an apostrophe gets another one, so that leaving out a first apostrophe gives back what it was.
  """
  if not isinstance(value, str) or not _FORMULA.match(value) or _NUMBER.fullmatch(value):
    return value
  return "'" + value
