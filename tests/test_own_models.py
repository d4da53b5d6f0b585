"""Networks named in a config as 'module:factory': made with what they take, trained, counted, refused in one line."""

import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from resjax import config as configuration
from resjax import drnet, macs, models, rsnet, switchable, trained
from resjax.training import loop

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import own_models


def config_of(name, **fields):
  config = default.get_config()
  config.resolutions = (16, 8)
  config.model.name = f'own_models:{name}'
  config.model.num_classes = 3
  config.data.source = 'fake'
  config.data.name = ''
  config.data.size = 24
  config.eval.batch_size = 8
  config.batch_size = 8
  config.epochs = 2.0
  config.update_from_flattened_dict(fields)
  return config


def test_a_factory_gets_the_keywords_that_it_takes():
  create = functools.partial(models.create, num_classes=3)
  assert create('own_models:Net') == own_models.Net(3)
  assert create('own_models:Net', momentum=0.5) == own_models.Net(3, momentum=0.5)
  full = {'width': 0.5, 'dtype': 'bfloat16', 'axis_name': 'data'}
  assert create('own_models:Full', **full) == own_models.Full(3, **full)
  assert models.create('own_models:seven', num_classes=7, width=1.5) == own_models.Full(7, width=3.0)
  assert models.from_config(config_of('Full', **{'model.width': 2.0}), 'data') == own_models.Full(
    3, 2.0, 'float32', 'data'
  )


def test_a_foreign_network_is_trained_evaluated_and_counted(tmp_path):
  config = config_of('Net')
  results = loop.train_and_evaluate(config, tmp_path)
  model = models.from_config(config)
  assert [row['macs'] for row in results['resolutions'].values()] == [macs.of_model(model, r) for r in (16, 8)]
  assert results['resolutions']['16']['macs'] == 8 * 8 * 4 * 27 + 4 * 3
  variables = trained.load(tmp_path).variables
  assert set(variables['params']['shared']) == {'look', 'say'} and set(variables['params']['private']['8']) == {'calm'}
  for r in ('16', '8'):
    assert np.abs(variables['batch_stats'][r]['calm']['mean']).max() > 0.01
  logits = model.apply(switchable.view(variables, 8), jnp.ones((1, 8, 8, 3)), train=False)
  assert logits.shape == (1, 3) and np.isfinite(logits).all()


@pytest.mark.parametrize(
  ('name', 'fields', 'message'),
  [
    ('Net', {'model.width': 0.5}, 'model.width: got 0.5, and own_models:Net takes no width'),
    ('Net', {'model.dtype': 'bfloat16'}, "model.dtype: got 'bfloat16', and own_models:Net takes no dtype"),
    (
      'Full',
      {'model.zero_init_last_gamma': True},
      'model.zero_init_last_gamma: got True, and own_models:Full takes no',
    ),
    ('needy', {}, 'model.name: own_models:needy needs depth, expected no others than num_classes, '),
    ('stranger', {}, 'model.name: own_models:stranger gives a dict, expected a flax.linen.Module'),
    ('Elsewhere', {}, 'model.name: own_models:Elsewhere is a class of flax.nnx.'),
    ('Counting', {}, 'model.name: own_models:Counting keeps counter too, expected params and batch_stats alone'),
    ('Flat', {}, 'model.name: own_models:Flat fails at images (2, 8, 8, 3), expected no error (ScopeParamShapeError: '),
    ('untrained', {}, 'model.name: own_models:untrained gives a network that takes no train, expected model('),
    ('Layered', {}, 'model.name: own_models:Layered keeps no batch statistics, expected a network with flax.linen.B'),
    ('Dropping', {}, 'model.name: own_models:Dropping draws random numbers in training, expected a network without'),
    ('seven', {}, r'model.name: own_models:seven gives (2, 7) for two images, expected logits (2, 3)'),
    (
      'absent',
      {},
      "model.name: got 'own_models:absent', expected a function or class, and own_models has no such",
    ),
    ('number', {}, "model.name: got 'own_models:number', expected a function or class, and own_models has a int"),
  ],
)
def test_what_does_not_fit_is_refused_in_one_line(name, fields, message):
  with pytest.raises(ValueError) as error:
    models.from_config(config_of(name, **fields))
  assert str(error.value).startswith(message) and '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('failing', r"fails when it is called, expected no error \(TypeError: .*unexpected keyword argument 'depth'\)$"),
    ('speaking', r'fails when it is called, expected no error \(RuntimeError: no weights\)$'),
    ('Crooked', r'fails at images \(2, 16, 16, 3\), expected no error \(TypeError: '),
    ('crooked_in_training', r'fails in training, expected no error \(TypeError: '),
  ],
)
def test_what_a_factory_raises_ends_in_one_line_with_its_cause(name, message):
  with pytest.raises(ValueError, match=rf'^model\.name: own_models:{name} {message}') as error:
    models.from_config(config_of(name))
  assert '\n' not in str(error.value) and error.value.__cause__ is not None


@pytest.mark.parametrize('text', ['import nothing_like_this', 'def', '1 / 0', 'raise KeyError("weights")'])
def test_a_module_that_fails_is_named(tmp_path, monkeypatch, text):
  (tmp_path / f'failing_{len(text)}.py').write_text(text + '\n')
  monkeypatch.syspath_prepend(tmp_path)
  config = config_of('Net')
  config.model.name = f'failing_{len(text)}:Net'
  with pytest.raises(ValueError, match=rf'^config\.model\.name: .*{config.model.name}') as error:
    configuration.validate(config)
  assert '\n' not in str(error.value) and error.value.__cause__ is None


def test_batch_norm_over_all_devices_needs_an_axis_name():
  with pytest.raises(ValueError, match='^sync_batch_norm: got True, expected False, since own_models:Net takes no'):
    models.from_config(config_of('Net'), 'data')


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('no_such_package.nets:Net', 'expected a module that Python can import, its folder in PYTHONPATH'),
    ('own_models:', "expected 'package.module:factory'"),
    ('own models:Net', "expected 'package.module:factory'"),
    ('.own_models:Net', "expected 'package.module:factory'"),
    ('own_models', 'expected one of resnet18, .*, or package.module:factory'),
  ],
)
def test_a_config_names_a_factory_that_can_be_imported(name, message):
  config = config_of('Net')
  configuration.validate(config)
  config.model.name = name
  with pytest.raises(ValueError, match=rf'^config\.model\.name: got {name!r}, {message}'):
    configuration.validate(config)


def test_drnet_trains_a_network_that_takes_a_mask():
  def loss_fn(name, **fields):
    config = config_of(name, **{'method': 'drnet', 'drnet.budget': 55_000.0, 'drnet.predictor.size': 8, **fields})
    model = models.from_config(config)
    return model, config, drnet.make_loss_fn(model, config)

  with pytest.raises(ValueError, match="^model.name: own_models:Net takes no mask, expected .* with method='drnet'"):
    loss_fn('Net')
  loss_fn('Net', **{'drnet.frozen': True})
  model, config, fn = loss_fn('Full')
  variables = drnet.init(model, config, jax.random.key(0))
  batch = {
    'images': (np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8),),
    'label': np.arange(4, dtype=np.int32) % 3,
    'index': np.arange(4, dtype=np.int32),
    'step': jnp.int32(0),
  }
  loss, (batch_stats, _) = jax.jit(fn)(variables['params'], variables['batch_stats'], batch, jax.random.key(1))
  assert np.isfinite(loss) and set(batch_stats) == {'16', '8', 'predictor'}


def test_other_collections_are_never_dropped_in_silence():
  class Model(own_models.Net):
    def init(self, *args, **kwargs):
      return super().init(*args, **kwargs) | {'constants': {'table': jnp.ones(2)}}

  with pytest.raises(ValueError, match='^variables: got the collections constants too, expected params and'):
    rsnet.init(Model(3), config_of('Net'), jax.random.key(0))
