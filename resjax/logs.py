"""The loggers of others, which are left as they were found."""

import contextlib
import logging
from collections.abc import Iterator


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
