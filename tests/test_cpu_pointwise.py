"""Convolutions of 1x1 as matrix products, against XLA's own: values, gradients, and every way JAX transforms them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from test_cpu_depthwise import assert_close, draw

from resjax import apply, macs, models
from resjax.models import cpu
from resjax.models.cpu.pointwise import pointwise

STRIDES = [(1, 1), (2, 2), (1, 3)]


def by_xla(x, kernel, strides=(1, 1)):
  return lax.conv_general_dilated(x, kernel, strides, 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


@functools.partial(jax.jit, static_argnames=('convolve', 'strides'))
def with_gradients(convolve, x, kernel, strides=(1, 1)):
  """The convolution, its gradients where the output's is random, and its tangent."""
  function = functools.partial(convolve, strides=strides)
  y, backward = jax.vjp(function, x, kernel)
  return y, *backward(draw(*y.shape, dtype=y.dtype)), jax.jvp(function, (x, kernel), (x + 1, kernel - 1))[1]


@pytest.mark.parametrize('strides', STRIDES)
@pytest.mark.parametrize('size', [(7, 9), (8, 8), (5, 1)])
def test_it_is_xlas(x64, size, strides):
  x, kernel = draw(2, *size, 5), draw(1, 1, 5, 3)
  found, expected = (with_gradients(f, x, kernel, strides=strides) for f in (pointwise, by_xla))
  assert_close(found, expected)


@pytest.mark.parametrize('channels', [1, 1024])
def test_one_channel_and_many(channels):
  x, kernel = draw(2, 3, 3, channels, dtype=np.float32), draw(1, 1, channels, 2, dtype=np.float32)
  assert_close(with_gradients(pointwise, x, kernel), with_gradients(by_xla, x, kernel), 1e-5)


def test_bfloat16_is_rounded_once():
  x, kernel = draw(2, 9, 9, 64, dtype=jnp.bfloat16), draw(1, 1, 64, 8, dtype=jnp.bfloat16)
  found = with_gradients(pointwise, x, kernel)[:3]
  assert {leaf.dtype for leaf in found} == {jnp.dtype('bfloat16')}
  exact = with_gradients(by_xla, x.astype(np.float32), kernel.astype(np.float32))[:3]
  assert_close(found, [leaf.astype(jnp.bfloat16) for leaf in exact], 2**-7)


def test_numbers_that_are_none_stay_so():
  x, kernel = draw(1, 2, 2, 3, dtype=np.float32).at[0, 1, 0, 2].set(np.nan), draw(1, 1, 3, 4, dtype=np.float32)
  np.testing.assert_array_equal(np.isnan(pointwise(x, kernel)), np.isnan(by_xla(x, kernel)))


def convolves(function, *args, **options):
  """How many convolutions of XLA a function has where it is compiled."""
  return jax.jit(function).trace(*args).lower(**options).as_text().count('stablehlo.convolution')


def test_a_cpu_runs_products_and_others_xlas_convolution():
  x, kernel = draw(1, 8, 8, 4, dtype=np.float32), draw(1, 1, 4, 2, dtype=np.float32)
  assert convolves(with_gradients, *(jax.tree_util.Partial(pointwise), x, kernel)) == 0
  gradients = lambda x, kernel: jax.vjp(pointwise, x, kernel)[1](jnp.ones((1, 8, 8, 2)))
  assert convolves(gradients, x, kernel) == 0
  assert convolves(gradients, x, kernel, lowering_platforms=('tpu',)) == 2
  assert convolves(pointwise, x, kernel, lowering_platforms=('cuda',)) == 1


@pytest.mark.parametrize(
  ('options', 'ours'),
  [({}, 0), ({'strides': 2, 'padding': 'SAME'}, 0), ({'padding': 1}, 1), ({'feature_group_count': 2}, 1),
   ({'kernel_size': (3, 3)}, 1), ({'kernel_size': (1,)}, 1), ({'precision': 'highest'}, 1)],
)  # fmt: skip
def test_flax_takes_it_for_every_convolution(options, ours):
  x = draw(2, 8, 9, 6, dtype=np.float32)
  options = {'features': 4, 'kernel_size': (1, 1)} | options
  layer, plain = nn.Conv(**options, conv_general_dilated=cpu.conv_general_dilated), nn.Conv(**options)
  variables = plain.init(jax.random.key(0), x)
  assert_close(layer.apply(variables, x), plain.apply(variables, x), 1e-5)
  assert convolves(layer.apply, variables, x) == ours


def test_exported_for_several_platforms_and_every_batch_size():
  kernel = draw(1, 1, 4, 3, dtype=np.float32)
  images = jax.ShapeDtypeStruct((jax.export.symbolic_shape('b')[0], 9, 9, 4), np.float32)
  function = jax.jit(functools.partial(pointwise, kernel=kernel, strides=(2, 2)))
  exported = jax.export.export(function, platforms=('cpu', 'tpu', 'cuda'))(images)
  x = draw(3, 9, 9, 4, dtype=np.float32)
  assert_close(jax.export.deserialize(exported.serialize()).call(x), by_xla(x, kernel, (2, 2)), 1e-5)


def test_multiply_adds_are_those_of_the_convolution():
  args = jax.ShapeDtypeStruct((2, 9, 9, 4), np.float32), jax.ShapeDtypeStruct((1, 1, 4, 3), np.float32)
  assert macs.count(functools.partial(pointwise, strides=(2, 2)), *args) == 2 * 5 * 5 * 4 * 3


def test_vmap(x64):
  x, kernel = draw(3, 2, 7, 8, 4), draw(3, 1, 1, 4, 2)
  for axes, args in (((0, 0), (x, kernel)), ((0, None), (x, kernel[0])), ((None, 0), (x[0], kernel))):
    assert_close(*(jax.vmap(lambda x, w, f=f: with_gradients(f, x, w), axes)(*args) for f in (pointwise, by_xla)))


def test_second_derivatives(x64):
  x, kernel = draw(2, 5, 6, 3), draw(1, 1, 3, 4)

  def penalty(convolve, x, kernel):
    loss = lambda x, w: (convolve(x, w, strides=(2, 2)) ** 3).sum()
    return sum((g**2).sum() for g in jax.grad(loss, (0, 1))(x, kernel))

  assert_close(*(jax.grad(functools.partial(penalty, f), (0, 1))(x, kernel) for f in (pointwise, by_xla)))
  forward = [jax.jacfwd(jax.grad(functools.partial(penalty, f)))(x, kernel) for f in (pointwise, by_xla)]
  assert_close(*forward)


@pytest.mark.parametrize('kernel_varies', [False, True])
def test_shard_map_sums_the_gradient_of_what_all_devices_share(x64, kernel_varies):
  mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
  x, kernel = draw(8, 5, 6, 3), draw(1, 1, 3, 2)

  def gradients(convolve, x, kernel):
    return jax.grad(lambda x, w: (convolve(x, w, strides=(2, 2)) ** 2).sum(), (0, 1))(x, kernel)

  @jax.jit
  @functools.partial(jax.shard_map, mesh=mesh, in_specs=(P('data'), P()), out_specs=(P('data'), P()))
  def sharded(x, kernel):
    shared = lax.pcast(kernel, 'data', to='varying') if kernel_varies else kernel
    in_x, in_kernel = gradients(pointwise, x, shared)
    return in_x, lax.psum(in_kernel, 'data') if kernel_varies else in_kernel

  assert_close(sharded(x, kernel), gradients(by_xla, x, kernel))


@pytest.mark.parametrize(('what', 'kept'), [('convolutions', 2), ('all', 0)])
def test_what_is_computed_anew_on_the_way_back(what, kept):
  """Outputs of 1x1 and depthwise convolutions are kept as those of other convolutions are."""
  x, one, three = (draw(*shape, dtype=np.float32) for shape in ((2, 4, 4, 3), (1, 1, 3, 3), (3, 3, 1, 3)))

  def network(variables, images, train):
    options = {'window_strides': (1, 1), 'padding': 'SAME', 'dimension_numbers': ('NHWC', 'HWIO', 'NHWC')}
    images = jnp.sin(cpu.conv_general_dilated(images, variables[0], **options))
    return jnp.sin(cpu.conv_general_dilated(images, variables[1], **options, feature_group_count=3)), variables

  remade = apply.rematerialised(network, what)
  way_back = jax.vjp(lambda variables: remade(variables, x, True)[0], (one, three))[1]
  outputs = [leaf for leaf in jax.tree.leaves(way_back) if leaf.shape == x.shape and not np.array_equal(leaf, x)]
  assert len(outputs) == kept


NUMBERS = ('NHWC', 'HWIO', 'NHWC')


@pytest.mark.parametrize('padding', [[(1, 1)], 1, [(0, 0), (0,)], 'NONE'])
def test_what_is_wrong_is_refused_as_by_xla(padding):
  x, kernel = draw(2, 4, 4, 3, dtype=np.float32), draw(1, 1, 3, 2, dtype=np.float32)
  said = []
  for convolve in (cpu.conv_general_dilated, lax.conv_general_dilated):
    with pytest.raises(Exception) as caught:  # whatever XLA's raises
      convolve(x, kernel, (1, 1), padding, dimension_numbers=NUMBERS)
    said.append((caught.type, str(caught.value)))
  assert said[0] == said[1]


def test_a_kernel_of_other_channels_is_refused_as_by_xla():
  x, kernel = draw(2, 4, 4, 3, dtype=np.float32), draw(1, 1, 5, 2, dtype=np.float32)
  with pytest.raises((TypeError, ValueError), match='conv_general_dilated'):
    cpu.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=NUMBERS)


def test_a_network_is_exported_for_every_size():
  model = models.create('resnet_small', num_classes=5, width=0.25)
  variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
  images = jax.ShapeDtypeStruct(jax.export.symbolic_shape('b, h, w, 3'), np.float32)
  exported = jax.export.export(jax.jit(lambda x: model.apply(variables, x, train=False)))(images)
  x = draw(2, 40, 33, 3, dtype=np.float32)
  assert_close(exported.call(x), model.apply(variables, x, train=False), 1e-4)


@pytest.mark.parametrize('spec', [P('data'), P(None, 'data')])
def test_an_explicit_mesh_may_have_images_or_rows_in_several_places(spec):
  mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Explicit,))
  x, kernel = draw(4, 8, 8, 3, dtype=np.float32), draw(1, 1, 3, 2, dtype=np.float32)
  options = {'window_strides': (1, 1), 'padding': 'SAME', 'dimension_numbers': NUMBERS}
  with jax.set_mesh(mesh):
    y = jax.jit(functools.partial(cpu.conv_general_dilated, **options))(jax.device_put(x, spec), kernel)
  assert_close(np.asarray(y), np.asarray(by_xla(x, kernel)), 1e-5)
