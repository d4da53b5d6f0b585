"""What the budget dial gives: accuracy and cost of every router, beside fixed resolutions, chance and the oracle."""

from typing import Any

import numpy as np

from resjax import routers
from resjax.inference import calibration
from resjax.inference.routing import Network

Table = dict[str, np.ndarray]


def curves(
  network: Network, reference: Table, table: Table, labels: np.ndarray, targets: np.ndarray
) -> dict[str, list[dict[str, Any]]]:
  """Returns a list of points for every router and 'static', each `{'target', 'macs', 'top1', 'share'}`.

  Knobs are set on the calibration and applied to other images; nothing is run again. Static points have no target. A
  router has no point where it can't meet a target.

  Args:
    network: That found the columns.
    reference: The calibration's columns.
    table: The columns of N other images.
    labels: int `[N]`, their classes.
    targets: Mean costs in multiply-adds, the router's own included.
  """
  right = table['guess'] == labels[:, None]
  found = {'static': [point(np.full(len(labels), place), right, network.costs) for place in range(len(network.costs))]}
  for name in network.routers:
    found[name] = []
    for target in targets:
      try:
        router = calibration.dialled(network.router(name), reference, target)
      except ValueError:
        continue
      places = router.choose(calibration.column(router, table, reference))
      found[name].append({'target': float(target), **point(places, right, router.charged)})
  found['oracle'] = [{'target': float(target), **point(oracle(right, network.costs, target), right, network.costs)}
                     for target in targets if target >= min(network.costs)]  # fmt: skip
  return found


def oracle(right: np.ndarray, costs: tuple[float, ...], budget: float) -> np.ndarray:
  """Returns the choice that is right most often at a mean cost of at most `budget`: the bound of all routers.

  Every image begins at the lowest resolution; those that a higher one gets right are sent to the cheapest such, the
  cheapest first, until the budget is spent.

  Args:
    right: bool `[N, R]`, highest resolution first.
    costs: `[R]`, of one image at each resolution.
    budget: At least the lowest cost.
  """
  costs = np.asarray(costs, float)
  lowest = len(costs) - 1
  wanted = np.where(right.any(1), routers.oracle(right), lowest)
  extra = costs[wanted] - costs[lowest]
  order = np.argsort(extra, kind='stable')
  affordable = np.cumsum(extra[order]) <= (budget - costs[lowest]) * len(right) * (1 + 1e-12)
  places = np.full(len(right), lowest)
  places[order[affordable]] = wanted[order[affordable]]
  return places


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
  shares = []
  for point in points:
    low, high = floor.get(point['target']), ceiling.get(point['target'])
    known = low is not None and high is not None and high > low
    shares.append((point['top1'] - low) / (high - low) if known else None)
  return shares


def point(places: np.ndarray, right: np.ndarray, charged: Any) -> dict[str, Any]:
  """Returns what a choice comes to: `{'macs', 'top1', 'share'}`.

  Args:
    places: int `[N]`, of the resolution for each image.
    right: bool `[N, R]`.
    charged: `[R]`, the cost of an image that ends at each resolution.
  """
  return {
    'macs': float(np.asarray(charged, float)[places].mean()),
    'top1': float(np.take_along_axis(right, places[:, None], axis=1).mean()),
    'share': [float((places == place).mean()) for place in range(right.shape[1])],
  }
