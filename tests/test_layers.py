"""BatchNorm with a mask, against Flax's and against the counted samples alone; torch's padding."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from resjax.models import layers

TOLERANCE = 1e-5
B, H, W, C = 16, 3, 5, 4

# Two samples in a row belong to one of eight devices: both, one or none of them count.
MASK = np.array([1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1], np.float32)


@pytest.fixture
def x():
  return np.random.default_rng(0).normal(2, 3, (B, H, W, C)).astype(np.float32)


@pytest.fixture
def variables():
  draw = np.random.default_rng(1).uniform
  leaf = lambda: draw(0.5, 1.5, C).astype(np.float32)
  return {
    'params': {'scale': leaf(), 'bias': leaf()},
    'batch_stats': {'mean': leaf(), 'var': leaf()},
  }


def train(variables, x, mask=None, **fields):
  """The training output and the new statistics."""
  norm = layers.Norm(**fields)
  y, new = norm.apply(variables, x, train=True, mask=mask, mutable=['batch_stats'])
  return y, new['batch_stats']


def assert_close(ours, theirs):
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=TOLERANCE, atol=TOLERANCE), ours, theirs)


def test_equals_flax_without_mask(x, variables):
  flax_norm = nn.BatchNorm(momentum=0.9, epsilon=1e-5)
  y, new = flax_norm.apply(variables, x, use_running_average=False, mutable=['batch_stats'])
  assert_close(train(variables, x), (y, new['batch_stats']))
  y = flax_norm.apply(variables, x, use_running_average=True)
  assert_close(layers.Norm().apply(variables, x, train=False), y)


def test_initial_variables_are_those_of_flax(x):
  ours = layers.Norm(axis_name='data').init(jax.random.key(0), x, train=True)
  theirs = nn.BatchNorm().init(jax.random.key(0), x, use_running_average=False)
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize('dtype', [np.float32, bool, np.int32])
def test_masked_samples_do_not_count(x, variables, dtype):
  counted = MASK > 0
  y, stats = train(variables, x, MASK.astype(dtype))
  expected_y, expected_stats = train(variables, x[counted])
  assert_close(stats, expected_stats)
  assert_close(y[counted], expected_y)
  assert np.isfinite(y).all()


def test_nan_of_a_masked_sample_stays_there(x, variables):
  expected_y, expected_stats = train(variables, x, MASK)
  x[MASK == 0] = np.nan
  y, stats = train(variables, x, MASK)
  assert_close(stats, expected_stats)
  assert_close(y[MASK > 0], expected_y[MASK > 0])


def test_full_mask_is_no_mask(x, variables):
  assert_close(train(variables, x, np.ones(B)), train(variables, x))


def test_empty_mask_leaves_the_statistics(x, variables):
  empty = np.zeros(B, np.float32)
  y, stats = train(variables, x, empty)
  jax.tree.map(np.testing.assert_array_equal, stats, variables['batch_stats'])
  assert_close(y, layers.Norm().apply(variables, x, train=False))

  def loss(params, x, mask):
    y, _ = train({**variables, 'params': params}, x, mask)
    return (y**3).sum()

  for gradient in jax.tree.leaves(jax.grad(loss, (0, 1))(variables['params'], x, empty)):
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


@pytest.mark.parametrize('few', [1, 2, 7])
def test_few_samples_are_filled_up_with_the_running_statistics(x, variables, few):
  """To eight: the others are made here, half of their values a deviation above the running mean, half below."""
  mean, deviation = variables['batch_stats']['mean'], np.sqrt(variables['batch_stats']['var'])
  signs = np.resize([1, -1], (2 * (8 - few), H, W, 1)).astype(np.float32)
  twice = np.concatenate([x[:few], x[:few], mean + signs * deviation])
  expected_y, expected_stats = train(variables, twice)
  y, stats = train(variables, x, np.arange(B) < few)
  assert_close(stats, expected_stats)
  assert_close(y[:few], expected_y[:few])


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize('few', [1, 3, 8])
def test_gradients_through_few_samples_are_finite_differences(x, variables, few):
  x, variables = jax.tree.map(lambda leaf: leaf.astype(np.float64), (x, variables))
  direction = np.random.default_rng(2).normal(size=x.shape)

  def loss(x):
    y, stats = train(variables, x, np.arange(B) < few, dtype='float64')
    return (y**3).mean() + (stats['var'] ** 2).sum() + (stats['mean'] ** 3).sum()

  expected = (loss(x + 1e-5 * direction) - loss(x - 1e-5 * direction)) / 2e-5
  assert float((jax.grad(loss)(x) * direction).sum()) == pytest.approx(float(expected), rel=1e-7)


def on_devices(variables, x, mask, axis_name):
  """Training output and statistics of every device, [8, C], of eight that share the batch."""
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))

  @jax.jit
  @functools.partial(jax.shard_map, mesh=mesh, in_specs=(P(), P('data'), P('data')), out_specs=P('data'))
  def step(variables, x, mask):
    y, stats = train(variables, x, mask, axis_name=axis_name)
    return y, jax.tree.map(lambda leaf: leaf.reshape(1, C), stats)

  return step(variables, x, mask)


@pytest.mark.parametrize('mask', [None, MASK, 0 * MASK], ids=['no_mask', 'uneven', 'empty'])
def test_devices_share_statistics(x, variables, mask):
  y, stats = on_devices(variables, x, mask, axis_name='data')
  expected_y, expected_stats = train(variables, x, mask)
  assert_close(y, expected_y)
  for name in stats:
    assert_close(stats[name], np.tile(expected_stats[name], (8, 1)))


def test_devices_keep_their_own_statistics(x, variables):
  y, stats = on_devices(variables, x, MASK, axis_name=None)
  for device in range(8):
    part = slice(2 * device, 2 * device + 2)
    expected_y, expected = train(variables, x[part], MASK[part])
    assert_close(y[part], expected_y)
    assert_close({name: stats[name][device] for name in stats}, expected)


def test_bfloat16_output_float32_statistics(x, variables):
  low = x.astype(jnp.bfloat16)
  y, stats = train(variables, low, MASK, dtype='bfloat16')
  assert y.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(stats)} == {jnp.dtype('float32')}
  assert_close(stats, train(variables, low.astype(np.float32), MASK)[1])


def test_stride_2_on_an_even_size_starts_at_the_first_pixel():
  class Layer(nn.Module):
    @nn.compact
    def __call__(self, x):
      return layers.conv_norm(x, 1, 3, 2, names=('conv1', 'bn1'), train=False, mask=None)

  x = jnp.arange(1.0, 37.0).reshape(1, 6, 6, 1)
  variables = Layer().init(jax.random.key(0), x)
  assert set(variables['params']) == {'conv1', 'bn1'}
  identity = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1)
  variables['params']['conv1'] = {'kernel': identity}
  assert_close(Layer().apply(variables, x), x[:, ::2, ::2] / np.sqrt(1 + 1e-5))
