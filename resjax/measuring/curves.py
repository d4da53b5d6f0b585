"""What the budget dial gives: accuracy and cost of every router, beside fixed resolutions, chance and the oracle."""

from collections.abc import Iterable
from typing import Any

from resjax import moved
from resjax.inference import calibrating
from resjax.inference.engines import Engines
from resjax.resolution import name as name_of
from resjax.routing import Columns, Router
from resjax.routing.fixed import Fixed
from resjax.routing.oracle import Oracle
from resjax.routing.score import score


def curves(
  engines: Engines, reference: Columns, seen: Columns, targets: Iterable[float]
) -> dict[str, list[dict[str, Any]]]:
  """Returns a list of points for every router and 'static', each `{'target', 'macs', 'top1', 'share'}`.

  Knobs are set on the calibration and applied to other images; nothing is run again. Static points have no target. A
  router has no point where it can't meet a target.

  Args:
    engines: That found the columns.
    reference: The calibration's columns.
    seen: The columns of N other images, 'right' among them.
    targets: Mean costs in multiply-adds, the router's own included.
  """
  costs = tuple(map(float, engines.macs))
  names = names_of(engines)
  found = {Fixed.name: [point(Fixed(costs, place), seen, names) for place in range(len(costs))]}
  for name in engines.routers:
    found[name] = []
    for target in targets:
      try:
        router = calibrating.set_to(engines.router(name, reference), reference, target)
      except ValueError:
        continue
      found[name].append({'target': float(target), **point(router, seen, names)})
  found[Oracle.name] = [
    {'target': float(target), **point(Oracle(costs, target), seen, names)} for target in targets if target >= min(costs)
  ]
  return found


def names_of(engines: Engines) -> list[str]:
  """Returns what results call the resolutions, highest first."""
  return [name_of(resolution) for resolution in engines.engine.resolutions]


def point(router: Router, seen: Columns, names: list[str]) -> dict[str, Any]:
  """Returns what a router comes to on images, see `routing.score`.

  Args:
    router: Its knob is set.
    seen: The columns of the images, 'right' among them.
    names: Of the resolutions.
  """
  return score(router.choose(router.read(seen)), {'top1': seen['right']}, router.charged, names)


def recovered(
  points: list[dict[str, Any]], chance: list[dict[str, Any]], best: list[dict[str, Any]]
) -> list[float | None]:
  """Returns, at each point's target, its share of the way from the random mix to the oracle; None where there is none.

  Args:
    points: A router's.
    chance: Those of the router 'random'.
    best: Those of the oracle.
  """
  floor, ceiling = ({p['target']: p['top1'] for p in curve} for curve in (chance, best))
  shares: list[float | None] = []
  for entry in points:
    low, high = floor.get(entry['target']), ceiling.get(entry['target'])
    if low is None or high is None or high <= low:
      shares.append(None)
    else:
      shares.append((entry['top1'] - low) / (high - low))
  return shares


moved.tell(globals())
