"""The budget dial: what each knob does, and that images which the calibration never saw cost what was asked."""

import dataclasses

import numpy as np
import pytest

from resjax import dial

COSTS = (12.0, 3.0, 1.0)
COUNT = 10_000


def columns(seed):
  """What routers read of images of three needs; the same distribution for every seed."""
  rng = np.random.default_rng(seed)
  need = rng.integers(0, 3, COUNT)
  scores = 3 * np.eye(3)[need] + rng.normal(size=(COUNT, 3))
  odds = np.sort(rng.normal(size=(COUNT, 3)), axis=1)[:, ::-1] + 2 * (need[:, None] >= np.arange(3))
  detail = rng.gamma(2.0, size=COUNT) * (3 - need)
  return {'scores': scores, 'odds': odds, 'detail': detail, 'draw': rng.uniform(size=COUNT)}


def column(name, seed):
  found = columns(seed)
  if name == 'detail':
    return dial.ranks_within(found['detail'], columns(0)['detail'])
  return found[dial.COLUMNS[name]]


@pytest.mark.parametrize('name', dial.COLUMNS)
def test_ten_targets_are_met_on_images_that_the_calibration_never_saw(name):
  router = dial.Router(name, COSTS, own=0.1)
  low, high = dial.reachable(router, column(name, 0))
  assert (low, high) == pytest.approx((1.1, 16.1 if name == 'cascade' else 12.1))
  for target in np.linspace(low, 12.1, 10):
    set_to = dial.dialled(router, column(name, 0), target)
    assert set_to.mean_cost(column(name, 0)) == pytest.approx(target, abs=0.003)  # one image costs 0.0015 of the mean
    assert set_to.mean_cost(column(name, 1)) == pytest.approx(target, rel=0.05)


@pytest.mark.parametrize('name', dial.COLUMNS)
def test_a_higher_knob_never_sends_an_image_up(name):
  before = np.zeros(COUNT, int)
  for knob in np.linspace(-20, 20, 41):
    places = dial.Router(name, COSTS, knob=knob).choose(column(name, 0))
    assert (places >= before).all()
    before = places


def test_the_predictor_pays_for_its_score_and_the_cascade_for_all_that_it_ran():
  assert dial.Router('predictor', COSTS, own=0.5).charged.tolist() == [12.5, 3.5, 1.5]
  assert dial.Router('cascade', COSTS).charged.tolist() == [16.0, 4.0, 1.0]


def test_knob_zero_is_the_predictor_as_it_was_trained():
  scores = columns(0)['scores']
  np.testing.assert_array_equal(dial.Router('predictor', COSTS).choose(scores), scores.argmax(1))


def test_more_detail_gets_more_pixels():
  ranks = np.array([0.0, 0.4, 0.6, 1.0])
  assert dial.Router('detail', COSTS, knob=0.0).choose(ranks).tolist() == [2, 1, 1, 0]


def test_a_random_draw_has_the_mix_of_its_knob():
  router = dial.dialled(dial.Router('random', COSTS), columns(0)['draw'], 4.0)
  share = np.bincount(router.choose(columns(1)['draw']), minlength=3) / COUNT
  ratio = np.log(share[2] / share[1]) / np.log(share[1] / share[0])
  assert ratio == pytest.approx((3 - 1) / (12 - 3), abs=0.1)  # shares fall by the same factor per unit of cost


def test_what_no_knob_reaches_is_refused_with_the_range():
  router = dial.Router('predictor', COSTS, own=0.1)
  for target in (1.0, 12.2):
    with pytest.raises(ValueError, match=r"^budget: got .*, expected 1\.1 to 12\.1 with router 'predictor'$"):
      dial.dialled(router, columns(0)['scores'], target)


def test_an_unknown_router_is_refused():
  with pytest.raises(ValueError, match=r"router: got 'best', expected one of predictor, cascade, detail, random"):
    dial.Router('best', COSTS)


def test_a_router_says_what_it_is_set_to():
  assert dataclasses.asdict(dial.Router('random', COSTS, knob=2.0))['knob'] == 2.0


@pytest.mark.parametrize('name', dial.COLUMNS)
def test_what_was_spent_brings_other_images_back_to_the_budget(name):
  """Images unlike the calibration's: every router alone is off by far."""
  values = column(name, 1)
  values = values**2 if values.ndim == 1 else values + np.array([-0.5, 0.5, 1.0])
  target = 5.0
  follower = dial.Follower(dial.Router(name, COSTS, own=0.1), column(name, 0), target)
  assert abs(follower.router.mean_cost(values) / target - 1) > 0.05
  total = 0.0
  for start in range(0, COUNT, 100):
    places = follower.router.choose(values[start : start + 100])
    total += follower.router.charged[places].sum()
    follower.spent(places)
  assert total / COUNT == pytest.approx(target, rel=0.01)


def test_a_follower_that_owes_more_than_any_knob_gives_stays_within_reach():
  values = column('random', 0)
  follower = dial.Follower(dial.Router('random', COSTS), values, 2.0)
  follower.spent(np.zeros(50, int))
  assert follower.router.mean_cost(values) == pytest.approx(1.0)
  follower.spent(np.array([], int))
  assert follower.router.mean_cost(values) == pytest.approx(1.0)


def test_every_router_reaches_from_all_at_the_lowest_to_all_at_the_highest():
  """At the costs of 224, 160 and 96 px, and where half of the images have the same detail."""
  costs = (1.0, 0.51, 0.18)
  detail = np.where(np.arange(1000) < 500, 3.0, np.arange(1000.0))
  for name, values in {'detail': dial.ranks_within(detail, detail), 'random': column('random', 0)}.items():
    assert dial.reachable(dial.Router(name, costs), values) == pytest.approx((0.18, 1.0))
