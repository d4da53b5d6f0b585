"""Routers on small tables that can be checked by eye."""

import numpy as np
import pytest

from resjax import routers

RESOLUTIONS = (32, 16, 8)
COSTS = (16.0, 4.0, 1.0)
RIGHT = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 1]], bool)


def test_the_predictor_takes_the_highest_score_and_ties_go_to_the_higher_resolution():
  scores = np.array([[1.0, 2, 0], [3, 3, 3], [0, 1, 5]])
  np.testing.assert_array_equal(routers.predictor(scores), [1, 0, 2])


def test_the_oracle_takes_the_smallest_right_one_and_the_cheapest_where_none_is():
  np.testing.assert_array_equal(routers.oracle(RIGHT), [2, 1, 0, 2, 2, 2])


def test_nothing_beats_the_oracle():
  rng = np.random.default_rng(0)
  ranks = rng.integers(0, 3, (400, 3))
  best = routers.score(routers.oracle(ranks == 0), ranks, COSTS, RESOLUTIONS)
  for place in range(3):
    other = routers.score(np.full(400, place), ranks, COSTS, RESOLUTIONS)
    assert best['top1'] > other['top1']
  assert best['top1'] == (ranks == 0).any(1).mean()


def test_a_random_choice_has_exactly_the_mix():
  choice = np.repeat([0, 1, 2], [5, 20, 75])
  shuffled = routers.shuffled(choice, np.random.default_rng(0))
  assert (shuffled != choice).any()
  np.testing.assert_array_equal(np.bincount(shuffled), [5, 20, 75])


def test_the_known_answer_and_where_it_is_none_of_ours():
  np.testing.assert_array_equal(routers.known(np.array([8, 32, 16, 8]), RESOLUTIONS), [2, 0, 1, 2])
  assert routers.known(np.array([8, 32]), (32, 16)) is None


def test_a_cascade_stops_at_the_first_that_is_sure_from_below():
  confidence = np.array([[0.2, 0.9, 0.9], [0.9, 0.9, 0.1], [0.9, 0.1, 0.1], [0.1, 0.2, 0.3]])
  np.testing.assert_array_equal(routers.cascade(confidence, 0.8), [2, 1, 0, 0])
  np.testing.assert_array_equal(routers.cascade(confidence, 0.0), [2, 2, 2, 2])
  np.testing.assert_array_equal(routers.cascade(confidence, 1.1), [0, 0, 0, 0])


def test_a_cascade_pays_for_all_it_ran():
  np.testing.assert_array_equal(routers.cascade_costs(COSTS), [21, 5, 1])


@pytest.mark.parametrize('target', [0.5, 1.0, 1.7, 3.0, 8.0, 20.99, 21.0, 99.0])
def test_the_threshold_is_the_highest_that_stays_within_the_target(target):
  confidence = np.random.default_rng(1).uniform(size=(60, 3))
  threshold = routers.threshold_for(confidence, COSTS, target)
  spent = routers.cascade_costs(COSTS)
  cost = lambda t: spent[routers.cascade(confidence, t)].mean()
  candidates = np.concatenate([confidence[:, 1:].ravel(), [np.inf]])
  allowed = [t for t in candidates if cost(t) <= target]
  assert threshold == (max(allowed) if allowed else 0.0)


def test_a_cascade_is_calibrated_on_other_images():
  rng = np.random.default_rng(2)
  confidence, other = rng.uniform(size=(101, 3)), rng.uniform(size=(70, 3))
  given = routers.calibrated_cascade(confidence, COSTS, 6.0, other)
  np.testing.assert_array_equal(given, routers.cascade(confidence, routers.threshold_for(other, COSTS, 6.0)))
  crossed = routers.calibrated_cascade(confidence, COSTS, 6.0, None)
  for own, others in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
    threshold = routers.threshold_for(confidence[others], COSTS, 6.0)
    np.testing.assert_array_equal(crossed[own], routers.cascade(confidence[own], threshold))


def test_a_score_counts_every_image_and_the_routers_own_cost():
  ranks = np.array([[0, 9, 9], [9, 4, 9], [9, 9, 5], [9, 9, 0]])
  found = routers.score(np.array([0, 1, 2, 2]), ranks, COSTS, RESOLUTIONS, own=0.5)
  assert found == {
    'macs': (16 + 4 + 1 + 1) / 4 + 0.5,
    'top1': 0.5,
    'top5': 0.75,
    'share': {'32': 0.25, '16': 0.25, '8': 0.5},
  }
