"""DRNet's fields: its recipes are valid and affordable, contradictions end in one line, each recipe runs."""

import importlib
import json
import re

import pytest

from configs import default
from resjax import config as configuration
from resjax import drnet, models, recipes
from resjax.data import scaled_digits
from resjax.training import loop

RECIPES = ['drnet_quickstart', 'drnet_r50', 'drnet_mobilenetv2', 'drnet_from_rsnet_r18']


def recipe(name):
  return importlib.import_module(f'configs.{name}').get_config()


@pytest.mark.parametrize('name', RECIPES)
def test_every_recipe_is_valid_and_its_predictor_cheap(name):
  config = recipe(name)
  configuration.validate(config)
  text = json.dumps(configuration.to_json(config))
  assert configuration.from_json(json.loads(text)).to_dict() == config.to_dict()
  model = models.create(config.model.name, num_classes=config.model.num_classes)
  costs = drnet.costs_of(model, config.resolutions)
  assert min(costs) < drnet.budget_of(config, costs) < max(costs)
  assert drnet.predictor_of(config).macs < 0.01 * max(costs)


@pytest.mark.parametrize(('name', 'left'), [('drnet_r50', 2.5e9), ('drnet_mobilenetv2', 0.85 * 300_774_272)])
def test_with_the_papers_predictor_as_the_recipe_says_the_network_has_as_much(name, left):
  config = recipe(name)
  costs = drnet.costs_of(models.from_config(config), config.resolutions)
  assert drnet.budget_of(config, costs) == pytest.approx(left, rel=1e-6)
  said = importlib.import_module(f'resjax.recipes.{name}').__doc__.partition("the paper's predictor: ")[2]
  recipes.with_fields(config, re.findall(r'--config[^\s,)]+', said.partition(')')[0]))
  assert drnet.predictor_of(config).macs in (290_194_944, 7_315_968)
  assert drnet.budget_of(config, costs) == pytest.approx(left, rel=1e-3)


@pytest.mark.parametrize('name', RECIPES)
def test_a_recipes_budget_stays_a_budget_where_the_network_is_another(name):
  """A share of its cost: multiply-adds would be more than all resolutions of a smaller one cost, and ask nothing."""
  config = recipe(name)
  config.model.width, config.drnet.predictor.size = 0.5, 16
  costs = drnet.costs_of(models.from_config(config), config.resolutions)
  assert config.drnet.budget < 1 and min(costs) < drnet.budget_of(config, costs) < max(costs)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'method': 'dynamic'}, "config.method: got 'dynamic', expected one of rsnet, drnet"),
    ({'resolutions': (224,)}, r'config.resolutions: got \(224,\), expected two or more to choose from'),
    ({'resolutions': (224, 224)}, r"config.resolutions: got \(224, 224\), expected distinct ones with method='drnet'"),
    (
      {'shared_batch_norm': True, 'private': 'affine'},
      "config.private: got 'affine' with shared_batch_norm=True, expected 'none', or shared_batch_norm=False",
    ),
    (
      {'data.crops': 'different', 'data.pyramid': 'host'},
      "config.data.crops: got 'different', expected 'same' with method='drnet'",
    ),
    ({'drnet.tau_end': 2.0}, 'config.drnet.tau_end: got 2.0, expected at most tau = 1.0'),
    ({'drnet.tau': 0.0}, 'config.drnet.tau: got 0.0, expected more than 0'),
    ({'drnet.budget': 0.0}, 'config.drnet.budget: got 0.0, expected more than 0'),
    ({'drnet.margin': 0.9}, 'config.drnet.margin: got 0.9, expected 1 or more'),
    ({'drnet.estimator': 'reinforce'}, "config.drnet.estimator: got 'reinforce', expected one of dense, routed"),
    ({'drnet.start': 'anywhere'}, 'config.drnet.start: .* expected one of scratch, pretrain, checkpoint'),
    ({'drnet.start': 'checkpoint'}, "config.drnet.checkpoint: got '', expected the workdir of an RS-Net run"),
    ({'drnet.checkpoint': 'runs/a'}, "config.drnet.checkpoint: got 'runs/a', expected .* nothing otherwise"),
    (
      {'drnet.start': 'scratch', 'drnet.frozen': True},
      'config.drnet.frozen: got True, expected False with drnet.start',
    ),
    (
      {'drnet.statistics': 'all', 'drnet.estimator': 'routed'},
      "config.drnet.statistics: got 'all' with drnet.estimator='routed', expected 'sent'",
    ),
    (
      {'drnet.statistics': 'all', 'drnet.frozen': True},
      "config.drnet.statistics: got 'all' with drnet.frozen=True, expected 'sent'",
    ),
    ({'drnet.estimator': 'supervised'}, 'config.drnet.frozen: got False, expected True with drnet.estimator'),
    ({'drnet.predictor.size': 256}, 'config.drnet.predictor.size: got 256, expected at most 224, the largest'),
    (
      {'drnet.predictor.name': 'vgg'},
      "config.drnet.predictor.name: got 'vgg', expected one of small, resnet10, mobile",
    ),
  ],
)
def test_a_contradiction_is_named_in_one_line(fields, message):
  config = default.get_config()
  config.update_from_flattened_dict({'method': 'drnet'} | fields)
  with pytest.raises(ValueError, match=message) as error:
    configuration.validate(config)
  assert '\n' not in str(error.value)


def test_fields_of_drnet_do_not_matter_to_rsnet():
  config = default.get_config()
  config.resolutions = (32,)
  configuration.validate(config)


@pytest.mark.slow
@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_runs_at_reduced_size(name, tmp_path, monkeypatch):
  config = recipe(name)
  if config.data.source == 'scaled_digits':
    for split in ('calibration', 'test'):
      monkeypatch.setitem(scaled_digits.SPLITS, split, 500)
  else:
    config.resolutions = (48, 32, 24)
    config.model.num_classes = 4
    config.data.source = 'fake'
    config.drnet.budget = 0.6
    config.drnet.predictor.size = 24
    # At the recipes' rates two steps on eight random images end in a gradient that is not finite.
    config.optimizer.learning_rate = config.drnet.pretrain.learning_rate = 1e-3
  config.data.size = 32
  config.data.workers = 0
  config.batch_size = 8
  config.eval.batch_size = 16
  config.epochs = 0.5
  config.drnet.pretrain.epochs = 0.5
  if config.drnet.start == 'checkpoint':
    first = recipe('rsnet_r18')
    first.update_from_flattened_dict(
      {'data.source': 'fake', 'data.size': 32, 'data.workers': 0, 'batch_size': 8, 'eval.batch_size': 16}
      | {'epochs': 0.5, 'resolutions': config.resolutions, 'model.num_classes': 4}
    )
    loop.train_and_evaluate(first, tmp_path / 'rsnet')
    config.drnet.checkpoint = str(tmp_path / 'rsnet')
  results = loop.train_and_evaluate(config, tmp_path / 'drnet')
  assert results['method'] == 'drnet' and {'predictor', 'random', 'cascade', 'oracle'} <= set(results['routers'])
