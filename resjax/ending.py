"""How a command ends: an error in one line, and at once where clean-up could crash."""

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

from resjax import telling

__all__ = [
  'at_once',
  'importing',
  'interrupted',
  'line_of',
  'listen',
  'nothing_more',
  'open_streams',
  'pass_over_coroutines',
]

_came = threading.Event()  # Ctrl-C
_TOLD = (ValueError, OSError, FloatingPointError)


def line_of(error: BaseException) -> str | None:
  """Returns what to say of an error in one line, or None where it is a fault of the program, which is shown whole."""
  disk = isinstance(error, OSError)  # TensorStore says of a full one what XLA says of memory
  if isinstance(error, MemoryError) or ('RESOURCE_EXHAUSTED' in str(error)[:400] and not disk):
    return f'not enough memory: {_first_line(error)}; expected smaller batches, resolutions or networks'
  return telling.printable(' '.join(_said(error).split())) if isinstance(error, _TOLD) else None


@contextlib.contextmanager
def importing() -> Iterator[None]:
  """Inside, Ctrl-C ends at once: libraries that are imported make other errors of it."""
  before = signal.getsignal(signal.SIGINT)
  if threading.current_thread() is not threading.main_thread() or before not in (
    signal.default_int_handler,
    _interrupt,
  ):
    yield
    return
  signal.signal(signal.SIGINT, _stopped)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)


def open_streams() -> None:
  """Opens standard input, output and error where they were closed: what is opened next would take their places."""
  for number, name in enumerate(('stdin', 'stdout', 'stderr')):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # the lowest number that is free is this one
    if getattr(sys, name) is None:
      setattr(sys, name, open(number, 'w' if number else 'r', closefd=False))


def listen() -> None:
  """Makes this process remember Ctrl-C, which still raises KeyboardInterrupt: see `interrupted`."""
  mine = threading.current_thread() is threading.main_thread()
  if mine and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _interrupt)


def pass_over_coroutines() -> None:
  """Makes this process say nothing of coroutines that nobody awaits: Orbax leaves some where it can't save or read."""
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited', RuntimeWarning)


def interrupted() -> bool:
  """Returns whether Ctrl-C came: an error after it is what a library has made of it."""
  return _came.is_set()


def _interrupt(*call: Any) -> None:
  """Answers Ctrl-C as Python does."""
  _came.set()
  warnings.simplefilter('ignore')  # of what is left half done
  signal.default_int_handler(*call)


def _stopped(*_: object) -> NoReturn:
  """Answers Ctrl-C."""
  os.write(2, b'Stopped\n')
  at_once(130)


def nothing_more() -> None:
  """Makes what has been said the last: threads that are still at work log nothing more in this process."""
  logging.disable()
  sys.unraisablehook = lambda _: None


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


def _said(error: BaseException) -> str:
  """What an error says; of the system's `path: reason`, without its number and quotes."""
  if not isinstance(error, OSError) or error.strerror is None:
    return str(error)
  return f'{os.fsdecode(error.filename)}: {error.strerror}' if _named(error) else error.strerror


def _named(error: OSError) -> bool:
  """Whether an error of the system says which file."""
  return isinstance(error.filename, str | bytes)


def _first_line(error: BaseException) -> str:
  """What an error says, cut short."""
  return telling.printable(next(iter(str(error).splitlines()), type(error).__name__)[:300])
