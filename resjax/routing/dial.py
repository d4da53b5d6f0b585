"""The budget dial: a router's knob, set so that images like those of a calibration cost on the mean what was asked."""

import dataclasses
from typing import TypeVar

import numpy as np

from resjax.routing.router import Dialled, Images, Routed

R = TypeVar('R', bound=Dialled)

# Knobs reach from every image at the highest resolution to every image at the lowest.
_KNOBS = (-1e3, 1e3)


def at_knob(router: R, knob: float) -> R:
  """Returns the router with its knob set."""
  return dataclasses.replace(router, knob=knob)  # type: ignore[type-var]  # every router is a frozen dataclass


def mean_cost(router: Dialled, column: np.ndarray) -> float:
  """Returns the mean cost of images, in the unit of the router's costs, its own included.

  Args:
    router: Its knob is set.
    column: What it reads of them.
  """
  return float(router.charged[router.choose(column)].mean())


def reachable(router: Dialled, column: np.ndarray) -> tuple[float, float]:
  """Returns the lowest and the highest mean cost that any knob gives on these images."""
  high, low = (mean_cost(at_knob(router, knob), column) for knob in _KNOBS)
  return low, high


def dialled(router: R, column: np.ndarray, target: float) -> R:
  """Returns the router with the knob at which these images cost on the mean what is nearest to a target.

  Args:
    router: Its knob is not read.
    column: What it reads of calibration images.
    target: Mean cost of an image, the router's own included, in the unit of its costs.

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
    if mean_cost(at_knob(router, middle), column) > target:
      dear = middle
    else:
      cheap = middle
  ends = [at_knob(router, knob) for knob in (cheap, dear)]
  return min(ends, key=lambda end: abs(mean_cost(end, column) - target))


class Follower:
  """A router that turns its knob as it goes, so that what has been spent stays on the budget.

  The calibration says how a knob and a cost belong together, the images that came say how far that was off: the next
  ones are dialled to the cost that brings the mean of all back to the target. An image's resolution then depends on
  those before it.

  Attributes:
    router: With the knob for the next images.
  """

  def __init__(self, router: Dialled, column: np.ndarray, target: float):
    """Starts with a router that `dialled` has set to the target; arguments as there."""
    self._router, self._column, self._target = router, column, target
    self._owed, self._last = 0.0, 0  # cost, and images; 0: the knob is where it should be

  @property
  def router(self) -> Dialled:
    """See the class; the knob is turned when this is asked for, not after images that no others follow."""
    if self._last:
      low, high = reachable(self._router, self._column)
      wanted = float(np.clip(self._target + self._owed / self._last, low, high))
      self._router, self._last = dialled(self._router, self._column, wanted), 0
    return self._router

  def run(self, images: Images) -> Routed:
    """Runs images by the router, and takes note of what they cost."""
    found = self.router.run(images)
    self.spent(found.places)
    return found

  def spent(self, places: np.ndarray) -> None:
    """Takes note of where images ran: as many more are to bring their mean back to the target.

    Args:
      places: int `[N]`, 0 for the highest resolution.
    """
    if len(places):
      self._owed += float((self._target - self._router.charged[places]).sum())
      self._last = len(places)
