"""Depthwise convolutions: on a CPU, where XLA's own make a whole network ten times slower, as shifted products."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from resjax.models.cpu import shifts

NHWC = ('NHWC', 'HWIO', 'NHWC')


def conv_general_dilated(lhs: Array, rhs: Array, window_strides: Sequence[int], padding: Any, **options: Any) -> Array:
  """Returns what `jax.lax.conv_general_dilated` does, faster on a CPU where the convolution is depthwise.

  To be given to a convolution of Flax: `nn.Conv(..., conv_general_dilated=cpu.conv_general_dilated)`. Depthwise means:
  two dimensions, as many groups as channels and outputs, nothing dilated, numbers of positions that are known. Such a
  convolution is differentiable in reverse mode, as often as you like, but not in forward mode (`jax.jvp`).

  Args:
    lhs: The images, `[B, H, W, C]`.
    rhs: The kernel, `[h, w, C / groups, features]`.
    window_strides: In both directions.
    padding: 'SAME', 'VALID' or pairs, one for each direction.
    **options: The other arguments of `jax.lax.conv_general_dilated`.
  """
  if not _is_depthwise(lhs, rhs, window_strides, options):
    return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
  strides = (int(window_strides[0]), int(window_strides[1]))
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
  (top, bottom), (left, right) = padding
  return depthwise(lhs, rhs, strides, ((int(top), int(bottom)), (int(left), int(right))))


def _is_depthwise(lhs, rhs, strides, options):
  """Whether a convolution is one that `depthwise` computes."""
  numbers = options.get('dimension_numbers')
  if lhs.ndim != 4 or rhs.ndim != 4 or len(strides) != 2 or numbers is None:
    return False
  if lax.conv_dimension_numbers(lhs.shape, rhs.shape, numbers) != lax.conv_dimension_numbers(
    lhs.shape, rhs.shape, NHWC
  ):
    return False
  dilated = any(set(options.get(name) or (1,)) != {1} for name in ('lhs_dilation', 'rhs_dilation'))
  channels = lhs.shape[-1]
  other = set(options) - {'dimension_numbers', 'lhs_dilation', 'rhs_dilation', 'feature_group_count', 'precision'}
  return (
    channels > 1
    and options.get('feature_group_count') == channels
    and rhs.shape[2:] == (1, channels)
    and lhs.dtype == rhs.dtype
    and jnp.issubdtype(lhs.dtype, jnp.floating)
    and not dilated
    and not any(options[name] is not None for name in other if not (name == 'batch_group_count' and options[name] == 1))
  )


def depthwise(
  x: Array, kernel: Array, strides: tuple[int, int] = (1, 1), padding: shifts.Padding = ((1, 1), (1, 1))
) -> Array:
  """Returns a depthwise convolution, `[B, ceil((H + pads - h + 1) / stride), ..., C]`.

  On a CPU it and its gradients are sums of shifted products, elsewhere XLA's own.

  Args:
    x: `[B, H, W, C]`, of any floating type.
    kernel: `[h, w, 1, C]`, of the same type.
    strides: In height and width.
    padding: Zeros before and after, in height and width.
  """
  x, kernel = _alike(x, kernel)
  return _depthwise(x, kernel, strides, padding)


def _alike(*arrays):
  """The arrays, each varying over every axis of a shard_map that another varies over: JAX then sums their gradients."""
  axes = frozenset().union(*(_varying(array) for array in arrays))
  return [
    lax.pcast(array, tuple(sorted(axes - _varying(array))), to='varying') if axes - _varying(array) else array
    for array in arrays
  ]


def _varying(array):
  """The axes of a shard_map over which an array varies; the attribute's name is that of jax up to 0.9, and since."""
  kind: Any = jax.typeof(array)
  return frozenset(kind.vma if hasattr(kind, 'vma') else kind.manual_axis_type.varying)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x, kernel, strides, padding):
  shifted = functools.partial(_shifted, strides=strides, padding=padding)
  default = functools.partial(_by_xla, strides=strides, padding=padding)
  return lax.platform_dependent(x, kernel, cpu=shifted, default=default)


def _forward(x, kernel, strides, padding):
  return _depthwise(x, kernel, strides, padding), (x, kernel)


def _backward(strides, padding, kept, gradient):
  def default(x, kernel, gradient):
    in_x = jax.linear_transpose(lambda x: _by_xla(x, kernel, strides, padding), x)(gradient)
    return *in_x, *jax.linear_transpose(lambda kernel: _by_xla(x, kernel, strides, padding), kernel)(gradient)

  def shifted(x, kernel, gradient):
    return (
      _gradient_of_input(gradient, kernel, x.shape, strides, padding),
      _gradient_of_kernel(x, gradient, kernel.shape, strides, padding),
    )

  return lax.platform_dependent(*kept, gradient, cpu=shifted, default=default)


_depthwise.defvjp(_forward, _backward)


def _by_xla(x, kernel, strides, padding):
  return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=NHWC, feature_group_count=x.shape[-1])


def _shifted(x, kernel, strides, padding):
  """The convolution: the sum over the kernel's taps of the shifted input times the tap."""
  weights, padded = shifts.wide(kernel), shifts.padded(x, padding)
  seen_by = shifts.taps(padded, kernel.shape[:2], strides)
  products = (shifts.wide(seen) * weights[i : i + 1, j : j + 1] for (i, j), seen in seen_by)
  return functools.reduce(jnp.add, products).astype(x.dtype)


def _gradient_of_input(gradient, kernel, shape, strides, padding):
  """The gradient of the convolution's x: for each tap that met a position, the tap times what came of it."""
  weights = shifts.wide(kernel)

  def term(i, j, seen):
    return shifts.wide(seen) * weights[i : i + 1, j : j + 1]

  return shifts.pulled_back(term, (gradient,), shape, kernel.shape[:2], strides, padding).astype(gradient.dtype)


def _gradient_of_kernel(x, gradient, shape, strides, padding):
  """The gradient of the kernel: for each tap, the sum over all positions of what it saw times what came of it."""
  wide, padded = shifts.wide(gradient), shifts.padded(x, padding)
  products = [shifts.wide(seen) * wide for _, seen in shifts.taps(padded, shape[:2], strides)]
  sums = _sums(products)
  return jnp.stack(sums).reshape(shape).astype(x.dtype)


@jax.custom_jvp
def _sums(arrays):
  """The sums of arrays `[B, H, W, C]` over all but C, in one pass: a sum for each takes up to four times as long."""
  zeros = [jnp.zeros((), arrays[0].dtype)] * len(arrays)
  return lax.reduce(arrays, zeros, lambda a, b: [p + q for p, q in zip(a, b)], (0, 1, 2))


@_sums.defjvp
def _sums_of_tangents(arrays, tangents):
  return _sums(*arrays), [tangent.sum((0, 1, 2)) for tangent in tangents[0]]
