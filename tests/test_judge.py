"""The predictor against its rivals, on tables whose answers are known."""

import json

import numpy as np
import pytest

from resjax.recipes import default
from resjax.report.gallery import gallery, sent
from resjax.routing import judge
from resjax.routing.cascade import Cascade
from resjax.routing.dial import dialled, mean_cost
from resjax.training import evaluate
from resjax.training.judge import hardly_chosen

RESOLUTIONS = (32, 16, 8)
COSTS = (1600, 400, 100)
COUNT = 3000


def table(seed=0):
  """Images that need 32, 16 or 8 in equal parts and are right from there on; log-odds tell, scores nearly."""
  rng = np.random.default_rng(seed)
  need = np.resize([0, 1, 2], COUNT)
  right = need[:, None] >= np.arange(3)
  scores = np.eye(3)[need] + rng.normal(scale=0.3, size=(COUNT, 3))
  return {
    'ranks': np.where(np.column_stack([right, right[:, :1]]), 0, 7).astype(np.int32),
    'scores': scores.astype(np.float32),
    'odds': np.where(right, 2.0, -1.5) + rng.uniform(0, 1, (COUNT, 3)),
    'label': (np.arange(COUNT) // 3 % 2).astype(np.int32),
  }, np.array(RESOLUTIONS)[need]


def compare(found, needed, own=10, calibration=None):
  known = {} if needed is None else {'needed': needed}
  return judge.compare(found | known, calibration, COSTS, own, RESOLUTIONS, ('even', 'odd', 'never'))


def test_every_rival_is_judged_and_charged():
  found, needed = table()
  calibration, _ = table(1)
  result = compare(found, needed, calibration=calibration)
  routers = result['routers']
  assert list(routers) == ['predictor', 'random', 'cascade', 'oracle', 'known']
  for entry in routers.values():
    assert sum(entry['share'].values()) == pytest.approx(1)
  choice = found['scores'].argmax(1)
  mean = np.array(COSTS)[choice].mean()
  assert routers['predictor']['macs'] == pytest.approx(mean + 10) == pytest.approx(routers['random']['macs'])
  assert result['predictor'] == {'macs': 10, 'mean_macs_without': pytest.approx(mean)}
  chosen_right = found['ranks'][np.arange(COUNT), choice] == 0
  assert routers['predictor']['top1'] == chosen_right.mean()
  expected = sum((choice == j).mean() * (found['ranks'][:, j] == 0).mean() for j in range(3))
  assert routers['random']['top1'] == pytest.approx(expected, abs=0.01) and routers['random']['top1_sd'] > 0
  assert routers['oracle'] == routers['known'] and routers['known']['macs'] == pytest.approx(700)
  assert routers['known']['top1'] == 1
  assert routers['cascade']['macs'] == pytest.approx(routers['predictor']['macs'], rel=0.05)
  answer = np.searchsorted(-np.array(RESOLUTIONS), -needed)
  assert result['needed']['agreement'] == (choice == answer).mean()
  assert result['needed']['agreement_or_right'] == (choice <= answer).mean()
  assert result['needed']['share']['16']['8'] == (choice[needed == 16] == 2).mean()
  assert set(result['share_by_class']) == {'even', 'odd'}
  assert result['share_by_class']['odd']['32'] == (choice[found['label'] == 1] == 0).mean()
  assert result['warnings'] == []
  json.dumps(result, allow_nan=False)


def test_the_cascades_curve_goes_from_the_lowest_alone_to_all():
  found, needed = table()
  curve = compare(found, needed, calibration=table(1)[0])['cascade_curve']
  assert curve[0] == [pytest.approx(100, rel=0.01), pytest.approx(1 / 3, rel=0.01)] and curve[-1] == [2100, 1.0]
  assert [macs for macs, _ in curve] == sorted(macs for macs, _ in curve)


def test_without_calibration_images_each_half_sets_the_others_threshold():
  found, needed = table()
  given, crossed = (compare(found, needed, calibration=c)['routers']['cascade'] for c in (table(1)[0], None))
  assert crossed['macs'] == pytest.approx(given['macs'], rel=0.05)


def test_a_cascade_is_set_on_other_images():
  rng = np.random.default_rng(2)
  odds, other = rng.uniform(size=(101, 3)), rng.uniform(size=(70, 3))
  cascade = Cascade(COSTS)
  given = judge.crossed(cascade, odds, 600.0, other)
  np.testing.assert_array_equal(given, dialled(cascade, other, 600.0).choose(odds))
  crossed = judge.crossed(cascade, odds, 600.0, None)
  for ours, others in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
    np.testing.assert_array_equal(crossed[ours], dialled(cascade, odds[others], 600.0).choose(odds[ours]))


@pytest.mark.parametrize(('target', 'place'), [(1.0, 2), (9e9, 0)])
def test_what_a_cascade_can_not_reach_is_the_nearest_in_reach(target, place):
  odds = np.random.default_rng(2).uniform(size=(101, 3))
  assert set(judge.crossed(Cascade(COSTS), odds, target, odds)) == {place}


def test_the_cascade_spends_its_budget_also_where_every_probability_rounds_to_one():
  """Log-odds of 30 on the mean: float32 probabilities are all 1.0, and no threshold tells them apart."""
  found, needed = table()
  found['odds'] = np.random.default_rng(3).normal(30, 3, (COUNT, 3)).astype(np.float32)
  assert (1 / (1 + np.exp(-found['odds'])) == 1).all()
  routers = compare(found, needed, calibration=found)['routers']
  assert routers['cascade']['macs'] == pytest.approx(routers['predictor']['macs'], abs=COSTS[0] / COUNT)  # one image's
  spent = judge.crossed(Cascade(COSTS), found['odds'], 900.0, found['odds'])
  assert Cascade(COSTS).charged[spent].mean() == pytest.approx(900.0, abs=COSTS[0] / COUNT)
  assert mean_cost(Cascade(COSTS), found['odds']) == COSTS[-1]  # knob 0 stops everywhere: the dial was needed


def test_without_known_answers_there_is_no_agreement():
  found, needed = table()
  for other in (None, np.where(needed == 8, 4, needed)):
    result = compare(found, other)
    assert 'needed' not in result and 'known' not in result['routers']


def test_a_predictor_that_costs_more_than_it_saves_is_told_of():
  found, needed = table()
  line, *_ = compare(found, needed, own=2000)['warnings']
  assert line.startswith('the predictor costs 2,000 multiply-adds per image and saves ')
  assert line.endswith('32 px for every image is cheaper')


def test_a_predictor_that_a_fixed_resolution_beats_is_told_of():
  found, needed = table()
  found['ranks'][:, 1] = 0
  (line,) = compare(found, needed)['warnings']
  assert line == '16 px for every image is no dearer than the predictor and no less often right'


def test_unreadable_images_are_left_out():
  found, _ = table()
  found['ranks'][5] = -1
  kept = evaluate.readable(found)
  assert {len(column) for column in kept.values()} == {COUNT - 1}
  np.testing.assert_array_equal(kept['label'], np.delete(found['label'], 5))


def test_the_gallery_shows_what_went_where(tmp_path):
  found, needed = table()
  found['scores'][:, 1] = -9  # nothing goes to 16
  numbers = np.arange(COUNT) * 2
  rows = sent(found | {'needed': needed}, numbers, RESOLUTIONS)
  assert [(row['kind'], row['pixels']) for row in rows] == [('sent', 32), ('sent', 16), ('sent', 8)]
  assert [len(row['images']) for row in rows] == [10, 0, 10]
  assert [row['count'] for row in rows] == np.bincount(found['scores'].argmax(1), minlength=3).tolist()
  for place, row in enumerate(rows):
    for image in row['images']:
      i = image['number'] // 2
      assert found['scores'][i].argmax() == place
      assert image['caption'] == f'needs {needed[i]}' and image['right'] == (found['ranks'][i, place] == 0)
  assert {image['caption'] for row in sent(found, numbers, RESOLUTIONS) for image in row['images']} == {''}
  images = {image['number']: np.full((32, 32, 3), 90, np.uint8) for row in rows for image in row['images']}
  gallery(images, rows, tmp_path / 'gallery.png')
  assert (tmp_path / 'gallery.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
  ('fields', 'named'),
  [({}, ['16', '8']), ({'batch_size': 400}, ['8']), ({'drnet.frozen': True}, []), ({'private': 'affine'}, []),
   ({'private': 'statistics'}, ['16', '8']), ({'drnet.statistics': 'all'}, []), ({'shared_batch_norm': True}, [])],
)  # fmt: skip
def test_a_resolution_that_learned_from_few_images_is_told(fields, named):
  config = default.get_config()
  config.batch_size = 64
  config.update_from_flattened_dict(fields)
  lines = hardly_chosen(config, {'32': 0.875, '16': 0.124, '8': 0.001})
  assert [line.partition(' ')[0] for line in lines] == named
  expected = f'8 px gets 0.1% of the images, fewer than 8 of a batch of {config.batch_size}: its BatchNorm has seen'
  assert not named or lines[-1].startswith(expected)
