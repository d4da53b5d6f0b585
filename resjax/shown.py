"""A value as a message shows it."""

from typing import Any

__all__ = ['shown']

_LONGEST = 200  # letters


def shown(value: Any) -> str:
  """Returns a value for a message: in one line, and not too long."""
  try:
    text = ' '.join(repr(value).split())
  except ValueError:  # an integer of thousands of digits
    text = 'a value too long to show'
  return text if len(text) <= _LONGEST else f'{text[:_LONGEST]}...'
