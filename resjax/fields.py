"""Fields of a config as a command sets them: `--config.FIELD=VALUE`, each in the type that it has."""

import ast
import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import tuple_parser

from resjax.telling import shown

__all__ = ['SYNTAX', 'near', 'of_kind', 'put']

SYNTAX = 'fields are set as --config.FIELD=VALUE'

# By the type of a field's value in the recipe: what reads it, and what a message calls it. A bool is an int, so it is
# the first of both.
_KINDS: dict[type, tuple[Any, str]] = {
  bool: (flags.BooleanParser(), 'true or false'),
  int: (flags.IntegerParser(), 'an integer'),
  float: (flags.FloatParser(), 'a number'),
  str: (flags.ArgumentParser(), 'text'),
  tuple: (tuple_parser.TupleParser(), 'values such as (1, 2)'),
}


def put(config: ConfigDict, arguments: Sequence[str]) -> None:
  """Sets fields.

  A field that is named twice has the last value, one of several values all of them; what is whole, such as (1, 2),
  takes the place of those before it.

  Args:
    config: Changed in place.
    arguments: `--config.FIELD=VALUE` or the two apart, and `--config.FIELD` or `--noconfig.FIELD` of what is true or
      false; a section is set by a dict.

  Raises:
    ValueError: There is no such field, or a value is not of the field's type.
  """
  lists: dict[str, tuple[Any, ...]] = {}
  for name, text in _pairs(config, arguments):
    section, last, before = _find(config, name)
    if isinstance(before, ConfigDict):
      _put_section(before, name, text)
      continue
    value = _read(name, text, before)
    if isinstance(value, tuple) and not str(text).startswith(('(', '[')):
      value = lists.get(name, ()) + value
    if isinstance(value, tuple):
      lists[name] = value
    section[last] = value


def of_kind(value: Any, like: Any) -> str | None:
  """Returns what a field's value should be, or None where it is of the type of another one.

  Args:
    value: Any; true and false are no numbers.
    like: The field's default.
  """
  number = isinstance(value, int | float) and not isinstance(value, bool)
  fits = {
    bool: isinstance(value, bool),
    int: number and isinstance(value, int),
    float: number,
    str: isinstance(value, str),
    tuple: isinstance(value, tuple | list),
  }.get(type(like), True)
  return None if fits else _KINDS[type(like)][1]


def near(name: str, names: Iterable[str], prefix: str = '') -> str:
  """Returns a question after the known names that are like one that is not known, or nothing where none is.

  Args:
    name: As it was typed, perhaps without its section.
    names: Those that are known.
    prefix: What stands before each of them in the message.
  """
  known = list(names)
  last = [other for other in known if other.rpartition('.')[2] == name.rpartition('.')[2]]
  found = last or difflib.get_close_matches(name, known, 2, 0.8)
  if not found and (by_last := {other.rpartition('.')[2]: other for other in known}):
    found = [by_last[word] for word in difflib.get_close_matches(name.rpartition('.')[2], by_last, 3, 0.75)]
  return f'. Did you mean {" or ".join(prefix + other for other in found[:3])}?' if found else ''


def _pairs(config: ConfigDict, arguments: Sequence[str]) -> Iterator[tuple[str, str | bool]]:
  """The name and the value of each field."""
  rest = list(arguments)
  while rest:
    argument = rest.pop(0)
    name, equals, text = argument.lstrip('-').partition('=')
    negated = name.startswith('noconfig.')
    prefix, _, name = name.partition('.')
    if not argument.startswith('-') or prefix not in ('config', 'noconfig'):
      raise ValueError(f'unexpected argument {shown(argument)}: {SYNTAX}')
    *_, before = _find(config, name)
    if negated and (equals or not isinstance(before, bool)):
      raise ValueError(f'--noconfig.{name}: got {shown(argument)}, expected it of a field that is true or false, alone')
    if equals:
      yield name, text
    elif isinstance(before, bool):
      yield name, not negated
    elif not rest:
      raise ValueError(f'--config.{name}: got no value, expected --config.{name}=VALUE')
    else:
      yield name, rest.pop(0)


def _find(config: ConfigDict, name: str) -> tuple[ConfigDict, str, Any]:
  """The section of a field, its name there, and its value."""
  section: Any = config
  *sections, last = name.split('.')
  for part in sections:
    section = section[part] if isinstance(section, ConfigDict) and part in section else None
  if not isinstance(section, ConfigDict) or last not in section:
    hint = near(name, _names(config), 'config.') or ', expected one of resjax/recipes/default.py'
    raise ValueError(f'--config.{name}: no such field{hint}')
  return section, last, section[last]


def _names(config: ConfigDict, prefix: str = '') -> Iterator[str]:
  """The fields of a config by dotted name."""
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      yield from _names(value, f'{prefix}{name}.')
    else:
      yield prefix + name


def _read(name: str, text: str | bool, before: Any) -> Any:
  """The value that a text means."""
  parser, expected = _KINDS.get(type(before), (None, 'a Python literal'))
  try:
    return parser.parse(text) if parser else ast.literal_eval(str(text))
  except (ValueError, TypeError, SyntaxError, OverflowError, MemoryError, RecursionError):
    raise ValueError(f'--config.{name}: got {shown(text)}, expected {expected}') from None


def _put_section(section: ConfigDict, name: str, text: str | bool) -> None:
  """Sets the fields of a section that a dict names."""
  try:
    values = ast.literal_eval(str(text))
  except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
    values = None
  if not isinstance(values, dict):
    raise ValueError(f'--config.{name}: got {shown(text)}, expected one of its fields, such as --config.{name}.'
                     f'{next(iter(section))}=VALUE')  # fmt: skip
  for field, value in values.items():
    if field not in section:
      hint = near(str(field), section, f'config.{name}.') or f', expected one of {", ".join(section)}'
      raise ValueError(f'--config.{name}.{field}: no such field{hint}')
    if expected := of_kind(value, section[field]):
      raise ValueError(f'--config.{name}.{field}: got {shown(value)}, expected {expected}')
    section[field] = value
