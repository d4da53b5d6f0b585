"""The budget dial: what each knob does, and that images which the calibration never saw cost what was asked."""

import dataclasses

import numpy as np
import pytest

from resjax import routing
from resjax.routing import choosable
from resjax.routing.cascade import Cascade
from resjax.routing.detail import Detail, ranks_within
from resjax.routing.dial import Follower, at_knob, dialled, mean_cost, reachable
from resjax.routing.predictor import Predictor
from resjax.routing.random import Random

COSTS = (12.0, 3.0, 1.0)
COUNT = 10_000
OWN = 0.1  # the predictor's cost, which its router alone pays


def columns(seed):
  """What routers read of images of three needs; the same distribution for every seed."""
  rng = np.random.default_rng(seed)
  need = rng.integers(0, 3, COUNT)
  scores = 3 * np.eye(3)[need] + rng.normal(size=(COUNT, 3))
  odds = np.sort(rng.normal(size=(COUNT, 3)), axis=1)[:, ::-1] + 2 * (need[:, None] >= np.arange(3))
  energy = rng.gamma(2.0, size=COUNT) * (3 - need)
  return {'scores': scores, 'odds': odds, 'energy': energy, 'draw': rng.uniform(size=COUNT)}


def make(name):
  return routing.kind_of(name).of(COSTS, OWN, columns(0))


def column(name, seed):
  return make(name).read(columns(seed))


@pytest.mark.parametrize('name', choosable())
def test_ten_targets_are_met_on_images_that_the_calibration_never_saw(name):
  router = make(name)
  low, high = reachable(router, column(name, 0))
  own = OWN if name == 'predictor' else 0
  assert (low, high) == pytest.approx((1 + own, 16 if name == 'cascade' else 12 + own))
  for target in np.linspace(low, 12 + own, 10):
    found = dialled(router, column(name, 0), target)
    assert mean_cost(found, column(name, 0)) == pytest.approx(target, abs=0.003)  # one image costs 0.0015 of the mean
    assert mean_cost(found, column(name, 1)) == pytest.approx(target, rel=0.05)


@pytest.mark.parametrize('name', choosable())
def test_a_higher_knob_never_sends_an_image_up(name):
  before = np.zeros(COUNT, int)
  for knob in np.linspace(-20, 20, 41):
    places = at_knob(make(name), knob).choose(column(name, 0))
    assert (places >= before).all()
    before = places


@pytest.mark.parametrize('target', [1.0, 1.7, 3.0, 8.0, 15.99, 16.0])
def test_of_all_thresholds_the_dial_finds_the_one_nearest_to_the_target(target):
  odds = np.random.default_rng(1).uniform(size=(60, 3))
  found = mean_cost(dialled(Cascade(COSTS), odds, target), odds)
  costs = [mean_cost(Cascade(COSTS, knob=-t), odds) for t in [*odds[:, 1:].ravel(), 2.0]]
  assert abs(found - target) == min(abs(cost - target) for cost in costs)


@pytest.mark.parametrize('mean', [3, 30, 300])
def test_a_cascade_meets_its_budget_however_sure_the_network_is(mean):
  """Float32 probabilities of log-odds above 17 are all 1.0."""
  odds = np.random.default_rng(0).normal(mean, 0.1 * mean, (COUNT, 3))
  for target in (2.0, 8.0, 14.4):
    found = dialled(Cascade(COSTS), odds, target)
    assert mean_cost(found, odds) == pytest.approx(target, abs=COSTS[0] / COUNT)  # the next image's


def test_the_predictor_pays_for_its_score_and_the_cascade_for_all_that_it_ran():
  assert Predictor(COSTS, 0.5).charged.tolist() == [12.5, 3.5, 1.5]
  assert Cascade(COSTS).charged.tolist() == [16.0, 4.0, 1.0]
  assert Random(COSTS).charged.tolist() == Detail(COSTS, np.ones(1)).charged.tolist() == [12.0, 3.0, 1.0]


def test_knob_zero_is_the_predictor_as_it_was_trained():
  scores = columns(0)['scores']
  np.testing.assert_array_equal(Predictor(COSTS).choose(scores), scores.argmax(1))


def test_more_detail_gets_more_pixels():
  ranks = np.array([0.0, 0.4, 0.6, 1.0])
  assert Detail(COSTS, np.ones(1), knob=0.0).choose(ranks).tolist() == [2, 1, 1, 0]


def test_a_random_draw_has_the_mix_of_its_knob():
  router = dialled(Random(COSTS), columns(0)['draw'], 4.0)
  share = np.bincount(router.choose(columns(1)['draw']), minlength=3) / COUNT
  ratio = np.log(share[2] / share[1]) / np.log(share[1] / share[0])
  assert ratio == pytest.approx((3 - 1) / (12 - 3), abs=0.1)  # shares fall by the same factor per unit of cost


def test_a_table_without_draws_is_dealt_out_evenly():
  draws = Random(COSTS).read({'energy': np.zeros(1000)})
  np.testing.assert_allclose(np.sort(draws), (np.arange(1000) + 0.5) / 1000)
  assert (np.diff(draws) < 0).any()
  np.testing.assert_array_equal(draws, Random(COSTS).read({'energy': np.zeros(1000)}))


def test_what_no_knob_reaches_is_refused_with_the_range():
  for target in (1.0, 12.2):
    with pytest.raises(ValueError, match=r"^budget: got .*, expected 1\.1 to 12\.1 with router 'predictor'$"):
      dialled(make('predictor'), columns(0)['scores'], target)


@pytest.mark.parametrize('name', ['best', 'oracle', 'static'])
def test_an_unknown_router_is_refused(name):
  with pytest.raises(ValueError, match=f"router: got '{name}', expected one of predictor, cascade, detail, random"):
    routing.kind_of(name)


def test_a_router_says_what_it_is_set_to():
  assert dataclasses.asdict(Random(COSTS, knob=2.0))['knob'] == 2.0


@pytest.mark.parametrize('name', choosable())
def test_what_was_spent_brings_other_images_back_to_the_budget(name):
  """Images unlike the calibration's: every router alone is off by far."""
  values = column(name, 1)
  values = values**2 if values.ndim == 1 else values + np.array([-0.5, 0.5, 1.0])
  target = 5.0
  follower = Follower(dialled(make(name), column(name, 0), target), column(name, 0), target)
  assert abs(mean_cost(follower.router, values) / target - 1) > 0.05
  total = 0.0
  for start in range(0, COUNT, 100):
    places = follower.router.choose(values[start : start + 100])
    total += follower.router.charged[places].sum()
    follower.spent(places)
  assert total / COUNT == pytest.approx(target, rel=0.01)


def test_a_follower_that_owes_more_than_any_knob_gives_stays_within_reach():
  values = column('random', 0)
  follower = Follower(dialled(Random(COSTS), values, 2.0), values, 2.0)
  follower.spent(np.zeros(50, int))
  assert mean_cost(follower.router, values) == pytest.approx(1.0)
  follower.spent(np.array([], int))
  assert mean_cost(follower.router, values) == pytest.approx(1.0)


def test_every_router_reaches_from_all_at_the_lowest_to_all_at_the_highest():
  """At the costs of 224, 160 and 96 px, and where half of the images have the same detail."""
  costs = (1.0, 0.51, 0.18)
  energy = np.where(np.arange(1000) < 500, 3.0, np.arange(1000.0))
  detail = Detail(costs, np.sort(energy))
  np.testing.assert_array_equal(detail.read({'energy': energy}), ranks_within(energy, np.sort(energy)))
  assert reachable(detail, detail.read({'energy': energy})) == pytest.approx((0.18, 1.0))
  assert reachable(Random(costs), column('random', 0)) == pytest.approx((0.18, 1.0))
