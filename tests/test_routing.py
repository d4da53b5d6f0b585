"""Routers on small tables that can be checked by eye, and what they are charged on images that count their cost."""

import pathlib

import numpy as np
import pytest

from resjax import routing
from resjax.routing import ROUTERS, choosable
from resjax.routing.cascade import Cascade, log_odds
from resjax.routing.detail import energy, ranks_within
from resjax.routing.dial import at_knob
from resjax.routing.fixed import Fixed
from resjax.routing.known import Known
from resjax.routing.oracle import Oracle, smallest_right
from resjax.routing.predictor import Predictor
from resjax.routing.random import shuffled
from resjax.routing.score import right_of, score, share

RESOLUTIONS = (32, 16, 8)
NAMES = ('32', '16', '8')
COSTS = (16.0, 4.0, 1.0)
RIGHT = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 1]], bool)


class Counting:
  """Images at hand whose network says logits known beforehand; what was run is counted."""

  def __init__(self, logits, columns, own=0.0):
    self.logits, self.columns, self.own = logits, columns, own  # [N, R, K]
    self.spent, self.calls = np.zeros(len(logits)), []

  def __len__(self):
    return len(self.logits)

  def __contains__(self, column):
    return column in self.columns

  def __getitem__(self, column):
    if column == 'scores':
      self.spent += self.own
    return self.columns[column]

  def run(self, choice, rows=None, *, promote=True):
    rows = np.arange(len(self)) if rows is None else rows
    self.spent[rows] += np.array(COSTS)[choice]
    self.calls.append((len(rows), promote))
    return self.logits[rows, choice], choice


def test_the_predictor_takes_the_highest_score_and_ties_go_to_the_higher_resolution():
  scores = np.array([[1.0, 2, 0], [3, 3, 3], [0, 1, 5]])
  np.testing.assert_array_equal(Predictor(COSTS).choose(scores), [1, 0, 2])


def test_the_oracle_takes_the_smallest_right_one_and_the_cheapest_where_none_is():
  np.testing.assert_array_equal(Oracle(COSTS).choose(RIGHT), [2, 1, 0, 2, 2, 2])
  np.testing.assert_array_equal(smallest_right(RIGHT, otherwise=-1), [2, 1, 0, -1, 2, 2])


def test_nothing_beats_the_oracle():
  rng = np.random.default_rng(0)
  right = right_of(rng.integers(0, 3, (400, 3)))
  best = score(Oracle(COSTS).choose(right['top1']), right, COSTS, NAMES)
  for place in range(3):
    other = score(np.full(400, place), right, COSTS, NAMES)
    assert best['top1'] > other['top1']
  assert best['top1'] == right['top1'].any(1).mean()


def test_a_random_choice_has_exactly_the_mix():
  choice = np.repeat([0, 1, 2], [5, 20, 75])
  found = shuffled(choice, np.random.default_rng(0))
  assert (found != choice).any()
  np.testing.assert_array_equal(np.bincount(found), [5, 20, 75])


def test_the_known_answer_and_where_it_is_none_of_ours():
  known = Known(COSTS, RESOLUTIONS)
  assert known.knows(np.array([8, 32]))
  np.testing.assert_array_equal(known.choose(np.array([8, 32, 16, 8])), [2, 0, 1, 2])
  other = Known(COSTS[:2], (32, 16))
  assert not other.knows(np.array([8, 32]))
  with pytest.raises(ValueError, match=r'^needed: got \[8, 32\] px, expected some of \(32, 16\)$'):
    other.choose(np.array([8, 32]))


def test_one_resolution_for_all_is_never_promoted():
  logits = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
  images = Counting(logits, {})
  routed = Fixed(COSTS, 1).run(images)
  np.testing.assert_array_equal(routed.logits, logits[:, 1])
  assert images.calls == [(5, False)] and routed.macs.tolist() == [4] * 5
  assert Fixed(COSTS, 1).choose(Fixed(COSTS).read({'energy': np.zeros(3)})).tolist() == [1, 1, 1]


def test_a_cascade_stops_at_the_first_that_is_sure_from_below():
  odds = np.array([[-0.8, 0.9, 0.9], [0.9, 0.9, -0.9], [0.9, -0.9, -0.9], [-0.9, -0.8, -0.7]])
  at = lambda threshold: Cascade(COSTS, knob=-threshold).choose(odds)
  np.testing.assert_array_equal(at(0.8), [2, 1, 0, 0])
  np.testing.assert_array_equal(at(0.9), [2, 1, 0, 0])  # reaching is enough
  np.testing.assert_array_equal(at(-1.0), [2, 2, 2, 2])
  np.testing.assert_array_equal(at(1.1), [0, 0, 0, 0])


def test_a_cascade_pays_for_all_it_ran():
  np.testing.assert_array_equal(Cascade(COSTS).charged, [21, 5, 1])


def test_log_odds_tell_apart_what_probabilities_round_to_one():
  logits = np.array([[0.0, 30.0], [0.0, 40.0], [1.0, 1.0]])
  np.testing.assert_allclose(log_odds(logits), [30, 40, 0], rtol=1e-12, atol=1e-12)
  three = np.array([[2.0, 1.0, 0.5]])
  p = np.exp(2) / np.exp(three).sum()
  np.testing.assert_allclose(log_odds(three), np.log(p / (1 - p)), rtol=1e-12)
  assert log_odds(np.array([[0.0, 20, 40.0]], np.float32))[0] == np.float32(20)


@pytest.mark.parametrize('name', choosable())
def test_running_does_what_choosing_says_and_costs_what_is_charged(name):
  rng = np.random.default_rng(3)
  logits = rng.normal(size=(40, 3, 5)).astype(np.float32)
  columns = {'odds': log_odds(logits.astype(float)), 'scores': rng.normal(size=(40, 3))}
  columns |= {'energy': rng.gamma(2.0, size=40), 'draw': rng.uniform(size=40)}
  knob = -0.3 if name == 'cascade' else 0.2
  of = lambda own: routing.kind_of(name).of(COSTS, own, columns)
  router = at_knob(of(0.5), knob)
  images = Counting(logits, columns, own=0.5)
  routed = router.run(images)
  places = router.choose(router.read(columns))
  assert set(places) == {0, 1, 2}
  np.testing.assert_array_equal(routed.places, places)
  np.testing.assert_array_equal(routed.logits, logits[np.arange(40), places])
  np.testing.assert_allclose(routed.macs, router.charged[places], rtol=1e-12)
  assert (router.charged > of(0.0).charged).all() == (name == 'predictor')
  if name == 'cascade':
    waiting = [int((places <= place).sum()) for place in (2, 1, 0)]
    assert images.calls == [(count, False) for count in waiting]
  else:
    assert images.calls == [(40, True)]


@pytest.mark.parametrize('target', [0.5, 1.0, 1.7, 3.0, 8.0, 15.99, 16.0, 99.0])
def test_the_oracle_stays_within_a_budget_and_is_the_unbounded_one_where_that_suffices(target):
  right = np.random.default_rng(5).random((60, 3)) < 0.5
  unbounded = Oracle(COSTS).choose(right)
  places = Oracle(COSTS, target).choose(right)
  assert np.array(COSTS)[places].mean() <= max(target, COSTS[-1]) + 1e-9
  if target >= np.array(COSTS)[unbounded].mean():
    np.testing.assert_array_equal(places, unbounded)


def test_a_score_counts_every_image_and_the_routers_own_cost():
  ranks = np.array([[0, 9, 9], [9, 4, 9], [9, 9, 5], [9, 9, 0]])
  found = score(np.array([0, 1, 2, 2]), right_of(ranks), Predictor(COSTS, own=0.5).charged, NAMES)
  assert found == {
    'macs': (16 + 4 + 1 + 1) / 4 + 0.5,
    'top1': 0.5,
    'top5': 0.75,
    'share': {'32': 0.25, '16': 0.25, '8': 0.5},
  }
  assert share(np.array([2, 2]), NAMES) == {'32': 0.0, '16': 0.0, '8': 1.0}


def test_energy_is_the_mean_difference_of_neighbours():
  image = np.zeros((1, 2, 3, 3), np.uint8)
  image[0, :, :, 1] = [[0, 200, 0], [100, 0, 0]]
  assert energy(image)[0] == pytest.approx(((200 + 200 + 100 + 0) / 4 + (100 + 200 + 0) / 3) / 2)


def test_equal_energies_share_a_rank():
  np.testing.assert_allclose(
    ranks_within(np.array([0, 1.0, 2, 9]), np.array([1.0, 1, 2, 3])), [0, 0.25, 0.625, 1], atol=1e-11
  )


def test_every_router_says_what_it_is():
  assert list(ROUTERS) == ['predictor', 'cascade', 'detail', 'random', 'static', 'oracle', 'known']
  assert list(choosable()) == ['predictor', 'cascade', 'detail', 'random']
  assert len({kind.style for kind in ROUTERS.values()}) == len(ROUTERS)
  for name, kind in ROUTERS.items():
    assert kind.name == name and kind.help and '\n' not in kind.help


def test_a_network_has_the_routers_that_it_has_all_for():
  assert routing.names_for(predictor=True) == ('predictor', 'cascade', 'detail', 'random')
  assert routing.names_for(predictor=False) == ('cascade', 'detail', 'random')


def test_detail_without_a_calibration_is_refused():
  with pytest.raises(FileNotFoundError, match="calibration: none, expected one for router 'detail'"):
    routing.kind_of('detail').of(COSTS, 0.0, None)


def test_the_documentation_has_a_row_for_each_router():
  root = pathlib.Path(__file__).parents[1]
  inference, drnet = ((root / 'docs' / name).read_text(encoding='utf-8') for name in ('inference.md', 'drnet.md'))
  assert [name for name in choosable() if f'| `{name}` |' not in inference] == []
  judged = set(routing.ROUTERS) - {'static', 'detail'}
  assert [name for name in judged if f'| `{name}` |' not in drnet] == []
