"""mistakes.csv of a run: the surest of the wrong answers after an evaluation, of either method."""

import csv

import jax
import numpy as np
import pytest
from networks import tiny
from test_evaluate import made_run
from test_start import tiny as tiny_run

from configs import default
from resjax import config as configuration
from resjax import drnet, rsnet
from resjax.routing.cascade import log_odds
from resjax.training import evaluate, loop

pytestmark = pytest.mark.usefixtures('shallow')


@pytest.mark.parametrize('method', [rsnet, drnet])
def test_what_mistakes_are_known_by_is_what_the_largest_resolution_says(method):
  network = tiny(method.__name__.split('.')[1])
  config = default.get_config()
  config.resolutions, config.eval.mistakes = (16, 8), 5
  config.drnet.predictor.size, config.drnet.predictor.width = 8, 0.25
  rng = np.random.default_rng(0)
  batch = {'images': (rng.integers(0, 256, (6, 16, 16, 3), np.uint8),), 'label': rng.integers(0, 5, 6)}
  found = jax.jit(method.make_eval_fn(network.model, config))(network.variables, batch)

  def logits_of(variables):
    images = rsnet.preprocess.prepare(batch['images'], (16,), 'imagenet')
    return rsnet.switchable.forward(network.model, variables, images, (16,), train=False)[0][0]

  logits = jax.jit(logits_of)(network.variables)
  np.testing.assert_array_equal(found['guess'], logits.argmax(-1))
  np.testing.assert_array_equal(found['label'], batch['label'])
  np.testing.assert_allclose(found['guess_odds'], log_odds(logits), rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(found['guess'] == found['label'], found['ranks'][:, 0] == 0)
  config.eval.mistakes = 0
  assert not {'guess', 'guess_odds'} & jax.eval_shape(method.make_eval_fn(network.model, config), network.variables,
                                                      batch).keys()  # fmt: skip


def rows_of(path):
  with open(path, newline='') as file:
    return list(csv.DictReader(file))


def test_the_surest_mistakes_are_named(tmp_path):
  """Image n is ranked n at the largest size: all but the first are wrong, as surely as their number modulo 5."""
  config = configuration.from_json(configuration.to_json(default.get_config()))
  config.update_from_flattened_dict(
    {'resolutions': (8, 4), 'eval.batch_size': 16, 'eval.crop_fraction': 1.0, 'model.num_classes': 7,
     'eval.mistakes': 3, 'data.max_bad_images': 1}
  )  # fmt: skip
  from numbered import Numbered

  run = made_run(Numbered(12, bad=(4,)), config)
  step = run.eval_step

  def eval_step(variables, batch):
    number = batch['index']
    found = {'guess': (number + 1) % 7, 'label': number % 7, 'guess_odds': np.float32(number % 5)}
    return {'ranks': step(variables, batch)['ranks']} | found

  run.eval_step = eval_step
  evaluate.evaluate(run, np.ones((1, 2), np.float32))
  assert not list(tmp_path.iterdir())
  evaluate.evaluate(run, np.ones((1, 2), np.float32), tmp_path)
  rows = rows_of(tmp_path / 'mistakes.csv')
  assert [row['image'] for row in rows] == ['numbered 9', 'numbered 3', 'numbered 8']  # 4 can't be read
  assert [(row['label'], row['guess'], row['rank'], row['wrong_at']) for row in rows] == [
    ('c', 'd', '10', '8 4'), ('d', 'e', '4', '8 4'), ('b', 'c', '9', '8'),
  ]  # fmt: skip


@pytest.mark.parametrize('memory', ['joint', pytest.param('two_pass', marks=pytest.mark.slow)])
def test_a_run_with_all_that_fine_tuning_offers_leaves_the_file(memory, tmp_path):
  fields = {
    'eval.mistakes': 4, 'batch_size': 16, 'memory': memory, 'data.mixup': 0.2, 'data.cutmix': 1.0, 'data.erase': 0.5,
    'data.augment': 'randaugment', 'class_weights': ('balanced',), 'optimizer.layer_decay': 0.7,
    'optimizer.rates': (('head/*', 10.0),), 'label_smoothing': 0.1,
  }  # fmt: skip
  config = tiny_run(**fields)
  configuration.validate(config)
  loop.train_and_evaluate(config, tmp_path)
  rows = rows_of(tmp_path / 'mistakes.csv')
  assert len(rows) == 4 and all(row['label'] != row['guess'] and 0 < float(row['probability']) <= 1 for row in rows)
