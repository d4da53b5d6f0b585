"""What is written otherwise on a CPU, against XLA's own: values, gradients, and every way JAX transforms them."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from resjax import macs
from resjax.models import cpu
from resjax.models.cpu.depthwise import depthwise

EXACT = 1e-12  # of the largest magnitude, in float64: two orders of the same nine products

SIZES = [(7, 9), (8, 8), (5, 1)]
PADDINGS = [((1, 1), (1, 1)), ((0, 1), (2, 0)), ((2, 2), (2, 2))]


def draw(*shape, dtype=np.float64):
  return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), dtype)


def by_xla(x, kernel, strides=(1, 1), padding=((1, 1), (1, 1))):
  groups = x.shape[-1]
  return lax.conv_general_dilated(
    x, kernel, strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=groups
  )


def assert_close(ours, theirs, tolerance=EXACT):
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()))


@functools.partial(jax.jit, static_argnames=('convolve', 'strides', 'padding'))
def with_gradients(convolve, x, kernel, **options):
  """The convolution, and its gradients where the output's is random."""
  y, backward = jax.vjp(functools.partial(convolve, **options), x, kernel)
  return y, *backward(draw(*y.shape, dtype=y.dtype))


# --- depthwise convolutions ---


@pytest.mark.parametrize(
  ('kernel', 'strides'), [((3, 3), (1, 1)), ((3, 3), (2, 2)), ((5, 3), (2, 1)), ((1, 1), (2, 1))]
)
def test_depthwise_is_xlas(x64, kernel, strides):
  for size, padding in itertools.product(SIZES, PADDINGS):
    options = {'strides': strides, 'padding': padding}
    if any(n + sum(p) < k for n, p, k in zip(size, padding, kernel)):
      continue
    x, weights = draw(2, *size, 4), draw(*kernel, 1, 4)
    assert_close(with_gradients(depthwise, x, weights, **options), with_gradients(by_xla, x, weights, **options))


def test_bfloat16_is_rounded_once():
  x, weights = draw(2, 9, 9, 8, dtype=jnp.bfloat16), draw(3, 3, 1, 8, dtype=jnp.bfloat16)
  found = with_gradients(depthwise, x, weights, strides=(2, 2))
  assert {leaf.dtype for leaf in found} == {jnp.dtype('bfloat16')}
  exact = with_gradients(by_xla, x.astype(np.float32), weights.astype(np.float32), strides=(2, 2))
  assert_close(found, [leaf.astype(jnp.bfloat16) for leaf in exact], 2**-7)


def test_flax_takes_it_for_every_convolution():
  x = draw(2, 8, 9, 6, dtype=np.float32)
  for options in (
    {'features': 6, 'kernel_size': (3, 3), 'feature_group_count': 6, 'strides': 2, 'padding': 'SAME'},
    {'features': 6, 'kernel_size': (3, 3), 'feature_group_count': 6, 'kernel_dilation': 2},
    {'features': 12, 'kernel_size': (3, 3), 'feature_group_count': 6},
    {'features': 4, 'kernel_size': (3, 3), 'feature_group_count': 2},
    {'features': 4, 'kernel_size': (1, 1), 'strides': 2, 'padding': 1},
    {'features': 6, 'kernel_size': (3,), 'feature_group_count': 6},
  ):
    ours, theirs = nn.Conv(**options, conv_general_dilated=cpu.conv_general_dilated), nn.Conv(**options)
    variables = theirs.init(jax.random.key(0), x)
    assert_close(ours.apply(variables, x), theirs.apply(variables, x), 1e-5)


def shifts(fn, *args):
  """Whether a compiled function convolves by shifted products rather than by XLA's convolution."""
  return 'stablehlo.convolution' not in jax.jit(fn).lower(*args).as_text()


def test_a_cpu_runs_shifted_products_and_others_xlas_convolution():
  x, weights = draw(1, 8, 8, 4, dtype=np.float32), draw(3, 3, 1, 4, dtype=np.float32)
  assert shifts(depthwise, x, weights)
  assert shifts(lambda x, w: with_gradients(depthwise, x, w), x, weights)
  convolution = functools.partial(nn.Conv, 4, (3, 3), feature_group_count=4)
  variables = convolution().init(jax.random.key(0), x)
  assert shifts(convolution(conv_general_dilated=cpu.conv_general_dilated).apply, variables, x)
  assert not shifts(convolution().apply, variables, x)
  lowered = jax.jit(depthwise).trace(x, weights).lower(lowering_platforms=('tpu',)).as_text()
  assert lowered.count('stablehlo.convolution') == 1


def test_exported_for_several_platforms():
  x, weights = draw(1, 8, 8, 4, dtype=np.float32), draw(3, 3, 1, 4, dtype=np.float32)
  exported = jax.export.export(jax.jit(depthwise), platforms=('cpu', 'tpu', 'cuda'))(x, weights)
  again = jax.export.deserialize(exported.serialize())
  assert_close(again.call(x, weights), by_xla(x, weights), 1e-5)


def test_every_batch_size_is_exported():
  weights = draw(3, 3, 1, 4, dtype=np.float32)
  images = jax.ShapeDtypeStruct((jax.export.symbolic_shape('b')[0], 9, 9, 4), np.float32)
  exported = jax.export.export(jax.jit(functools.partial(depthwise, kernel=weights, strides=(2, 2))))(images)
  x = draw(3, 9, 9, 4, dtype=np.float32)
  assert_close(exported.call(x), by_xla(x, weights, (2, 2)), 1e-5)


def test_multiply_adds_are_those_of_the_convolution():
  spec = jax.ShapeDtypeStruct
  args = spec((2, 9, 9, 4), np.float32), spec((3, 3, 1, 4), np.float32)
  assert macs.count(functools.partial(depthwise, strides=(2, 2)), *args) == 2 * 5 * 5 * 4 * 9
  gradients = lambda convolve: lambda x, w: jax.vjp(convolve, x, w)[1](x)
  assert macs.count(gradients(depthwise), *args) == macs.count(gradients(by_xla), *args)


# --- transformations ---


def test_vmap(x64):
  x, weights = draw(3, 2, 7, 8, 4), draw(3, 3, 3, 1, 4)
  for axes, args in (((0, 0), (x, weights)), ((0, None), (x, weights[0])), ((None, 0), (x[0], weights))):
    found, expected = (
      jax.vmap(lambda x, w, f=f: with_gradients(f, x, w, strides=(2, 2)), axes)(*args) for f in (depthwise, by_xla)
    )
    assert_close(found, expected)


def test_second_derivatives(x64):
  x, weights = draw(2, 5, 6, 3), draw(3, 3, 1, 3)

  def penalty(convolve, x, weights):
    loss = lambda x, w: (convolve(x, w, strides=(2, 2)) ** 3).sum()
    return sum((g**2).sum() for g in jax.grad(loss, (0, 1))(x, weights))

  found, expected = (jax.grad(functools.partial(penalty, f), (0, 1))(x, weights) for f in (depthwise, by_xla))
  assert_close(found, expected)


def test_forward_mode_is_refused_in_one_line():
  x, weights = draw(1, 5, 5, 3, dtype=np.float32), draw(3, 3, 1, 3, dtype=np.float32)
  with pytest.raises(TypeError, match='forward-mode'):
    jax.jvp(depthwise, (x, weights), (x, weights))


@pytest.mark.parametrize('weights_vary', [False, True])
def test_shard_map_sums_the_gradient_of_what_all_devices_share(x64, weights_vary):
  mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
  x, weights = draw(8, 5, 6, 3), draw(3, 3, 1, 3)

  def gradients(convolve, x, weights):
    loss = lambda x, w: (convolve(x, w, strides=(2, 2)) ** 2).sum()
    return jax.grad(loss, (0, 1))(x, weights)

  @jax.jit
  @functools.partial(jax.shard_map, mesh=mesh, in_specs=(P('data'), P()), out_specs=(P('data'), P()))
  def sharded(x, weights):
    shared = lax.pcast(weights, 'data', to='varying') if weights_vary else weights
    in_x, in_weights = gradients(depthwise, x, shared)
    return in_x, lax.psum(in_weights, 'data') if weights_vary else in_weights

  assert_close(sharded(x, weights), gradients(by_xla, x, weights))


def test_rematerialised(x64):
  x, weights = draw(2, 5, 6, 3), draw(3, 3, 1, 3)
  assert_close(with_gradients(jax.checkpoint(depthwise), x, weights), with_gradients(by_xla, x, weights))
