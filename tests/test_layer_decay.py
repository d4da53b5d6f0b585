"""Learning rates by depth: which module stands where, in our networks and in those of others, and what each learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict
from tiny_drnet import make_config as drnet_config

from configs import default
from resjax import drnet, models, rsnet
from resjax.training import freezing, optimizer, run
from resjax.training.devices import Devices


def in_order(model):
  """Names of a network's modules, those of one depth together, the deepest first."""
  found = {}
  for name, depth in freezing.depths(model, 32).items():
    found.setdefault(depth, set()).add(name)
  assert sorted(found) == list(range(len(found)))
  return [found[depth] for depth in sorted(found, reverse=True)]


def test_a_resnet_is_its_stem_its_blocks_and_its_head():
  blocks = [{f'stage{s}_block{b}'} for s in (1, 2, 3, 4) for b in (1, 2)]
  assert in_order(models.create('resnet18', num_classes=3)) == [{'conv1', 'bn1'}, *blocks, {'head'}]


def test_a_mobilenet_has_one_convolution_more():
  found = in_order(models.create('mobilenetv2', num_classes=3))
  assert found[0] == {'conv1', 'bn1'} and found[-2:] == [{'final_conv', 'final_bn'}, {'head'}]
  assert found[1:-2] == [{f'stage{s + 1}_block{b + 1}'} for s, n in enumerate((1, 2, 3, 4, 3, 3, 1)) for b in range(n)]


class Foreign(nn.Module):
  """Called in another order than the names', with a parameter of its own, and a module that is called twice."""

  def setup(self):
    self.a_last, self.z_first, self.twice = nn.Dense(3), nn.Conv(4, (3, 3)), nn.Dense(4)
    self.norm, self.layer_norm = nn.BatchNorm(), nn.LayerNorm()

  @nn.compact
  def __call__(self, images, *, train):
    place = self.param('place', nn.initializers.zeros, (4,))
    x = self.norm(self.z_first(images), use_running_average=not train).mean((1, 2)) + place[None]
    return self.a_last(self.layer_norm(self.twice(self.twice(x))))


def test_another_network_is_read_in_the_order_of_its_calls():
  model = Foreign()
  assert in_order(model) == [{'z_first', 'norm', 'place'}, {'twice', 'layer_norm'}, {'a_last'}]


class NormFirst(nn.Module):
  @nn.compact
  def __call__(self, images, *, train):
    x = nn.BatchNorm(use_running_average=not train, name='norm')(images)
    return nn.Dense(3, name='head')(nn.Dense(3, name='body')(x.mean((1, 2))))


def test_a_normaliser_in_front_stands_with_the_first():
  assert in_order(NormFirst()) == [{'norm', 'body'}, {'head'}]


def updates_of(config, method):
  """What one step of plain SGD makes of gradients of one, by path."""
  config.optimizer.update(schedule='constant', learning_rate=1.0, momentum=0.0, weight_decay=0.5, decay='all')
  model = models.create('resnet_small', num_classes=5, width=0.25, stages=(1, 1))
  params = jax.jit(lambda key: method.init(model, config, key))(jax.random.key(0))['params']
  tx = optimizer.create(config, 1, 10, method.rates(config), freezing.depths(model, 16))
  updates, _ = jax.jit(lambda p: tx.update(jax.tree.map(jnp.ones_like, p), tx.init(p), p))(params)
  before = flatten_dict(params, sep='/')
  return {
    name: -np.asarray(u) / (1 + 0.5 * np.asarray(before[name])) for name, u in flatten_dict(updates, sep='/').items()
  }


@pytest.mark.parametrize('rates', [(), (('head/*', 10.0), ('stage2_*', 0.0), ('bn1/*', 4.0))])
def test_a_rate_falls_from_block_to_block_on_top_of_rates_by_path(rates):
  config = default.get_config()
  config.resolutions, config.optimizer.layer_decay, config.optimizer.rates = (16, 8), 0.5, rates
  depth = {'head': 0, 'stage2_block1': 1, 'stage1_block1': 2, 'conv1': 3, 'bn1': 3}
  for name, factor in updates_of(config, rsnet).items():
    path = freezing.plain_path(name.split('/'))
    expected = 1.0 if name == 'alpha' else 0.5 ** depth[path.split('/')[0]] * freezing.factor_of(path, rates)
    np.testing.assert_allclose(factor, expected, rtol=1e-5, atol=1e-7, err_msg=name)


def test_drnets_predictor_keeps_its_own_rate():
  config = drnet_config(**{'optimizer.layer_decay': 0.5})
  for name, factor in updates_of(config, drnet).items():
    first = name.split('/')[0]
    if first in ('alpha', 'predictor'):
      np.testing.assert_allclose(factor, 0.0 if first == 'alpha' else 0.1, rtol=1e-5, atol=1e-7)
    elif '/stage1_block1/' in name:
      np.testing.assert_allclose(factor, 0.25, rtol=1e-5)


def test_a_run_takes_it_and_without_it_nothing_changes(monkeypatch):
  made = []
  create = optimizer.create
  monkeypatch.setattr(optimizer, 'create', lambda *args: made.append(args[4]) or create(*args))
  config = default.get_config()
  config.resolutions, config.model.name, config.model.num_classes = (16, 8), 'resnet_small', 5
  for decay in (1.0, 0.8):
    config.optimizer.layer_decay = decay
    devices = Devices()
    devices.shapes(run.make_training(config, devices, 10, 100)[1], jax.random.key(0))
  assert made[0] is None and made[1]['head'] == 0 and made[1]['conv1'] == 4
