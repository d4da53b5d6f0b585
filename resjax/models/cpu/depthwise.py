"""Depthwise convolutions: on a CPU, where XLA's own make a whole network ten times slower, as shifted products."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from resjax.models.cpu import shifts

NHWC = ('NHWC', 'HWIO', 'NHWC')


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
