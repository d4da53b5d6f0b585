"""Convolutions of 1x1: matrix products on a CPU; a step of ResNet-50 takes 0.78 of the time (docs/performance.md)."""

import functools
from typing import Any

import jax
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from resjax.models.cpu.depthwise import NHWC


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def pointwise(x: Array, kernel: Array, strides: tuple[int, int] = (1, 1)) -> Array:
  """Returns a convolution of 1x1 without padding, `[B, ceil(H / stride), ceil(W / stride), features]`.

  On a CPU it and its gradients are matrix products, elsewhere XLA's own.

  Args:
    x: `[B, H, W, C]`, of any floating type.
    kernel: `[1, 1, C, features]`, of the same type.
    strides: In height and width.
  """
  return _either(x, kernel, strides)


@functools.partial(pointwise.defjvp, symbolic_zeros=True)
def _tangent(strides: tuple[int, int], primals: Any, tangents: Any) -> tuple[Array, Any]:
  """The convolution and its tangent, made of convolutions of the same kind, which JAX can transpose."""
  (x, kernel), (dx, dkernel) = primals, tangents
  parts = [_either(dx, kernel, strides)] if not isinstance(dx, SymbolicZero) else []
  parts += [_either(x, dkernel, strides)] if not isinstance(dkernel, SymbolicZero) else []
  return pointwise(x, kernel, strides), sum(parts[1:], parts[0])


def _either(x: Array, kernel: Array, strides: tuple[int, int]) -> Array:
  """The convolution, the way that its platform is fast at."""
  product, by_xla = (functools.partial(way, strides=strides) for way in (_product, _by_xla))
  return lax.platform_dependent(x, kernel, cpu=product, default=by_xla)


def _by_xla(x: Array, kernel: Array, strides: tuple[int, int]) -> Array:
  return lax.conv_general_dilated(x, kernel, strides, 'VALID', dimension_numbers=NHWC)


def _product(x: Array, kernel: Array, strides: tuple[int, int]) -> Array:
  """One product of two matrices, of all positions: of an array of four dimensions XLA would move some first."""
  x = x[:, :: strides[0], :: strides[1]]
  flat = x.reshape(-1, x.shape[-1]) @ kernel[0, 0]
  return flat.reshape(*x.shape[:3], kernel.shape[-1])
