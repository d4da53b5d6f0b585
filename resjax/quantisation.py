"""Learned quantisation of weights and activations, LQ-Nets (Zhang et al., ECCV 2018), as pure functions.

A value becomes the nearest of 2^K levels. The levels are all sums of a basis v of K numbers, `sum_k b_k v_k`: with
signs b in {-1, +1} for weights, which have a basis for each output filter, and with bits b in {0, 1} for activations,
which have one for each layer. A basis is no parameter: every training step finds the one that fits the codes just
chosen best, by least squares, and a running average follows it.

Throughout, a basis is `[K]`, for all of x, or `[C, K]`, for each entry of its last axis.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import stop_gradient

# What a network keeps its bases under, beside `params` and `batch_stats`.
BASES = 'bases'

# Of a basis's running average, whose zero start is taken out again.
DECAY = 0.9

# Of the least squares of weights; those of activations have none but what keeps a bit that nothing uses where it is.
RIDGE = 1e-4
_HELD = 1e-6

# Half of all normal deviates are smaller than this many standard deviations.
_MEDIAN = 0.6745


def first_weights(bits: int, fan_out: int, channels: int) -> Array:
  """Returns the basis that weights begin with, `v_j = 2^j 0.6745 sqrt(2 / fan_out) / 2^(bits - 1)`, `[channels, bits]`.

  Args:
    bits: K.
    fan_out: The kernel's area times its output channels.
    channels: Output filters.
  """
  basis = _MEDIAN * (2.0 / fan_out) ** 0.5 / 2 ** (bits - 1) * 2.0 ** np.arange(bits)
  return jnp.tile(jnp.asarray(basis, jnp.float32), (channels, 1))


def first_activations(bits: int) -> Array:
  """Returns the basis that activations begin with, `v_j = 2^j 0.6745 * 2 / (2^bits - 1)`, `[bits]`."""
  return jnp.asarray(_MEDIAN * 2 / (2**bits - 1) * 2.0 ** np.arange(bits), jnp.float32)


def codes(bits: int, signed: bool) -> np.ndarray:
  """Returns all codes of so many bits, `[2^bits, bits]`, of signs -1 and 1, or of 0 and 1."""
  return np.array(list(itertools.product((-1 if signed else 0, 1), repeat=bits)), np.float32)


def levels(basis: Array, signed: bool) -> tuple[Array, Array]:
  """Returns the levels of a basis in rising order, `[..., 2^K]`, and the code of each, `[..., 2^K, K]`."""
  every = codes(basis.shape[-1], signed).astype(basis.dtype)
  # One by one: the same sum, bit for bit, whatever it is compiled into.
  sums = jnp.stack([sum(int(b) * basis[..., k] for k, b in enumerate(code)) for code in every], -1)
  order = jnp.argsort(sums, axis=-1)
  return jnp.take_along_axis(sums, order, -1), jnp.asarray(every)[order]


def thresholds(rising: Array) -> Array:
  """Returns where one level ends and the next begins, halfway between them: `[..., 2^K - 1]`."""
  return (rising[..., 1:] + rising[..., :-1]) * 0.5


def places(x: Array, basis: Array, signed: bool) -> Array:
  """Returns the place of the level that each value becomes, 0 for the lowest: uint8, as x.

  Args:
    x: Any shape; with a basis `[C, K]` its last axis is C.
    basis: `[K]` or `[C, K]`.
    signed: Whether codes are signs, as of weights.
  """
  bounds = thresholds(levels(basis, signed)[0])
  above = [(x > _spread(bounds[..., i], x)).astype(jnp.uint8) for i in range(bounds.shape[-1])]
  return functools.reduce(jnp.add, above)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def quantise(x: Array, basis: Array, signed: bool) -> Array:
  """Returns each value's level; the gradient goes straight through.

  It is 1 for weights; for activations it is 1 up to the highest level and 0 above it, where they are clipped. The basis
  has none. Arguments as of `places`.
  """
  rising, _ = levels(basis, signed)
  bounds = thresholds(rising)
  y = jnp.broadcast_to(_spread(rising[..., 0], x), x.shape)
  for i in range(bounds.shape[-1]):
    y = jnp.where(x > _spread(bounds[..., i], x), _spread(rising[..., i + 1], x), y)
  return y


@quantise.defjvp
def _straight_through(signed, primals, tangents):
  x, basis = primals
  tangent = tangents[0]
  if not signed:
    highest = levels(basis, signed)[0][..., -1]
    tangent = jnp.where(x <= _spread(highest, x), tangent, jnp.zeros_like(tangent))
  return quantise(x, basis, signed), tangent


def fit(
  x: Array, basis: Array, signed: bool, *, mask: Array | None = None, axis_name: str | None = None
) -> tuple[Array, Array]:
  """Returns the basis that fits the codes of x under the old one best, and how many values counted, `[]`.

  For weights `(B^T B + 1e-4 I)^-1 (B^T x + 1e-4 v)`, B the codes `[n, K]` and v the old basis; for activations the same
  without 1e-4, but a bit that next to nothing tells from the others stays where it is.

  Args:
    x: As of `places`.
    basis: As of `places`.
    signed: As of `places`.
    mask: `[B]`, nonzero where an entry of x's first axis counts; None: all do.
    axis_name: The named axis whose devices' values all count; None: this device's.
  """
  x, basis = stop_gradient(x), stop_gradient(basis)
  place, chosen = places(x, basis, signed), levels(basis, signed)[1]
  counted = True if mask is None else jnp.expand_dims(mask.astype(bool), range(1, x.ndim))
  axes = tuple(range(x.ndim - basis.ndim + 1))

  def of_level(level: Array) -> tuple[Array, Array]:
    here = (place == level) & counted
    return here.sum(axes).astype(basis.dtype), jnp.where(here, x, 0).sum(axes).astype(basis.dtype)

  # Which level a value has says its code: how many have it, and their sum, are all that is needed.
  found = jax.vmap(of_level, out_axes=-1)(jnp.arange(chosen.shape[-2], dtype=place.dtype))
  number, total = jax.lax.psum(found, axis_name) if axis_name else found
  # Products and sums, not matrix products, which an accelerator may round.
  squares = (number[..., None, None] * chosen[..., :, None] * chosen[..., None, :]).sum(-3)
  products = (total[..., None] * chosen).sum(-2)
  count = number.sum(-1, keepdims=True)
  ridge = RIDGE if signed else _HELD * jnp.maximum(count, 1)[..., None]
  missing = products - (squares * basis[..., None, :]).sum(-1)
  diagonal = ridge * jnp.broadcast_to(jnp.eye(basis.shape[-1], dtype=basis.dtype), squares.shape)
  return basis + _solved(squares + diagonal, missing), count.sum()


def _solved(matrix: Array, right: Array) -> Array:
  """What a positive definite matrix, `[..., K, K]`, times is `right`, `[..., K]`: by Gaussian elimination.

  K is 4 at most, and written out so it compiles in a fraction of the time of a library's decomposition.
  """
  size = right.shape[-1]
  rows = [[*(matrix[..., j, k] for k in range(size)), right[..., j]] for j in range(size)]
  for j, k in itertools.combinations(range(size), 2):
    share = rows[k][j] / rows[j][j]
    rows[k] = [below - share * above for below, above in zip(rows[k], rows[j])]
  found: list[Array] = []
  for j in reversed(range(size)):
    known = sum(a * b for a, b in zip(rows[j][j + 1 : size], found))
    found.insert(0, (rows[j][size] - known) / rows[j][j])
  return jnp.stack(found, -1)


def follow(average: Array, left: Array, new: Array) -> tuple[Array, Array]:
  """Returns the running average of bases, and what is left of its zero start.

  After t of them it is `sum_i 0.1 * 0.9^(t - i) v_i / (1 - 0.9^t)`: the first replaces what the average began with.

  Args:
    average: Before.
    left: `0.9^(t - 1)`, `[]`: 1 at the start.
    new: The basis of this step.
  """
  decay = jnp.asarray(DECAY, left.dtype)
  after = decay * left
  share = (1 - decay) / (1 - after)
  return (1 - share) * average + share * new, after


def _spread(values: Array, x: Array) -> Array:
  """Numbers `[]` or `[C]` along the last axis of x."""
  return values if values.ndim == 0 else jnp.expand_dims(values, range(x.ndim - 1))
