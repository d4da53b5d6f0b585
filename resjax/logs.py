"""The loggers of others, which are left as they were found."""

import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def untouched() -> Iterator[None]:
  """Inside, absl gives the root logger no handler of its own, as it does with the first line that it logs.

  What is logged meanwhile goes where it goes without any handler: warnings to standard error.
  """
  root, handler = logging.getLogger(), logging.lastResort
  if root.handlers or handler is None:
    yield
    return
  root.addHandler(handler)
  try:
    yield
  finally:
    root.removeHandler(handler)


@contextlib.contextmanager
def news_only() -> Iterator[None]:
  """Inside, nothing is said that Orbax raises as well; may stand in another one."""
  loggers = [logging.getLogger(name) for name in ('absl', 'asyncio')]
  news = functools.partial(_is_news)  # of its own: a logger has equal filters once, and gives them up at once
  before = sys.unraisablehook
  sys.unraisablehook = functools.partial(_tell, before)
  for logger in loggers:
    logger.addFilter(news)
  try:
    yield
  finally:
    sys.unraisablehook = before
    for logger in loggers:
      logger.removeFilter(news)


def leave_out_leftovers() -> None:
  """From now on asyncio does not tell of arrays of a state that failed after the one that Orbax has raised.

  TensorStore may hold them until long after the read.
  """
  logging.getLogger('asyncio').addFilter(_is_no_leftover)  # once: it is equal to itself


def _is_no_leftover(record: logging.LogRecord) -> bool:
  """Whether a log record is not of an array in the folder `state` that nobody waited for."""
  text = record.getMessage()
  lost = text.startswith(('Task exception was never retrieved', 'Future exception was never retrieved'))
  return not (lost and 'tensorstore_spec' in text and '/state/' in text)


def _tell(before: Callable[[Any], object], what: Any) -> None:
  """Tells of an error that nobody can catch, unless it is TensorStore's with an answer after Orbax has given up."""
  if not (what.object is None and str(what.exc_value) == 'Event loop is closed'):
    before(what)


def _is_news(record: logging.LogRecord) -> bool:
  """Whether a log record is no other form of an error that Orbax raises as well, for each array once."""
  text = record.getMessage()
  again = text.startswith(('Failed to get metadata', 'Metadata file does not exist')) or 'tensorstore_spec' in text
  raised = record.exc_info or record.levelno >= logging.ERROR
  return not (again or (raised and 'orbax' in record.pathname + text))
