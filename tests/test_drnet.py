"""DRNet's budget, loss, evaluation and step: exact answers, devices, and the faults of other implementations."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from tiny_drnet import RESOLUTIONS, batches, fresh, make_config, model

from resjax import drnet, gumbel, losses, models, preprocess, rsnet, switchable
from resjax.training import optimizer, state, step
from resjax.training.devices import Devices

COSTS = (4.11, 2.52, 1.09)
# Sums in another order, over three steps at a learning rate of 0.1.
TOLERANCE = 2e-5


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize(('budget', 'expected'), [(2.0, 0.3170529801), (2.5, 0.1514900662), (3.0, 0.0)])
def test_the_budget_loss_is_the_reference_answer(budget, expected):
  choice = jnp.eye(3, dtype=float)[jnp.array([0, 1, 2, 0])]
  run = jax.value_and_grad(lambda c: drnet.budget_loss(c, COSTS, budget), has_aux=True)
  (excess, mean), gradient = run(choice)
  np.testing.assert_allclose([excess, mean], [expected, 2.9575], rtol=0, atol=1e-10)
  slope = np.array(COSTS) / (4 * (4.11 - 1.09)) if expected else np.zeros(3)
  np.testing.assert_allclose(gradient, np.tile(slope, (4, 1)), rtol=0, atol=1e-12)


def test_the_budget_loss_takes_costs_beyond_int32():
  """Multiply-adds as they are counted, Python integers: ResNet-50's do not fit into 32 bits."""
  costs = (4_089_184_256, 2_503_027_712, 1_077_899_264)
  excess, mean = jax.jit(lambda c: drnet.budget_loss(c, costs, 2.5e9))(jnp.eye(3)[jnp.array([0, 1, 2, 0])])
  np.testing.assert_allclose(mean, (2 * costs[0] + costs[1] + costs[2]) / 4, rtol=1e-6)
  np.testing.assert_allclose(excess, (float(mean) - 2.5e9) / (costs[0] - costs[2]), rtol=1e-5)


def test_the_loss_of_a_network_as_large_as_resnet50_can_be_traced():
  class Large:
    """Stands for a network that costs 4.1 G multiply-adds."""

    apply = staticmethod(lambda variables, images, **_: (jnp.zeros((images.shape[0], 5)), {'batch_stats': {}}))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(drnet, 'costs_of', lambda *_: (4_089_184_256, 1_077_899_264))
    loss_fn = drnet.make_loss_fn(Large, make_config(**{'drnet.budget': 0.5}), total_steps=10)
  variables = {
    kind: {'private': {'16': {}, '8': {}}, 'shared': {}, '16': {}, '8': {}, 'predictor': fresh()[kind]['predictor']}
    for kind in ('params', 'batch_stats')
  }
  batch = batches(1)[0] | {'step': np.int32(0)}
  _, (_, metrics) = jax.eval_shape(loss_fn, variables['params'], variables['batch_stats'], batch, jax.random.key(0))
  assert {'cost', 'loss_budget'} <= set(metrics)


def test_the_budgets_mean_is_taken_over_all_devices_before_the_hinge():
  """One device far above the budget and one far below it: together they are within it."""
  choice = jnp.eye(3)[jnp.array([[0, 0], [2, 2]])]
  run = jax.vmap(lambda c: drnet.budget_loss(c, COSTS, 2.6, 'data'), axis_name='data')
  excess, mean = run(choice)
  np.testing.assert_allclose(mean, [2.6, 2.6], rtol=1e-6)
  np.testing.assert_allclose(excess, [0, 0], atol=1e-6)
  assert float(drnet.budget_loss(choice[0], COSTS, 2.6)[0]) > 0.4


def test_the_costs_are_those_of_the_candidates_in_their_order():
  costs = drnet.costs_of(models.create('resnet18', num_classes=1000), (224, 168, 112))
  assert costs == (1_814_073_344, 1_113_963_520, 485_359_616)


def test_the_budget_is_a_share_or_multiply_adds():
  """Of all that is run for an image: the predictor's own cost is taken off what the network may spend."""
  config = make_config(**{'drnet.budget': 0.5})
  own = drnet.predictor_of(config).macs
  costs = (200 * own, 50 * own)
  assert drnet.budget_of(config, costs) == 99 * own
  config.drnet.budget = 60.0 * own
  assert drnet.budget_of(config, costs) == 59 * own
  config.drnet.budget = 51.0 * own
  assert drnet.budget_of(config, costs) == min(costs)
  for budget in (0.25, 50.9 * own):
    config.drnet.budget = budget
    expected = f'expected at least 0.255 ({51 * own:.4g} multiply-adds: the predictor, and every image at the lowest'
    with pytest.raises(ValueError, match=rf'^config.drnet.budget: got .*{re.escape(expected)}'):
      drnet.budget_of(config, costs)


def test_init_adds_a_predictor_that_switching_ignores():
  variables = fresh()
  assert set(variables['params']) == {'shared', 'private', 'alpha', 'predictor'}
  assert set(variables['batch_stats']) == {'16', '8', 'predictor'}
  plain = jax.eval_shape(lambda key: rsnet.init(model(), make_config(), key), jax.random.key(0))
  view = switchable.view(variables, 8)
  shapes = jax.tree.map(jnp.shape, switchable.view(plain, 8))
  assert jax.tree.map(jnp.shape, view) == shapes
  with pytest.raises(ValueError, match='expected one of 16, 8$'):
    switchable.view(variables, 12)


def by_hand(config, params, batch_stats, batch, key, tau):
  """The dense loss, written out."""
  flips = preprocess.draw_flips(key, batch['index'], RESOLUTIONS, 'independent')
  images = preprocess.prepare(batch['images'], RESOLUTIONS, 'imagenet', flips)
  variables = {'params': params, 'batch_stats': batch_stats}
  scores, _ = drnet.predictor_of(config).scores(drnet.variables_of_predictor(variables), images[0], train=True)
  perturbed = scores + gumbel.draw(key, batch['index'], 2)
  soft = jax.nn.softmax(perturbed / tau)
  chosen = perturbed.argmax(-1)
  hard = jax.nn.one_hot(chosen, 2)
  mask = [hard[:, 0], hard[:, 1]]
  logits, statistics = switchable.forward(model(), variables, images, RESOLUTIONS, train=True, mask=mask)
  weights = hard + soft - jax.lax.stop_gradient(soft)
  mixed = weights[:, 0, None] * logits[0] + weights[:, 1, None] * logits[1]
  costs = drnet.costs_of(model(), RESOLUTIONS)
  mean = (weights * jnp.array(costs, jnp.float32)[None]).sum(1).mean()
  excess = jnp.maximum(0, (mean - 0.5 * costs[0]) / (costs[0] - costs[1]))
  entropy = losses.cross_entropy(mixed, batch['label'])
  return entropy + 0.5 * excess, (
    statistics,
    {'loss_class': entropy, 'loss_budget': excess, 'share_16': hard.mean(0)[0]},
  )


def test_the_loss_and_its_gradient_are_the_formulas():
  config, variables, batch = make_config(), fresh(), batches(1)[0] | {'step': np.int32(5)}
  key = jax.random.key(7)
  loss_fn = drnet.make_loss_fn(model(), config, total_steps=10)
  tau = 2.0 * (0.5 / 2.0) ** 0.5
  run = lambda fn: jax.jit(jax.value_and_grad(fn, has_aux=True))(variables['params'])
  (loss, (statistics, metrics)), gradient = run(lambda p: loss_fn(p, variables['batch_stats'], batch, key))
  (expected, (wanted, terms)), slope = run(lambda p: by_hand(config, p, variables['batch_stats'], batch, key, tau))
  assert float(loss) == pytest.approx(float(expected), rel=1e-5) == float(metrics['loss'])
  assert float(metrics['tau']) == pytest.approx(tau)
  assert float(metrics['loss_budget']) > 0
  for name, value in terms.items():
    assert float(metrics[name]) == pytest.approx(float(value), rel=1e-5), name
  for r in ('16', '8'):
    for a, b in zip(jax.tree.leaves(statistics[r]), jax.tree.leaves(wanted[r]), strict=True):
      np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
  largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slope))
  for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(slope), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest, err_msg=jax.tree_util.keystr(path))
  for name, leaf in flatten_dict(gradient['predictor'], sep='/').items():
    assert float(jnp.abs(leaf).max()) > 0, name  # a one-hot without the straight-through term teaches nothing


class Setup:
  """A tiny DRNet on some devices."""

  def __init__(self, config, count, parallel='shard_map'):
    network = model(step.AXIS if config.sync_batch_norm else None)
    self.devices = Devices(parallel, jax.devices()[:count])
    tx = optimizer.create(config, 10, 100, drnet.rates(config))
    loss_fn = drnet.make_loss_fn(network, config, total_steps=10, axis_name=step.AXIS)
    self.train = self.devices.train(step.make_train_step(loss_fn, tx, seed=0, parallel=self.devices.parallel))
    self.eval = self.devices.eval(drnet.make_eval_fn(network, config))
    self.state = self.devices.create(lambda key: state.create(drnet.init(network, config, key), tx), jax.random.key(0))

  def run(self, items):
    for batch in items:
      self.state, metrics = self.train(self.state, self.devices.put(batch))
    return jax.device_get(self.state), jax.device_get(metrics)


@functools.cache
def reference(count, parallel):
  return Setup(make_config(sync_batch_norm=True), count, parallel).run(batches())


def check(got, expected):
  for (path, a), (_, b) in zip(
    jax.tree_util.tree_leaves_with_path(got), jax.tree_util.tree_leaves_with_path(expected), strict=True
  ):
    scale = max(1.0, float(np.abs(b).max()))
    np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * scale, err_msg=jax.tree_util.keystr(path))


def test_eight_devices_compute_what_one_does_with_synchronised_batch_norm():
  got = reference(8, 'shard_map')
  assert 0 < got[1]['share_16'] < 1 and got[1]['loss_budget'] > 0
  check(got, reference(1, 'shard_map'))


@pytest.mark.slow
def test_pmap_computes_what_shard_map_does():
  check(reference(8, 'pmap'), reference(8, 'shard_map'))


def test_a_frozen_network_does_not_move_by_a_bit():
  """Not by gradients, weight decay, momentum or statistics, on eight devices; alpha neither; the predictor learns."""
  config = make_config(**{'drnet.frozen': True, 'optimizer.decay': 'all', 'optimizer.weight_decay': 0.1})
  setup = Setup(config, 8)
  before = jax.device_get(setup.state)
  after, metrics = setup.run(batches())
  for kind in ('params', 'batch_stats'):
    old, new = flatten_dict(getattr(before, kind), sep='/'), flatten_dict(getattr(after, kind), sep='/')
    for name in old:
      same = np.array_equal(old[name], new[name])
      assert same != name.startswith('predictor/'), name
  assert metrics['overflow'] == 0 and np.isfinite(metrics['loss'])


def test_the_predictor_has_its_own_learning_rate():
  """Plain SGD: with ten times the factor the predictor moves ten times as far in the first step, the network as far."""
  moves = []
  for factor in (0.1, 1.0):
    config = make_config(**{'drnet.learning_rate_factor': factor, 'optimizer.momentum': 0.0})
    tx = optimizer.create(config, 10, 100, drnet.rates(config))
    params = fresh()['params']
    gradient = jax.tree.map(np.ones_like, params)
    updates, _ = jax.jit(tx.update)(gradient, tx.init(params), params)
    moves.append(updates)
  small, large = moves
  for name in ('shared', 'private'):
    jax.tree.map(np.testing.assert_array_equal, small[name], large[name])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(10 * a, b, rtol=1e-5), small['predictor'], large['predictor'])
  assert float(np.abs(large['alpha']).max()) == 0
