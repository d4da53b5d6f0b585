"""Every recipe runs from start to result, at reduced size."""

import importlib
import re

import pytest

from resjax import macs, models
from resjax.resolution import at_widths, name
from resjax.training import loop

RECIPES = ['quickstart', 'rsnet_r18', 'rsnet_r50', 'rsnet_mobilenetv2', 'inet_r18', 'parallel_r18']
RECIPES += ['rsnet_r18_2_32', 'rsnet_preact_r18_2_2', 'same_size_r18', 'slimmable_quickstart', 'slimmable_mobilenetv2']


@pytest.mark.slow
@pytest.mark.parametrize('recipe', RECIPES)
def test_a_recipe_runs_at_reduced_size(recipe, tmp_path):
  config = importlib.import_module(f'configs.{recipe}').get_config()
  count = 2 if config.model.quantise else len(config.resolutions)  # fitting bases takes minutes to compile
  sizes = dict(zip(sorted(set(config.resolutions), reverse=True), (64, 48, 32, 24, 16)))
  config.resolutions = tuple(sizes[r] for r in config.resolutions[:count])
  config.widths = config.widths[:3]
  config.model.num_classes = 4 if config.data.source != 'scaled_digits' else 10
  if config.data.source == 'tfds':
    config.data.source = 'fake'
  config.data.size = 32
  config.data.workers = 0
  config.batch_size = 8
  config.eval.batch_size = 16
  config.epochs = 0.5
  config.optimizer.learning_rate = 1e-3  # the recipe's is for its batch size
  if config.data.source == 'scaled_digits':
    config.eval.batch_size = 1000
  results = loop.train_and_evaluate(config, tmp_path)
  assert list(results['resolutions']) == [name(r) for r in at_widths(config)]
  assert results['method'] == 'rsnet' and 0 <= results['ensemble']['top1'] <= 1


@pytest.mark.parametrize('recipe', [
  'rsnet_r18', 'rsnet_r50', 'rsnet_mobilenetv2', 'inet_r18', 'same_size_r18', 'drnet_r50', 'drnet_mobilenetv2',
  'drnet_from_rsnet_r18',
])  # fmt: skip
def test_what_a_recipe_says_of_its_cost_is_counted(recipe):
  """Multiply-adds forward of one image at all resolutions, as they are rounded there."""
  module = importlib.import_module(f'resjax.recipes.{recipe}')
  said = re.search(r'(\d+\.\d+) G multiply-adds forward per image', ' '.join(module.__doc__.split()))
  config = module.get_config()
  network = models.from_config(config)
  cost = sum(macs.of_model(network, resolution) for resolution in config.resolutions)
  digits = len(said[1].partition('.')[2])
  assert f'{cost / 1e9:.{digits}f}' == said[1]
