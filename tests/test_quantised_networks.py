"""Quantised networks: bases shared by all sizes, gradients, devices, masks; what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from configs import default
from resjax import config as configuration
from resjax import estimators, models, quantisation, rsnet, switchable, trained, unseen
from resjax.models import quantised
from resjax.network import Network
from resjax.quantisation import BASES
from resjax.training import freezing, state, step
from resjax.training.devices import Devices

SIZES = (16, 8)
KINDS = [('2/32', 'resnet_small'), ('2/2', 'preact_resnet_small')]


def make(quantise, name, axis_name=None, **options):
  conv = quantised.conv_of(quantised.parse(quantise), axis_name)
  options = {'stages': (1,), 'width': 0.25, **options}
  return models.create(name, num_classes=3, conv=conv, axis_name=axis_name, **options)


def config_of(quantise, name, **fields):
  config = default.get_config()
  config.resolutions = SIZES
  config.model.name, config.model.quantise = name, quantise
  config.update_from_flattened_dict({'model.num_classes': 3, 'model.width': 0.25, **fields})
  return config


@functools.cache
def fresh(quantise, name):
  """A switchable network's variables, its BatchNorms not all the same."""
  made = jax.jit(lambda key: rsnet.init(make(quantise, name), config_of(quantise, name), key))(jax.random.key(0))
  noise = np.random.default_rng(0)
  return made | {
    'params': jax.tree.map(lambda x: x + noise.uniform(0, 0.02, x.shape).astype(np.float32), made['params'])
  }


def images(count=8, seed=0):
  return [jax.random.normal(jax.random.key(seed), (count, size, size, 3)) for size in SIZES]


@functools.partial(jax.jit, static_argnums=0, static_argnames='train')
def forward(model, variables, *inputs, train=False, mask=None):
  return switchable.forward(model, variables, inputs, SIZES, train=train, mask=mask)


def convolutions(tree):
  return {path[:-1]: leaf for path, leaf in flatten_dict(tree).items() if leaf.ndim == 4}


@pytest.mark.parametrize(
  ('quantise', 'name', 'count'),
  [('2/32', 'resnet18', 19), ('2/2', 'preact_resnet50', 52), ('3/32', 'mobilenetv2', 51), ('32/2', 'resnet50', 52)],
)
def test_every_convolution_but_the_first_is_quantised(quantise, name, count):
  model = models.create(name, num_classes=3, conv=quantised.conv_of(quantised.parse(quantise)))
  made = jax.eval_shape(lambda key: model.init(key, jnp.zeros((1, 64, 64, 3)), train=False), jax.random.key(0))
  bases, kernels = flatten_dict(made[BASES]), convolutions(made['params'])
  assert {path[:-1] for path in bases} == kernels.keys() - {('conv1',)} and len(kernels) == count + 1
  wanted = quantised.parse(quantise)
  for path in kernels.keys() - {('conv1',)}:
    expected = {'weights': (kernels[path].shape[-1], wanted.weights), 'activations': (wanted.activations,)}
    expected = {name: shape for name, shape in expected.items() if shape[-1] < 32}
    found = {name: bases[*path, name].shape for name in ('weights', 'activations') if (*path, name) in bases}
    assert found == expected


@pytest.mark.parametrize(('quantise', 'name'), KINDS)
def test_weights_quantised_once_give_the_same_answers_bit_for_bit(quantise, name):
  model, variables = make(quantise, name), fresh(quantise, name)
  network = trained.with_fixed(Network(model, variables, SIZES))
  kernels = convolutions(network.variables['params']['shared'])
  for path, kernel in kernels.items():
    counts = [len(set(own)) for own in kernel.reshape(-1, kernel.shape[-1]).T.tolist()]
    assert (max(counts) <= 4) == (path != ('conv1',))
  logits, _ = forward(model, variables, *images())
  again, _ = forward(network.model, network.variables, *images())
  np.testing.assert_array_equal(again, logits)
  assert network.model.conv is None if quantise == '2/32' else network.model.conv.keywords['weights'] == 32
  plain, _ = forward(make('', name), variables, *images())
  assert np.abs(plain - logits).max() > 1e-3  # it is not that nothing was quantised


@pytest.mark.parametrize(('quantise', 'name'), KINDS)
def test_bases_are_shared_and_batch_norms_are_not(quantise, name):
  model, variables = make(quantise, name), fresh(quantise, name)
  logits, new = forward(model, variables, *images(), train=True)
  left = {float(leaf) for path, leaf in flatten_dict(new[BASES]).items() if path[-1].endswith('_left')}
  assert list(left) == [pytest.approx(0.9**2)]  # each size adds its update
  one, _ = forward(model, variables | {'batch_stats': new}, *images())
  changed = new | {'8': jax.tree.map(lambda x: x + 0.5, new['8'])}
  other, _ = forward(model, variables | {'batch_stats': changed}, *images())
  np.testing.assert_array_equal(one[0], other[0])
  assert (np.asarray(one[1]) != np.asarray(other[1])).any()
  moved = jax.tree.map(lambda x: x * 1.5, new[BASES])
  both, _ = forward(model, variables | {'batch_stats': new | {BASES: moved}}, *images())
  assert all((np.asarray(both[i]) != np.asarray(one[i])).any() for i in (0, 1))
  assert np.isfinite(logits).all()


def test_a_step_quantises_by_the_bases_before_it_and_leaves_those_of_least_squares():
  model, variables = make('2/2', 'preact_resnet_small'), fresh('2/2', 'preact_resnet_small')
  plain = switchable.view(variables, 16)
  _, new = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=['batch_stats', BASES]))(plain, images()[0])
  kernel = plain['params']['stage1_block1']['conv2']['kernel']
  old, now = (tree[BASES]['stage1_block1']['conv2'] for tree in (plain, new))
  expected, _ = quantisation.fit(kernel, old['weights'], True)
  np.testing.assert_allclose(now['weights'], expected, rtol=1e-4)  # the first update replaces the start
  assert float(now['weights_left']) == float(now['activations_left']) == pytest.approx(0.9)


def test_the_gradient_of_the_weights_is_that_of_a_float_network_at_the_quantised_ones():
  name = 'resnet_small'
  variables = fresh('2/32', name)
  network = trained.with_fixed(Network(make('2/32', name), variables, SIZES))

  def grads(model, variables):
    def loss(params):
      logits, _ = switchable.forward(model, variables | {'params': params}, images(), SIZES, train=False)
      return (logits**2).sum()

    return jax.jit(jax.grad(loss))(variables['params'])

  ours = grads(make('2/32', name), variables)
  expected = grads(make('', name), network.variables)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), ours, expected)
  assert all(np.abs(leaf).max() > 0 for leaf in convolutions(ours['shared']).values())


def train_step(devices, axis_name):
  """The state after a step of one size, with a loss that is cheap to compile."""
  model = make('2/2', 'preact_resnet_small', axis_name)

  def loss_fn(params, batch_stats, batch, key):
    variables = {'params': params, 'batch_stats': batch_stats}
    logits, new = switchable.forward(model, variables, [batch['images']], SIZES[1:], train=True)
    return (logits**2).mean(), (new, {})

  tx = optax.sgd(0.1)
  body = step.make_train_step(loss_fn, tx, seed=0, parallel=devices.parallel)
  variables = fresh('2/2', 'preact_resnet_small')
  made = devices.create(lambda: state.create(variables, tx))
  batch = {'images': np.asarray(images(16)[1])}
  return jax.device_get(devices.train(body)(made, devices.put(batch))[0])


def test_devices_agree_and_their_bases_are_averaged():
  close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5)
  one = train_step(Devices(devices=jax.devices()[:1]), 'data')
  together = train_step(Devices('pmap', devices=jax.devices()[:2]), 'data')
  jax.tree.map(close, together.batch_stats, one.batch_stats)
  jax.tree.map(close, together.params, one.params)
  apart = train_step(Devices(devices=jax.devices()[:2]), None)
  found, whole = (flatten_dict(tree.batch_stats[BASES]) for tree in (apart, one))
  for path, leaf in found.items():
    if path[-1] != 'activations':
      close(leaf, whole[path])  # what no batch changes
  halves = [images(16)[1][:8], images(16)[1][8:]]
  each = [forward_one(make('2/2', 'preact_resnet_small'), half) for half in halves]
  jax.tree.map(lambda got, a, b: close(got, (a + b) / 2), apart.batch_stats[BASES], *each)


@functools.partial(jax.jit, static_argnums=0)
def forward_one(model, inputs):
  variables = fresh('2/2', 'preact_resnet_small')
  return switchable.forward(model, variables, [inputs], SIZES[1:], train=True)[1][BASES]


def test_images_that_do_not_count_leave_the_activations_bases():
  model, variables = make('2/2', 'preact_resnet_small'), fresh('2/2', 'preact_resnet_small')
  _, new = forward(model, variables, *images(), train=True, mask=[jnp.zeros(8), jnp.zeros(8)])
  for path, leaf in flatten_dict(new[BASES]).items():
    old = flatten_dict(variables['batch_stats'][BASES])[path]
    assert bool((leaf == old).all()) == path[-1].startswith('activations')
  mask = jnp.array([1, 1, 1, 0, 1, 0, 0, 0] * 2)
  _, counted = forward(model, variables, *images(16), train=True, mask=[mask, mask])
  fewer = [each[mask > 0] for each in images(16)]
  _, expected = forward(model, variables, *fewer, train=True)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), counted[BASES], expected[BASES])


def test_drnet_trains_through_the_choice():
  model, variables = make('2/2', 'preact_resnet_small'), fresh('2/2', 'preact_resnet_small')
  choice = jax.nn.one_hot(jnp.array([0, 1, 0, 1, 1, 0, 0, 0]), 2)
  dense, stats = jax.jit(lambda v, x: estimators.dense(model, v, x, SIZES, choice, train=True))(variables, images())
  routed, other, _ = jax.jit(lambda v, x: estimators.routed(model, v, x, SIZES, choice, (8, 8), train=True))(
    variables, images()
  )
  np.testing.assert_allclose(routed, dense, rtol=1e-3, atol=1e-4)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), other, stats)
  weighed = estimators.weigh(variables['batch_stats'], stats, jnp.array([5.0, 3.0]), SIZES, None)
  assert BASES in weighed


def test_recalibration_and_other_sizes_leave_the_bases():
  variables = fresh('2/2', 'preact_resnet_small')
  model = make('2/2', 'preact_resnet_small')
  more, _ = unseen.add(variables, 12)
  new, line = unseen.recalibrate(model, more, 12, [np.asarray(jax.image.resize(images()[0], (8, 12, 12, 3), 'linear'))])
  assert line == '12 px: BatchNorm statistics from 8 images, few to go by: expected 64 or more'
  jax.tree.map(np.testing.assert_array_equal, new['batch_stats'][BASES], variables['batch_stats'][BASES])
  assert (new['batch_stats']['12']['bn1']['mean'] != more['batch_stats']['12']['bn1']['mean']).any()


def test_frozen_kernels_keep_their_bases():
  model, variables = make('2/32', 'resnet_small'), fresh('2/32', 'resnet_small')
  for rates, kept in (
    ((('stage1_*/conv1/kernel', 0.0),), {'conv1'}),
    ((('shared/stage1_*', 0.0),), {'conv1', 'conv2'}),
  ):
    apply = freezing.frozen(model, rates)
    _, new = switchable.forward(apply, variables, images(), SIZES, train=True)
    for name, basis in new[BASES]['stage1_block1'].items():
      old = variables['batch_stats'][BASES]['stage1_block1'][name]
      assert bool((basis['weights'] == old['weights']).all()) == (name in kept)
  _, new = switchable.forward(freezing.frozen(model, (), 'kept'), variables, images(), SIZES, train=True)
  for key, old in variables['batch_stats'].items():  # BatchNorm's statistics are kept; bases follow kernels that learn
    same = jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), new[key], old))
    assert not any(same) if key == BASES else all(same)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'model.quantise': '2'},
      "config.model.quantise: got '2', expected bits of weights and activations, each 1 to 4 or",
    ),
    ({'model.quantise': '8/32'}, "config.model.quantise: got '8/32', expected bits"),
    ({'model.quantise': '32/32'}, "config.model.quantise: got '32/32', expected bits"),
    (
      {'model.quantise': '2/2', 'model.name': 'mobilenetv2'},
      "config.model.quantise: got '2/2' with model.name='mobilenetv2', expected activations of 32 bits: some",
    ),
    (
      {'model.quantise': '2/32', 'memory': 'two_pass'},
      "config.memory: got 'two_pass' with model.quantise='2/32', expected 'joint' (each size reads the bases that",
    ),
  ],
)
def test_what_can_not_be_is_refused_in_one_line(fields, message):
  config = config_of('', 'resnet18')
  config.update_from_flattened_dict(fields)
  with pytest.raises(ValueError) as error:
    configuration.validate(config)
  assert str(error.value).startswith(message) and '\n' not in str(error.value)


def test_networks_of_others_and_options_that_are_not_there():
  with pytest.raises(ValueError, match=r"model.quantise: got '2/32', expected '', since own_models:Net takes no conv"):
    models.from_config(config_of('2/32', 'own_models:Net', **{'model.width': 1.0}))
  with pytest.raises(ValueError, match='model.zero_init_last_gamma: got True, and preact_resnet18 has no such option'):
    models.create('preact_resnet18', num_classes=3, zero_init_last_gamma=True)
