"""Several processes as one run: joining them, and a quick end for all where one of them fails."""

import sys
import time
import traceback
from typing import Any, NoReturn

import jax
from jax.experimental import multihost_utils

from resjax import ending, telling

# A process that gives no sign for so long is taken for dead, and the others end.
HEARTBEAT_SECONDS = 60
# So long the processes wait for each other at the start: the machines of a cluster do not boot at the same moment.
JOIN_SECONDS = 300
# So long the first process outlives the others when all leave: it holds the connections between them.
LAST_SECONDS = 2


def join(coordinator: str | None = None, processes: int | None = None, process_id: int | None = None) -> None:
  """Makes this process one of many, where a cluster is detected or the arguments say so. Call it before any other JAX.

  JAX detects Cloud TPU (also on GKE), SLURM, Open MPI and, with the `kubernetes` package, indexed jobs. Where there is
  none, and no argument, nothing happens. Once several are joined, an exception that nobody catches ends this process at
  once: the others then stop as well, instead of waiting for it.

  Args:
    coordinator: 'HOST:PORT', where process 0 can be reached by all.
    processes: How many there are; 1 alone: do not look for a cluster.
    process_id: Which one this is, from 0.

  Raises:
    ValueError: The arguments contradict each other.
    OSError: The others did not come in time.
  """
  given = {'--coordinator': coordinator, '--processes': processes, '--process_id': process_id}
  if processes == 1 and coordinator is None and not process_id:
    return
  missing = [flag for flag, value in given.items() if value is None]
  if 0 < len(missing) < len(given):
    raise ValueError(f'{" and ".join(missing)} missing, expected {", ".join(given)} together, or none of them')
  if coordinator is not None and processes is not None and process_id is not None:
    _check(coordinator, processes, process_id)
  try:
    jax.distributed.initialize(
      coordinator,
      processes,
      process_id,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
      initialization_timeout=JOIN_SECONDS,
      cluster_detection_method=None if missing else 'deactivate',
    )
  except ValueError as error:
    if missing and 'coordinator_address' in str(error):  # JAX found no cluster
      return
    raise
  except RuntimeError as error:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    where = coordinator or 'the cluster (--processes=1 runs alone)'
    raise OSError(f'--coordinator: {where}: {reason[:200]}; expected all processes within {JOIN_SECONDS} s') from error
  if jax.process_count() > 1:
    sys.excepthook = _end


def _check(coordinator: str, processes: int, process_id: int) -> None:
  """Refuses flags that JAX would fail on later."""
  host, _, port = coordinator.rpartition(':')
  if not host or not port.isdigit() or not 0 < int(port) < 65536:
    raise ValueError(f'--coordinator: got {coordinator!r}, expected HOST:PORT, such as 10.0.0.1:1234')
  if processes < 1:
    raise ValueError(f'--processes: got {processes}, expected 1 or more')
  if not 0 <= process_id < processes:
    raise ValueError(f'--process_id: got {process_id}, expected 0 to {processes - 1} with --processes={processes}')


def many() -> bool:
  """Returns whether this process was joined with others."""
  return jax.distributed.is_initialized() and jax.process_count() > 1


def leave(message: str, code: int = 1) -> NoReturn:
  """Ends this process with a line on stderr; one of many at once, without the others' consent."""
  telling.say(message, sys.stderr)
  if not many():
    sys.exit(code)
  ending.at_once(code)


def leave_together(message: str, code: int) -> NoReturn:
  """Ends this process when all have come here, the first one last: those it serves would call its end an error.

  Clean-up is left out: Python's, in the middle of what a signal has interrupted, can crash.
  """
  telling.say(message, sys.stderr)
  if many():
    multihost_utils.sync_global_devices('leave together')
    if jax.process_index() == 0:
      time.sleep(LAST_SECONDS)
  ending.at_once(code)


def _end(kind: type[BaseException], error: BaseException, trace: Any) -> None:
  """Prints an exception as Python does, and ends: at a normal exit JAX would wait for processes that wait for it."""
  traceback.print_exception(kind, error, trace)
  ending.at_once(1)
