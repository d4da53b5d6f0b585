"""SIGTERM, the notice before a machine is taken away: training saves at the next step and ends.

On one host the signal is caught here, and whatever else runs ends at once. Where processes are joined, JAX catches it,
whichever of them it was sent to, and names the step at which all stop: what else runs goes on to the next step.
"""

import contextlib
import itertools
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

# JAX wants questions numbered without a gap, over all runs of the process.
_asked = itertools.count(1)

# EX_TEMPFAIL of sysexits.h: try again. What a scheduler should start again, in contrast to 1, an error.
EXIT_CODE = 75


class Preempted(BaseException):
  """SIGTERM came. What was to be saved is saved: the same command goes on. Like Ctrl-C, it is no `Exception`."""


class Notice:
  """Whether SIGTERM came; a context manager, inside which it does not kill the process.

  On one host it raises Preempted, wherever the program is, but for stretches that are `patient`: those ask `reached`.
  Further signals are ignored, so that saving can end.
  """

  def __init__(self):
    self._told = self._patient = False
    self._before: Any = None

  def __enter__(self) -> 'Notice':
    self._before = None
    if threading.current_thread() is threading.main_thread() and not jax.distributed.is_initialized():
      self._before = signal.signal(signal.SIGTERM, self._hear)
    return self

  def __exit__(self, *_: Any) -> None:
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  @contextlib.contextmanager
  def patient(self, patient: bool = True) -> Iterator[None]:
    """Inside, the signal waits until `reached` is asked; with False, it raises at once again."""
    before, self._patient = self._patient, patient
    try:
      if self._told and not patient:
        raise Preempted
      yield
    finally:
      self._patient = before

  def reached(self) -> bool:
    """Returns whether to stop now; on several hosts all get the same answer, if all ask after each training step."""
    return self._told or multihost_utils.reached_preemption_sync_point(next(_asked))

  def until_told(self, batches: Iterable[tuple[int, Any]], step: int) -> Iterator[tuple[int, Any]]:
    """Yields steps with their batches; where a signal has ended what makes them, the last step again, with None.

    Args:
      batches: Of the steps that are to come.
      step: The one before.
    """
    try:
      for step, batch in batches:
        yield step, batch
    except OSError:  # the processes that decode may have got the signal too, and before this one
      if not self._told_soon():
        raise
      yield step, None

  def _told_soon(self, seconds: float = 2.0) -> bool:
    """Whether the signal came to this process, or comes in a moment."""
    deadline = time.monotonic() + seconds
    while not self._told and self._before is not None and time.monotonic() < deadline:
      time.sleep(0.01)
    return self._told

  def _hear(self, *_: Any) -> None:
    told, self._told = self._told, True
    if not told and not self._patient:
      raise Preempted
