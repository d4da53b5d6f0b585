"""The oracle under a budget against brute force; what a router recovers of the way to it."""

import itertools

import numpy as np
import pytest

from resjax.measuring import curves
from resjax.routing.oracle import Oracle
from resjax.routing.predictor import Predictor


def test_the_oracle_is_the_best_of_all_choices():
  rng = np.random.default_rng(0)
  costs = (6.0, 3.0, 1.0)
  for _ in range(20):
    right = rng.random((5, 3)) < 0.5
    budget = rng.uniform(1, 6)
    places = Oracle(costs, budget).choose(right)
    found = right[np.arange(5), places].sum()
    assert np.asarray(costs)[places].mean() <= budget + 1e-9
    best = max(
      sum(right[i, p] for i, p in enumerate(choice))
      for choice in itertools.product(range(3), repeat=5)
      if sum(costs[p] for p in choice) <= 5 * budget + 1e-9
    )
    assert found == best


def test_the_way_to_the_oracle():
  chance = [{'target': 1.0, 'top1': 0.5}, {'target': 2.0, 'top1': 0.6}, {'target': 3.0, 'top1': 0.9}]
  best = [{'target': 1.0, 'top1': 0.9}, {'target': 2.0, 'top1': 1.0}, {'target': 3.0, 'top1': 0.9}]
  points = [{'target': 1.0, 'top1': 0.6}, {'target': 2.0, 'top1': 0.5}, {'target': 3.0, 'top1': 0.9}]
  shares = curves.recovered(points, chance, best)
  assert shares[:2] == pytest.approx([0.25, -0.25]) and shares[2] is None


def test_a_point_is_what_a_router_comes_to():
  seen = {
    'scores': np.array([[1.0, 0], [0, 1], [0, 1], [0, 1]]),
    'right': np.array([[1, 0], [1, 1], [1, 0], [0, 1]], bool),
  }
  found = curves.point(Predictor((6.0, 2.0), own=0.5), seen, ['16', '8'])
  assert found == {'macs': 3.5, 'top1': 0.75, 'share': {'16': 0.25, '8': 0.75}}
