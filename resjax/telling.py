"""What is said of files, whatever is in them: short, in one line, and nothing that a terminal obeys."""

import unicodedata


def one_line(error: Exception) -> str:
  """Returns what an error says, in one short line of letters, whatever a file made it say."""
  text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
  return printable(text[:300])


def printable(text: str) -> str:
  r"""Returns a text with `\x1b`, `\u202e`, `\udce9` for what moves a cursor, turns lines around, or is no UTF-8."""
  return text if text.isprintable() else ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def distinct(name: str, others: list[str]) -> str:
  r"""Returns a name as a refusal shows it: with code points, `'e\u0301'`, where another one looks the same."""
  alike = unicodedata.normalize('NFC', name)
  same = any(other != name and unicodedata.normalize('NFC', other) == alike for other in others)
  return ascii(name) if same else repr(name)
