"""How a command ends: an error in one line, and at once where clean-up could crash."""

import os
import sys
from typing import NoReturn

from resjax import telling

__all__ = ['at_once', 'line_of']

_TOLD = (ValueError, OSError, FloatingPointError)


def line_of(error: BaseException) -> str | None:
  """Returns what to say of an error in one line, or None where it is a fault of the program, which is shown whole."""
  if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error)[:400]:
    return f'not enough memory: {_first_line(error)}; expected smaller batches, resolutions or networks'
  return telling.printable(' '.join(str(error).split())) if isinstance(error, _TOLD) else None


def at_once(code: int) -> NoReturn:
  """Ends this process without clean-up, but for what has been printed.

  Python's clean-up, in the middle of what a signal has interrupted, takes from threads of XLA what they work with.
  """
  for stream in (sys.stdout, sys.stderr):
    try:
      stream.flush()
    except (OSError, ValueError):  # whoever read it is gone
      pass
  os._exit(code)


def _first_line(error: BaseException) -> str:
  """What an error says, cut short."""
  return telling.printable(next(iter(str(error).splitlines()), type(error).__name__)[:300])
