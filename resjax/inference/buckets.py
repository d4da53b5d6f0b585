"""The cheapest way to run a mix of resolutions in batches of a few closed sizes: planning, on numpy alone.

An image runs at its own resolution or, where promotion is allowed, at a higher one. The images at a resolution run in
buckets, whose sizes are a closed set; a bucket that is not full is padded. `Planner` finds the plan of least cost by
dynamic programming from the lowest resolution up: the state is the number of images that are carried on to the next
higher one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Images that may be carried up from one resolution to the next, besides all of them; bounds the time of planning.
MOST_CARRIED = 128

ROUNDING = 1e-13  # relative: sums of costs that differ by less are the same


class Group(NamedTuple):
  """One call of a compiled program."""

  place: int  # among the resolutions, 0 for the highest
  bucket: int  # images the program takes
  rows: np.ndarray  # int [n], n <= bucket: those that are run; the rest is padding


class Plan(NamedTuple):
  """What is run, and what the cost table says it takes."""

  groups: list[Group]
  ran: np.ndarray  # int [N]: the place of the resolution at which each image runs
  seconds: float


def closed_sizes(max_batch: int, multiple: int = 1) -> tuple[int, ...]:
  """Returns the buckets' sizes: `multiple` times the powers of two below the largest, and the largest.

  Args:
    max_batch: Images of the largest bucket, rounded up to a multiple of `multiple`.
    multiple: Devices that share a bucket: each gets equally many images.

  Raises:
    ValueError: `max_batch` is not a positive integer.
  """
  if not isinstance(max_batch, int) or max_batch < 1:
    raise ValueError(f'max_batch: got {max_batch!r}, expected a positive integer')
  largest = -(-max_batch // multiple)
  powers = [1 << k for k in range(largest.bit_length()) if 1 << k < largest]
  return tuple(multiple * size for size in [*powers, largest])


class Planner:
  """Plans batches by one table of costs.

  The plan is the cheapest of all that run every image at its own resolution or a higher one, in any buckets; where a
  resolution could pass more than `MOST_CARRIED` images up, of those that pass up to that many, or all.
  """

  def __init__(self, seconds: np.ndarray, buckets: Sequence[int]):
    """Prepares the cheapest cover of every number of images at every resolution.

    Args:
      seconds: `[R, S]`, the time of one call at each resolution, highest first, and of each bucket.
      buckets: `[S]`, ascending sizes.

    Raises:
      ValueError: The sizes are no ascending positive integers, or the costs are not positive numbers `[R, S]`.
    """
    self.seconds = np.asarray(seconds, float)
    self.buckets = tuple(int(b) for b in buckets)
    if not self.buckets or self.buckets[0] < 1 or list(self.buckets) != sorted(set(self.buckets)):
      raise ValueError(f'buckets: got {self.buckets}, expected ascending positive integers')
    shape = self.seconds.shape
    if len(shape) != 2 or shape[0] < 1 or shape[1] != len(self.buckets):
      raise ValueError(f'seconds: got shape {shape}, expected [resolutions, {len(self.buckets)} buckets]')
    if not (np.isfinite(self.seconds) & (self.seconds > 0)).all():
      raise ValueError(f'seconds: got {self.seconds.tolist()}, expected positive numbers')
    self._cover, self._first = self._covers()

  def _covers(self):
    """The least cost [R, 1 + B] of running so many images at a resolution, and the bucket [R, 1 + B] to begin with."""
    sizes = np.array(self.buckets)
    cover = np.zeros((len(self.seconds), 1 + sizes[-1]))
    first = np.zeros(cover.shape, int)
    for images in range(1, cover.shape[1]):
      full = np.searchsorted(sizes, images, 'right')
      order = np.r_[full - 1 : -1 : -1, full : len(sizes)]  # of two that cost the same the one that holds more images
      options = (self.seconds + cover[:, np.maximum(images - sizes, 0)])[:, order]
      cover[:, images] = options.min(1)
      first[:, images] = order[(options <= cover[:, images, None] * (1 + ROUNDING)).argmax(1)]
    return cover, first

  def plan(self, choice: np.ndarray, *, promote: bool = True) -> Plan:
    """Returns the cheapest plan for images that are sent to these resolutions.

    Images of one resolution keep their order; those that are promoted are its last.

    Args:
      choice: int `[N]`, places among the resolutions, 0 for the highest; N is at most the largest bucket.
      promote: Images may run at a higher resolution than their own where that is cheaper; all of them at one where
        grouping loses. False: each runs at its own.
    """
    if len(choice) == 1 and not promote:
      place = int(choice[0])
      bucket = self.buckets[self._first[place, 1]]
      return Plan([Group(place, bucket, np.zeros(1, int))], np.array([place]), float(self._cover[place, 1]))
    order = np.argsort(choice, kind='stable')
    counts = np.bincount(choice, minlength=len(self.seconds))
    run, seconds = self._images_at(counts, promote)
    wanted = np.split(order, np.cumsum(counts)[:-1])
    ran = np.empty(len(choice), int)
    groups: list[Group] = []
    carried = order[:0]
    for place in reversed(range(len(wanted))):
      waiting = np.concatenate([wanted[place], carried])
      here, carried = np.split(waiting, [run[place]])
      ran[here] = place
      groups[:0] = self._groups(place, here)
    return Plan(groups, ran, seconds)

  def _images_at(self, counts, promote):
    """How many images run at each resolution [R] in the cheapest plan, and its cost."""
    arriving, cost, best = np.zeros(1, int), np.zeros(1), []
    for place in reversed(range(len(counts))):
      here = arriving + counts[place]
      leaving = self._carried(here.max()) if place and promote else np.zeros(1, int)
      rest = here[:, None] - leaving
      options = np.where(rest < 0, np.inf, cost[:, None] + self._cover[place, np.maximum(rest, 0)])
      source = options.argmin(0)
      best.append((rest, source))
      arriving, cost = leaving, options[source, np.arange(len(leaving))]
    run, state = np.zeros(len(counts), int), 0
    for place, (rest, source) in enumerate(reversed(best)):
      run[place] = rest[source[state], state]
      state = source[state]
    return run, float(cost[0])

  @staticmethod
  def _carried(most):
    """The numbers of images that may be carried up when so many are there, fewest first: ties promote fewest."""
    few = np.arange(1 + min(most, MOST_CARRIED))
    return few if most <= MOST_CARRIED else np.append(few, most)

  def _groups(self, place, rows):
    """The buckets of the cheapest cover of these rows."""
    while len(rows):
      bucket = self.buckets[self._first[place, len(rows)]]
      yield Group(place, bucket, rows[:bucket])
      rows = rows[bucket:]
