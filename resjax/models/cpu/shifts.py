"""Windows over images `[B, H, W, C]` as shifted copies: what each tap of a window sees, and what it gives back."""

from collections.abc import Callable, Iterator, Sequence

import jax.numpy as jnp
from jax import Array, lax

Padding = tuple[tuple[int, int], tuple[int, int]]


def wide(x: Array) -> Array:
  """Returns x in float32, or as it is where it is more precise: what sums are made in."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def padded(x: Array, padding: Sequence[tuple[int, int]], value: float = 0) -> Array:
  """Returns x with this many values before and after, in height and width; negative: cut."""
  return lax.pad(x, jnp.array(value, x.dtype), ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)))


def taps(x: Array, window: Sequence[int], strides: Sequence[int]) -> Iterator[tuple[tuple[int, int], Array]]:
  """Yields each tap (i, j) of a window, and what it sees of the padded x: `[B, oh, ow, C]`."""
  size = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:3], window, strides)]
  for i in range(window[0]):
    for j in range(window[1]):
      start = (0, i, j, 0)
      stop = [first + stride * (n - 1) + 1 for first, stride, n in zip((i, j), strides, size)]
      yield (i, j), lax.slice(x, start, (x.shape[0], *stop, x.shape[3]), (1, *strides, 1))


def pulled_back(
  term: Callable[..., Array],
  arrays: Sequence[Array],
  shape: Sequence[int],
  window: Sequence[int],
  strides: Sequence[int],
  padding: Padding,
) -> Array:
  """Returns what the positions of a layer's input `[*shape]` get back from its outputs.

  The sum over the taps (i, j) of the window that meet a position of `term(i, j, *parts)`, where the parts are those of
  the arrays `[B, oh, ow, C]` at the outputs that saw it; made for each phase of the strides, then interleaved. Outputs
  are in their order, as in XLA's select-and-scatter.
  """
  outputs = arrays[0].shape[1:3]
  # Of one phase, and a little more: of a part that is an array itself XLA would make a copy of the array's computation.
  size = [-(-n // s) for n, s in zip(shape[1:3], strides)]
  size = [n + 1 if n + 1 != o else n + 2 for n, o in zip(size, outputs)]
  met = [[_met(phase, k, s, p[0]) for phase in range(s)] for k, s, p in zip(window, strides, padding)]
  low, high = zip(*(_margins(m, n, o) for m, n, o in zip(met, size, outputs)))
  around = [padded(array, tuple(zip(low, high))) for array in arrays]

  def phase(rows, columns):
    total = None
    for i, down in reversed(rows):
      for j, across in reversed(columns):
        top, left = down + low[0], across + low[1]
        limits = (shape[0], top + size[0], left + size[1], shape[3])
        part = term(i, j, *(lax.slice(array, (0, top, left, 0), limits) for array in around))
        total = part if total is None else total + part
    if total is None:  # no output saw these positions
      total = jnp.zeros((shape[0], *size, shape[3]), wide(arrays[0]).dtype)
    return total

  rows = [jnp.stack([phase(a, b) for b in met[1]], 3) for a in met[0]]  # s times [B, h, w, s, C]
  whole = jnp.stack(rows, 2).reshape(shape[0], size[0] * strides[0], size[1] * strides[1], shape[3])
  return whole[:, : shape[1], : shape[2]]


def _met(phase, kernel_size, stride, low):
  """The taps that meet positions stride * q + phase of the input, each with d: they do so in the output's q + d."""
  return [(i, (phase + low - i) // stride) for i in range(kernel_size) if (phase + low - i) % stride == 0]


def _margins(met, size, outputs):
  """How much the output's gradient `[outputs]` is padded before and after, so that all shifts are within it."""
  shifts = [d for taps in met for _, d in taps] or [0]
  return max(0, -min(shifts)), max(0, size - 1 + max(shifts) - (outputs - 1))
