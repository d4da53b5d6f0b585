"""Seconds of several ways to do the same, side by side: interleaved rounds, so that a busy machine slows all alike."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

SETTLE = 0.05  # PyTorch's threads (libgomp) spin for about 0.01 s after their last work


def seconds(
  ways: Mapping[str, Callable[[], Any]], *, rounds: int, warm_up: int = 1, settle: float = 0.0
) -> dict[str, list[float]]:
  """Returns the seconds of every round, by way; each round runs every way once, in an order that turns.

  Args:
    ways: What is timed; each returns only when its work is done.
    rounds: That count.
    warm_up: Rounds before those.
    settle: Seconds at the beginning of each turn in which the way runs uncounted, at least once (`SETTLE`): threads
      that the way before has left spinning would take a processor from it, and its own have yet to wake.
  """
  found: dict[str, list[float]] = {name: [] for name in ways}
  for number, name in order(list(ways), rounds=rounds, warm_up=warm_up):
    settled = time.perf_counter() + settle
    while time.perf_counter() < settled:
      ways[name]()
    begin = time.perf_counter()
    ways[name]()
    if number >= 0:
      found[name].append(time.perf_counter() - begin)
  return found


def order(names: list[str], *, rounds: int, warm_up: int = 1) -> Iterator[tuple[int, str]]:
  """Yields the number of the round, below 0 for those that do not count, and whose turn it is.

  Args:
    names: Of the ways.
    rounds: That count.
    warm_up: Rounds before those.
  """
  for number in range(-warm_up, rounds):
    turn = number % len(names)
    yield from ((number, name) for name in names[turn:] + names[:turn])


def ratio(of: list[float], over: list[float]) -> dict[str, float]:
  """Returns the median over the rounds of `of / over`, with the quartiles: `{'median', 'low', 'high'}`."""
  ratios = [a / b for a, b in zip(of, over, strict=True)]
  return {'median': statistics.median(ratios), **_quartiles(ratios)}


def spread(values: list[float]) -> dict[str, float]:
  """Returns the median and the quartiles of some numbers: `{'median', 'low', 'high'}`."""
  return {'median': statistics.median(values), **_quartiles(values)}


def _quartiles(values: list[float]) -> dict[str, float]:
  """The first and the third; of a single value, that value."""
  if len(values) < 2:
    return {'low': values[0], 'high': values[0]}
  low, _, high = statistics.quantiles(values, n=4, method='inclusive')
  return {'low': low, 'high': high}
