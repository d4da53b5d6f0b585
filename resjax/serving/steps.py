"""The dial's steps, the dearest first: falling resolutions, or a router at falling budgets."""

from typing import Any, NamedTuple

import numpy as np

from resjax import routing
from resjax.inference import Classifier
from resjax.inference.engines import milliseconds
from resjax.resolution import Resolution, name
from resjax.routing import Columns, Dialled, Images, Routed
from resjax.routing.dial import dialled, reachable
from resjax.routing.fixed import Fixed
from resjax.routing.predictor import Predictor

# Budgets between the dearest and the cheapest that are tried, and how much cheaper than the last a step must be.
_BUDGETS, _CHEAPER = 8, 0.93

# Columns that have a value for each resolution.
_EACH = ('odds', 'guess', 'scores')


class Step(NamedTuple):
  """A step of the dial."""

  name: str
  router: Any  # what `Classifier.predict_crops` takes
  seconds: float  # that an image takes, in a batch of the largest size


class Highest:
  """A router that sends images to the highest few resolutions alone."""

  def __init__(self, router: Dialled):
    """Takes a router that was made and dialled for so many resolutions as it has costs."""
    self._router, self._count = router, len(router.costs)

  def run(self, images: Images) -> Routed:
    """See `Router`."""
    return self._router.run(_Seen(images, self._count))


class _Seen:
  """Images whose columns end at a resolution."""

  def __init__(self, images: Images, count: int):
    self._images, self._count = images, count
    self.run, self.spent = images.run, images.spent  # an array, which `run` adds to

  def __len__(self) -> int:
    return len(self._images)

  def __contains__(self, column: object) -> bool:
    return column in self._images

  def __getitem__(self, column: str) -> np.ndarray:
    return _cut({column: self._images[column]}, self._count)[column]


def ladder(classifier: Classifier, router: str | None = None, lowest: Resolution | None = None) -> list[Step]:
  """Returns the steps of a dial, each cheaper than the one before it.

  The first runs every image at the largest resolution, the last at the lowest that is allowed. Between them stand the
  resolutions, or a router at falling budgets. A batch at one resolution is one program; a router's is several, of fewer
  images each, and that takes time which multiply-adds do not show.

  Args:
    classifier: Compiled where it is not yet.
    router: 'static', or one of those that the network has; None: its predictor after a calibration, else 'static'.
    lowest: Resolution that an image may run at, in pixels; None: the lowest that was trained.

  Raises:
    ValueError: There is no such resolution or router; a router is named, and there is no calibration; or the
      calibration is of another network.
  """
  resolutions = classifier.resolutions
  lowest = resolutions[-1] if lowest is None else lowest
  if lowest not in resolutions:
    raise ValueError(f'min-resolution: got {name(lowest)}, expected one of {", ".join(map(name, resolutions))}')
  count = resolutions.index(lowest) + 1
  chosen = router or (Predictor.name if classifier.network.predictor else Fixed.name)
  known = (Fixed.name, *routing.names_for(classifier.network.predictor is not None))
  if chosen not in known:
    raise ValueError(f'router: got {chosen!r}, expected one of {", ".join(known)} with this network')
  columns: Columns | None = None
  if chosen != Fixed.name:
    try:
      columns = classifier.calibrated
    except FileNotFoundError as error:
      if router is not None:
        raise ValueError(f'router: got {router!r} without a calibration, expected {Fixed.name}: {error}') from None
  costs = tuple(map(float, classifier.engines.macs))
  times = _times(classifier)
  steps = [Step(f'{name(resolutions[place])} px', Fixed(costs, place), times[place]) for place in range(count)]
  between = steps[1:-1] if columns is None else _routed(classifier, chosen, columns, count)
  return _falling([steps[0], *between, *steps[1:][-1:]])


def _routed(classifier: Classifier, router: str, columns: Columns, count: int) -> list[Step]:
  """Steps of a router at falling budgets, that sends images to the highest `count` resolutions."""
  engines = classifier.engines
  seen = _cut(columns, count)
  kind, costs = routing.kind_of(router), tuple(map(float, engines.macs[:count]))
  own = milliseconds(engines.scorer)[0] if engines.scorer else 0.0
  made = kind.of(costs, float(engines.predictor_macs), seen)
  timed = kind.of(tuple(1e3 * each for each in _times(classifier)[:count]), own, seen)
  column = made.read(seen)
  low, high = reachable(made, column)
  steps = []
  for target in np.geomspace(min(high, costs[0]), low, _BUDGETS):
    rule = dialled(made, column, float(target))
    seconds = timed.charged[rule.choose(column)].mean() / 1e3
    steps.append(Step(f'{router} {target / costs[0]:.2f}', Highest(rule), float(seconds)))
  return steps


def _times(classifier: Classifier) -> list[float]:
  """Seconds of an image at each resolution, of the cost table, but none below its share of the multiply-adds.

  Small inputs use a processor no better than large ones. A table that was measured while others worked says that some
  do, and a dial that believes it goes down too far.
  """
  macs, times = classifier.engines.macs, milliseconds(classifier.engines.engine)
  return [float(max(each, times[0] * cost / macs[0])) / 1e3 for each, cost in zip(times, macs)]


def _falling(steps: list[Step]) -> list[Step]:
  """Those that are cheaper than the ones before them; the last always."""
  kept = [steps[0]]
  for step in steps[1:-1]:
    if step.seconds < _CHEAPER * kept[-1].seconds:
      kept.append(step)
  if len(steps) > 1:
    while len(kept) > 1 and kept[-1].seconds * _CHEAPER <= steps[-1].seconds:
      kept.pop()
    kept.append(steps[-1])
  return kept


def _cut(columns: Columns, count: int) -> dict[str, np.ndarray]:
  """Columns whose values for each resolution end after the highest few."""
  return {name: values[:, :count] if name in _EACH else values for name, values in columns.items()}
