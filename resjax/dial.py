"""The budget dial: routers with a knob, set so that images like those of a calibration cost on the mean what was asked.

A router reads one column of what is known of each image and sends it to a place among the resolutions, 0 for the
highest; turning its knob up sends more images to lower resolutions. Everything here is numpy on such columns.
"""

import dataclasses

import numpy as np

from resjax import routers

__all__ = ['COLUMNS', 'Follower', 'Router', 'dialled', 'ranks_within', 'reachable']

# What each router reads. 'scores' [N, R]: the predictor's. 'odds' [N, R]: log-odds of the likeliest class at each
# resolution. 'detail' [N]: the image's own statistic, as a rank in 0..1 among the calibration's. 'draw' [N]: uniform.
COLUMNS = {'predictor': 'scores', 'cascade': 'odds', 'detail': 'detail', 'random': 'draw'}

# Knobs reach from every image at the highest resolution to every image at the lowest.
_KNOBS = (-1e3, 1e3)


@dataclasses.dataclass(frozen=True)
class Router:
  """One rule with its knob set.

  Attributes:
    name: A key of `COLUMNS`.
    costs: Of one image at each resolution, highest first, in any unit; the router's own are left out.
    own: What the router itself costs for an image, in the same unit.
    knob: Higher sends more images to lower resolutions.
  """

  name: str
  costs: tuple[float, ...]
  own: float = 0.0
  knob: float = 0.0

  def __post_init__(self):
    if self.name not in COLUMNS:
      raise ValueError(f'router: got {self.name!r}, expected one of {", ".join(COLUMNS)}')

  @property
  def charged(self) -> np.ndarray:
    """The whole cost `[R]` of an image that ends at each resolution, the router's own included.

    The cascade pays for every resolution up to the one where it stops, the others for that one.
    """
    ran = routers.cascade_costs(self.costs) if self.name == 'cascade' else np.asarray(self.costs, float)
    return ran + self.own

  def choose(self, column: np.ndarray) -> np.ndarray:
    """Returns the place of each image's resolution, int `[N]`.

    Args:
      column: `COLUMNS[name]` of N images.
    """
    relative = np.asarray(self.costs, float) / max(self.costs)
    if self.name == 'predictor':
      return (np.asarray(column, float) - self.knob * relative).argmax(1)
    if self.name == 'cascade':
      return routers.cascade(column, -self.knob)
    upper = np.cumsum(routers.mix(relative, self.knob)[::-1])[:-1]  # from the lowest resolution up
    return len(relative) - 1 - np.searchsorted(upper, np.asarray(column, float), side='right')

  def mean_cost(self, column: np.ndarray) -> float:
    """Returns the mean cost of these images, in the unit of `costs`."""
    return float(self.charged[self.choose(column)].mean())


def reachable(router: Router, column: np.ndarray) -> tuple[float, float]:
  """Returns the lowest and the highest mean cost that any knob gives on these images."""
  high, low = (dataclasses.replace(router, knob=knob).mean_cost(column) for knob in _KNOBS)
  return low, high


def dialled(router: Router, column: np.ndarray, target: float) -> Router:
  """Returns the router with the knob at which these images cost on the mean what is nearest to a target.

  Args:
    router: Its knob is not read.
    column: `COLUMNS[router.name]` of calibration images.
    target: Mean cost of an image, the router's own included, in the unit of `router.costs`.

  Raises:
    ValueError: No knob comes near the target: it lies outside of what is reachable.
  """
  low, high = reachable(router, column)
  slack = 1e-6 * high
  if not low - slack <= target <= high + slack:
    raise ValueError(f'budget: got {target:.6g}, expected {low:.6g} to {high:.6g} with router {router.name!r}')
  dear, cheap = _KNOBS
  for _ in range(60):
    middle = (dear + cheap) / 2
    if dataclasses.replace(router, knob=middle).mean_cost(column) > target:
      dear = middle
    else:
      cheap = middle
  ends = [dataclasses.replace(router, knob=knob) for knob in (cheap, dear)]
  return min(ends, key=lambda end: abs(end.mean_cost(column) - target))


def ranks_within(values: np.ndarray, calibration: np.ndarray) -> np.ndarray:
  """Returns the rank of each value among the calibration's: float `[N]`, above 0, below 1; equal ones share one."""
  ordered = np.sort(calibration)
  both = np.searchsorted(ordered, values, side='left') + np.searchsorted(ordered, values, side='right')
  return np.clip(both / (2 * len(calibration)), 1e-12, 1 - 1e-12)


class Follower:
  """A router that turns its knob as it goes, so that what has been spent stays on the budget.

  The calibration says how a knob and a cost belong together, the images that came say how far that was off: the next
  ones are dialled to the cost that brings the mean of all back to the target. An image's resolution then depends on
  those before it.

  Attributes:
    router: With the knob for the next images.
  """

  def __init__(self, router: Router, column: np.ndarray, target: float):
    """Starts on the target.

    Args:
      router: Its knob is not read.
      column: `COLUMNS[router.name]` of calibration images.
      target: Mean cost of an image, as of `dialled`.

    Raises:
      ValueError: No knob comes near the target.
    """
    self.router = dialled(router, column, target)
    self._column, self._target = column, target
    self._limits = reachable(router, column)
    self._owed = 0.0

  def spent(self, places: np.ndarray) -> None:
    """Takes note of where images ran, and turns the knob for as many more.

    Args:
      places: int `[N]`, 0 for the highest resolution.
    """
    if not len(places):
      return
    self._owed += float((self._target - self.router.charged[places]).sum())
    low, high = self._limits
    self.router = dialled(self.router, self._column, float(np.clip(self._target + self._owed / len(places), low, high)))
