"""Max-pool whose gradient goes by the winners' places, against Flax's: the same bits, NaN and ties too."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from resjax.models import cpu

POOL = {'window_shape': (3, 3), 'strides': (2, 2), 'padding': ((1, 1), (1, 1))}  # that of ResNet


def draw(*shape, dtype=np.float32):
  return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), dtype)


@functools.partial(jax.jit, static_argnames=('pool', *POOL))
def with_gradient(x, pool, window_shape, strides, padding):
  """The maxima, and the gradient where theirs is random."""
  y, backward = jax.vjp(lambda x: pool(x, window_shape, strides, padding), x)
  return y, backward(draw(*y.shape, dtype=y.dtype))[0]


def assert_same_bits(x, **options):
  found, expected = (with_gradient(x, pool, **options) for pool in (cpu.max_pool, nn.max_pool))
  for ours, theirs in zip(found, expected):
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(np.asarray(ours, np.float64), np.asarray(theirs, np.float64))


@pytest.mark.parametrize(
  'options',
  [
    POOL,
    {'window_shape': (2, 2), 'strides': (2, 2), 'padding': 'VALID'},
    {'window_shape': (2, 3), 'strides': (1, 2), 'padding': 'SAME'},
    {'window_shape': (2, 2), 'strides': (3, 3), 'padding': ((0, 1), (2, 0))},
  ],
  ids=['resnet', 'halves', 'same', 'gaps'],
)
@pytest.mark.parametrize('size', [(8, 8), (7, 9)])
def test_same_bits_as_flax(options, size):
  x = draw(2, *size, 3)
  assert_same_bits(x, **options)
  assert_same_bits(jnp.round(x), **options)  # ties


def test_what_is_not_finite_wins_and_loses_as_in_flax():
  x = np.array(draw(2, 9, 8, 3))
  draws = np.random.default_rng(0).random(x.shape)
  for value, low in (np.nan, 0.0), (np.inf, 0.1), (-np.inf, 0.2):
    x[(draws >= low) & (draws < low + 0.1)] = value
  assert_same_bits(jnp.asarray(x), **POOL)
  assert_same_bits(jnp.full((1, 5, 5, 2), -jnp.inf), **POOL)
  assert_same_bits(jnp.full((1, 5, 5, 2), jnp.nan), **POOL)


def test_float64(x64):
  assert_same_bits(draw(2, 7, 6, 3, dtype=np.float64), **POOL)


def test_bfloat16():
  x = draw(2, 7, 6, 3, dtype=jnp.bfloat16)
  assert_same_bits(x, window_shape=(2, 2), strides=(2, 2), padding='SAME')  # of windows that overlap, sums are rounded
  ours, theirs = (with_gradient(x, pool, **POOL)[1] for pool in (cpu.max_pool, nn.max_pool))
  np.testing.assert_allclose(np.asarray(ours, np.float32), np.asarray(theirs, np.float32), rtol=2**-6, atol=2**-6)


def test_a_cpu_and_cuda_have_no_select_and_scatter_and_others_have():
  x = draw(1, 8, 8, 2)
  lowered = jax.jit(lambda x: with_gradient(x, cpu.max_pool, **POOL)).trace(x)
  assert 'select_and_scatter' not in lowered.lower().as_text()
  assert 'select_and_scatter' not in lowered.lower(lowering_platforms=('cuda',)).as_text()
  elsewhere = lowered.lower(lowering_platforms=('tpu',)).as_text()
  assert elsewhere.count('stablehlo.select_and_scatter') == 1


def test_what_is_not_images_is_left_to_flax():
  for x in (draw(8, 8, 3), draw(2, 3, 8, 8, 3), jnp.arange(64).reshape(1, 8, 8, 1)):
    np.testing.assert_array_equal(cpu.max_pool(x, (2, 2), (2, 2)), nn.max_pool(x, (2, 2), (2, 2)))
  np.testing.assert_array_equal(cpu.max_pool(draw(1, 4, 4, 1), (2, 2)), nn.max_pool(draw(1, 4, 4, 1), (2, 2)))


# --- transformations ---


def test_vmap_and_remat():
  x = draw(3, 2, 7, 8, 2)
  found = jax.vmap(lambda x: with_gradient(x, cpu.max_pool, **POOL))(x)
  expected = jax.vmap(lambda x: with_gradient(x, nn.max_pool, **POOL))(x)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  squares = lambda pool: jax.grad(lambda x: (pool(x, *POOL.values()) ** 2).sum())
  again = jax.checkpoint(cpu.max_pool, static_argnums=(1, 2, 3))
  np.testing.assert_array_equal(squares(again)(x[0]), squares(nn.max_pool)(x[0]))


def test_second_derivatives(x64):
  x = draw(1, 5, 6, 2, dtype=np.float64)

  def penalty(pool, x):
    return (jax.grad(lambda x: (pool(x, **POOL) ** 3).sum())(x) ** 2).sum()

  found, expected = (jax.grad(functools.partial(penalty, pool))(x) for pool in (cpu.max_pool, nn.max_pool))
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_forward_mode_is_refused_in_one_line():
  x = draw(1, 5, 5, 3)
  with pytest.raises(TypeError, match='forward-mode'):
    jax.jvp(lambda x: cpu.max_pool(x, **POOL), (x,), (x,))


def test_shard_map():
  mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
  x = draw(8, 5, 6, 3)
  square = lambda pool, x: jax.grad(lambda x: (pool(x, **POOL) ** 2).sum())(x)
  sharded = jax.jit(
    jax.shard_map(functools.partial(square, cpu.max_pool), mesh=mesh, in_specs=P('data'), out_specs=P('data'))
  )
  np.testing.assert_array_equal(sharded(x), square(nn.max_pool, x))


def test_exported_for_several_platforms_and_any_batch():
  images = jax.ShapeDtypeStruct((jax.export.symbolic_shape('b')[0], 9, 9, 4), np.float32)
  pool = jax.jit(functools.partial(cpu.max_pool, **POOL))
  exported = jax.export.export(pool, platforms=('cpu', 'tpu', 'cuda'))(images)
  x = draw(3, 9, 9, 4)
  np.testing.assert_array_equal(exported.call(x), nn.max_pool(x, *POOL.values()))
