"""How many programs XLA has compiled, counted by the events that JAX reports."""

import threading
from functools import cache

import jax

# Fires once for every program that is asked of the compiler, also where the persistent cache holds it.
EVENT = '/jax/core/compile/backend_compile_duration'

_thread = threading.local()


def count() -> int:
  """Returns the programs that this thread has compiled since it first asked; differences are what counts."""
  _listen()
  return getattr(_thread, 'count', 0)


@cache
def _listen() -> None:
  """Registers the listener, once."""

  def add(event: str, seconds: float, **_) -> None:
    if event == EVENT:
      _thread.count = getattr(_thread, 'count', 0) + 1

  jax.monitoring.register_event_duration_secs_listener(add)
