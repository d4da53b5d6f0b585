"""How the parts of gpu.py tell what they found, and how they take time."""

import json
import time
from collections.abc import Callable

FIGURE = 'FIGURE '  # begins a line that is a figure


def tell(**figure) -> None:
  """Prints what was found."""
  print(FIGURE + json.dumps(figure), flush=True)


def seconds_of(take: Callable[[], object], wait: Callable[[], object], options: dict) -> list[float]:
  """Returns the seconds of a step, a number for each round, of as many steps as take `round_s` seconds.

  Args:
    take: Starts a step.
    wait: Returns when all that was started is done.
    options: Reads `rounds` and `round_s`.
  """
  for _ in range(2):
    take()
  wait()
  begin = time.perf_counter()
  take()
  wait()
  count = max(1, round(options['round_s'] / (time.perf_counter() - begin)))
  found = []
  for _ in range(options['rounds']):
    begin = time.perf_counter()
    for _ in range(count):
      take()
    wait()
    found.append((time.perf_counter() - begin) / count)
  return found
