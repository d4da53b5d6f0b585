"""Max-pool: on a CPU and on CUDA, where XLA is slow at its gradient (select-and-scatter), by the winners' places."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from resjax.models.cpu import shifts


def max_pool(
  x: Array, window_shape: Sequence[int], strides: Sequence[int] | None = None, padding: Any = 'VALID'
) -> Array:
  """Returns what `flax.linen.max_pool` does, bit for bit, with a gradient that is many times faster on a CPU.

  There, and on CUDA (a third of XLA's time on an H200, docs/performance.md), the winner's place in its window is kept.
  Differentiable in reverse mode, as often as you like, but not in forward mode (`jax.jvp`).

  Args:
    x: The images, `[B, H, W, C]`; all else is left to Flax.
    window_shape: Height and width.
    strides: None: 1.
    padding: 'SAME', 'VALID' or pairs, one for each direction: with minus infinity.
  """
  window = tuple(window_shape)
  own = x.ndim == 4 and len(window) == 2 and math.prod(window) < 256 and jnp.issubdtype(x.dtype, jnp.floating)
  if not own:
    return nn.max_pool(x, window, strides, padding)
  strides = tuple(strides or (1, 1))
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
  return _max_pool(x, window, strides, tuple((int(low), int(high)) for low, high in padding))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x, window, strides, padding):
  return lax.platform_dependent(
    x,
    cpu=lambda x: _winners(x, window, strides, padding)[0],
    default=lambda x: nn.max_pool(x, window, strides, padding),
  )


def _max_pool_forward(x, window, strides, padding):
  """The maxima, x, and the place of each winner in its window (on other platforms nobody asks for it: zeros)."""

  def default(x):
    y = nn.max_pool(x, window, strides, padding)
    return y, lax.full_like(y, 0, jnp.uint8)

  own = lambda x: _winners(x, window, strides, padding)  # noqa: E731
  y, winners = lax.platform_dependent(x, cpu=own, cuda=own, default=default)
  return y, (x, winners)


def _winners(x, window, strides, padding):
  """The maxima of the windows of x, and the place of each in its window."""
  padded = shifts.padded(x, padding, -jnp.inf)
  seen = [part for _, part in shifts.taps(padded, window, strides)]
  largest, winner, place = seen[0], seen[0], lax.full_like(seen[0], 0, jnp.uint8)
  for number, part in enumerate(seen[1:], 1):
    better = ~(winner >= part)  # as XLA's select-and-scatter: one that is not a number wins, and loses to the next
    winner, place = jnp.where(better, part, winner), jnp.where(better, jnp.uint8(number), place)
    largest = jnp.maximum(largest, part)
  return largest, place


def _max_pool_backward(window, strides, padding, kept, gradient):
  def default(x, winners, gradient):
    del winners
    return jax.vjp(lambda x: nn.max_pool(x, window, strides, padding), x)[1](gradient)[0]

  def own(x, winners, gradient):
    def term(i, j, seen, winner):
      return jnp.where(winner == jnp.uint8(i * window[1] + j), shifts.wide(seen), 0)

    return shifts.pulled_back(term, (gradient, winners), x.shape, window, strides, padding).astype(x.dtype)

  return (lax.platform_dependent(*kept, gradient, cpu=own, cuda=own, default=default),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)
