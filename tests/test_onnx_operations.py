"""Functions of JAX as graphs of ONNX: each operation against JAX, whatever its layout; what is unknown is named."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from flax import linen as nn

from resjax.exporting import onnx

SHAPE = (6, 5, 4)
RNG = np.random.default_rng(0)
CROPS = RNG.integers(0, 256, (3, *SHAPE), np.uint8)
# Sums of up to 500 float32 products in another order.
TOLERANCE = 1e-5

A = RNG.normal(size=(4, 7)).astype(np.float32)
B = RNG.normal(size=(3, 6)).astype(np.float32)
VECTOR = RNG.normal(size=4).astype(np.float32)
KERNEL = RNG.normal(size=(3, 3, 2, 8)).astype(np.float32)
DEEP = RNG.normal(size=(3, 3, 1, 8)).astype(np.float32)


def conv(x, kernel=KERNEL, strides=(1, 1), padding=((1, 1), (0, 2)), **options):
  return jax.lax.conv_general_dilated(
    x, kernel, strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=2, **options
  )


def attention(x):
  """Softmax over positions, of two heads."""
  flat = x.reshape(x.shape[0], 30, 2, 2)
  weights = jax.nn.softmax(jnp.einsum('bqhc,bkhc->bhqk', flat, flat) / 2)
  return jnp.einsum('bhqk,bkhc->bqhc', weights, flat).reshape(x.shape[0], -1)


def squeeze_excite(x):
  """A gate for each channel, spread over all positions."""
  gates = jax.nn.sigmoid(x.mean((1, 2)) @ jnp.array(A)[:, :4])
  return conv(x * gates[:, None, None])


def on_platforms(x):
  return jax.lax.platform_dependent(x, cpu=lambda x: 0 * x, default=lambda x: x + 1)


@jax.custom_vjp
def tame(x):
  return jnp.sin(x)


tame.defvjp(lambda x: (jnp.sin(x), x), lambda x, gradient: (gradient,))


def class_token(x):
  token = jnp.broadcast_to(VECTOR, (x.shape[0], 1, 4))
  return jnp.concatenate([token, x.reshape(x.shape[0], 30, 4)], 1) @ A


def layer_norm(x):
  return (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-6) * VECTOR.reshape(1, 1, 1, 4)


# Of float32 in [0, 1], [b, 6, 5, 4].
FUNCTIONS = {
  'arithmetic': lambda x: -abs(x - 0.5) * 2 + x / (x + 1) - jnp.square(x) + x**3 + (x + 1) ** 0.3,
  'curves': lambda x: jnp.exp(x) + jnp.log(x + 1) + jnp.sqrt(x) + jnp.tanh(x) + jnp.sin(x) * jnp.cos(x) + jnp.sign(x),
  'activations': lambda x: sum(f(4 * x - 2) for f in (nn.relu, nn.relu6, nn.silu, nn.elu, nn.softplus, nn.leaky_relu)),
  'gelu': lambda x: nn.gelu(4 * x - 2, approximate=False) + nn.gelu(4 * x - 2) + nn.hard_swish(9 * x - 4),
  'relu6 of what is used twice': lambda x: nn.relu6(9 * x - 2) + nn.relu(9 * x - 2),
  'a minimum below 0': lambda x: jnp.minimum(nn.relu(x - 0.5), -0.1),
  'clip': lambda x: jnp.clip(x, 0.2, 0.7) + jax.lax.clamp(0.1, x, 0.4),
  'comparisons': lambda x: jnp.where((x > 0.5) & (x != 0.75) | (x <= 0.1), x, -x),
  'whole numbers': lambda x: (8 * x).astype(jnp.int32).astype(jnp.float32).sum((1, 2)),
  'reductions': lambda x: x.max((1, 2)) + x.min((1, 2)) + x.mean((1, 2)) + x.sum(2).max(1),
  'reduced along no axis': lambda x: jnp.sum(x, ()) + jnp.max(2 * x, ()),
  'transposed, then reduced': lambda x: x.transpose(0, 3, 2, 1).sum(2).reshape(x.shape[0], -1),
  'convolution': conv,
  'strided': lambda x: conv(x, strides=(2, 1)),
  'dilated': lambda x: conv(x, rhs_dilation=(2, 1)),
  'depthwise': lambda x: jax.lax.conv_general_dilated(
    x, DEEP, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=4
  ),
  'of one dimension': lambda x: jax.lax.conv_general_dilated(
    x[:, 0], KERNEL[0, :, :, :], (1,), 'SAME', dimension_numbers=('NWC', 'WIO', 'NWC'), feature_group_count=2
  ),
  'two convolutions and a shortcut': lambda x: conv(nn.relu(conv(x) * 2 - 1)[..., :4] + x[:, :, :5] * 3),
  'scale and shift': lambda x: (
    (1 - (conv(x) - 0.1) / np.float32(3)) * np.arange(8, dtype=np.float32).reshape(1, 1, 1, 8)
  ),
  'what follows twice': lambda x: (lambda y: nn.relu(y) + y * 2)(conv(x) + 1),
  'pools': lambda x: (
    nn.max_pool(x, (3, 2), (2, 1), ((1, 1), (0, 1))) + nn.avg_pool(x, (3, 2), (2, 1), ((1, 1), (0, 1)))
  ),
  'linear': lambda x: x @ A,
  'linear along rows': lambda x: jnp.einsum('hH,bHwc->bhwc', B, x),
  'linear along columns': lambda x: jnp.einsum('bhwc,wW->bhWc', x, jnp.array(B)[:, :5].T),
  'linear, more axes': lambda x: jnp.einsum('bhwc,wcn->bhn', x, np.ones((5, 4, 2), np.float32)),
  'attention': attention,
  'squeeze and excite': squeeze_excite,
  'class token': class_token,
  'layer norm': lambda x: layer_norm(layer_norm(x) @ jnp.array(A)[:, :4]),
  'parts': lambda x: jnp.concatenate(
    [x[:, 1:3, :3], jnp.split(x, [2], axis=1)[0], jax.lax.slice_in_dim(x, 0, 4, 2, 1)], 2
  ),
  'parts in another layout': lambda x: jnp.concatenate([conv(x)[:, :, :2], conv(x)[:, :, 2:]], 2)[:, -1],
  'padding': lambda x: jnp.pad(conv(x), ((0, 0), (1, 2), (0, 0), (0, 1)), constant_values=0.5),
  'custom rules': lambda x: jax.checkpoint(nn.relu)(x) + tame(x),
  'platforms': on_platforms,
  'constants alone': lambda x: jnp.broadcast_to(jnp.arange(4.0), x.shape),
  'sizes that spread later': lambda x: x + x.max((1, 2), keepdims=True) * jnp.ones((1, 6, 1, 1)),
}


def ran(function, shared=None):
  model = onnx.of_function(lambda _, crops: function(crops.astype(jnp.float32) / 255), (), SHAPE, shared)
  session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
  return model, lambda crops: session.run(None, {'crops': crops})[0]


@pytest.mark.parametrize('name', FUNCTIONS)
def test_an_operation_is_what_it_is_in_jax(name):
  _, run = ran(FUNCTIONS[name])
  expected = (
    FUNCTIONS[name](CROPS.astype(np.float32) / 255)
    if name != 'platforms'
    else CROPS.astype(np.float32) / 255 + 1  # the default's, not the CPU's
  )
  for count in (3, 1):
    got = run(CROPS[:count])
    assert got.dtype == np.float32 and got.shape == expected[:count].shape
    np.testing.assert_allclose(got, expected[:count], rtol=0, atol=TOLERANCE * np.abs(expected).max())


def operations(model):
  return [node.op_type for node in model.graph.node]


def test_a_convolution_takes_up_what_scales_and_shifts_its_channels():
  folded, _ = ran(FUNCTIONS['scale and shift'])
  assert operations(folded).count('Conv') == 1 and not {'Mul', 'Sub'} & set(operations(folded)[2:])
  function, weights = FUNCTIONS['scale and shift'], onnx.Weights('weights')
  kept = onnx.of_function(lambda _, crops: function(crops.astype(jnp.float32)), (), SHAPE, weights)
  assert operations(kept)[-3:-1] == ['Conv', 'BatchNormalization']
  used_twice, _ = ran(FUNCTIONS['what follows twice'])
  assert operations(used_twice).count('Conv') == 1 and 'Mul' in operations(used_twice)


def test_the_layout_changes_once_on_the_way_in():
  pooled, _ = ran(lambda x: conv(nn.relu(conv(x)[..., :4])).mean((1, 2)) @ np.ones((8, 3), np.float32))
  assert operations(pooled).count('Transpose') == 1


def test_a_matrix_that_is_almost_empty_is_written_as_its_band():
  from resjax import resize

  model = onnx.of_function(lambda _, crops: resize.resize(crops, 96), (), (224, 224, 3))
  assert len(model.SerializeToString()) < 12_000  # of 172,032 bytes
  crops = RNG.integers(0, 256, (1, 224, 224, 3), np.uint8)
  session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
  np.testing.assert_allclose(session.run(None, {'crops': crops})[0], resize.resize(crops, 96), rtol=0, atol=1e-3)


def whole(x):
  return (8 * x).astype(jnp.int32)


REFUSED = {
  'the operation cumsum': lambda x: jnp.cumsum(x, 1),
  'the operation rev': lambda x: jax.lax.rev(x, (1,)),
  'conv_general_dilated that is transposed': lambda x: jax.lax.conv_transpose(x, np.ones((3, 3, 4, 4)), (2, 2), 'SAME'),
  'gather, other than of one part': lambda x: x[:, jnp.array([0, 2])],
  'numbers of type bfloat16 in convert_element_type': lambda x: (x.astype(jnp.bfloat16) * 2).astype(jnp.float32),
  'numbers of type float16': lambda x: (x.astype(jnp.float16) * 2).astype(jnp.float32),
  'numbers of type int32 in and': lambda x: (whole(x) & 3).astype(jnp.float32),
  'numbers of type int32 in conv_general_dilated': lambda x: conv(whole(x), whole(KERNEL)).astype(jnp.float32),
  'numbers of type int32 in reduce_window_max': lambda x: jax.lax.reduce_window(
    whole(x), np.iinfo(np.int32).min, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID'
  ).astype(jnp.float32),
  'numbers of type bool in reduce_max': lambda x: jnp.max(x > 0.5, 1).astype(jnp.float32),
  'numbers of type bool in lt': lambda x: jax.lax.lt(x > 0.5, x > 0.3).astype(jnp.float32),
  'select_n of 2 cases of type bool': lambda x: jnp.where(x > 0.5, x > 0.7, x > 0.3).astype(jnp.float32),
  'reduce_window_max padded by whole windows': lambda x: nn.max_pool(x, (2, 2), (1, 1), ((2, 0), (0, 0))),
  'random numbers': lambda x: x + jax.random.normal(jax.random.key(0), (1, 6, 5, 4)),
  'a result of type int32': lambda x: whole(x).sum((1, 2)),
  'the operation iota': lambda x: x + jnp.arange(x.shape[0])[:, None, None, None],
  'what depends on the number of images$': lambda x: x - x.mean(0, keepdims=True),
  'what depends on the number of images (Symb': lambda x: jnp.concatenate([x, x], 0)[: x.shape[0]],
  'numbers of type complex64': lambda x: jnp.abs(x + 1j),
  'what depends on the number of images': lambda x: x * int(x.shape[0]),
}


@pytest.mark.parametrize('what', REFUSED)
def test_what_is_unknown_is_named(what):
  pattern = re.escape(what).replace(r'\$', '(?=,)')
  for weights in (None, onnx.Weights('weights')):
    with pytest.raises(ValueError, match=f'^model: has {pattern}.*, expected .* knows; .*--format=stablehlo') as error:
      onnx.of_function(lambda _, crops: REFUSED[what](crops.astype(jnp.float32) / 255), (), SHAPE, weights)
    assert '\n' not in str(error.value)
