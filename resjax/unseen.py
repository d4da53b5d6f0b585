"""Resolutions that the network was not trained at: their BatchNorm from the trained ones, or from unlabelled images.

A size between or beyond the trained ones, and an input that is not square, gets a set of normalisers under a key of its
own; `view` then serves it like any other. Every function says in one line what it did, for the user to read.
"""

import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from resjax.switchable import SHARED_SET, Resolution, Variables, key_of, set_of, view

WAYS = ('interpolate', 'nearest')


def add(variables: Variables, resolution: Resolution, how: str = 'interpolate') -> tuple[Variables, str]:
  """Returns variables that serve one more resolution, and what was done.

  An input that is not square gets the normalisers of the square with its area. A resolution that has normalisers keeps
  them, and so does a network whose BatchNorm is one for all sizes. All square sizes in the tree count as trained.

  Args:
    variables: As `share` returns them; all else in them is passed through. New entries may alias old ones.
    resolution: In pixels, of a square, or (height, width).
    how: 'interpolate': scale, bias, mean and variance linear in the resolution between the two trained neighbours;
      beyond the trained sizes those of the last one, since extrapolated variances could be negative. 'nearest': those
      of the trained size nearest in pixels, of two equally near the larger one.

  Returns:
    The variables, with `params['private']` and `batch_stats` of this resolution, bit for bit a trained set where it is
    one's; and a line such as '136 px: BatchNorm interpolated between 128 and 160 px'.

  Raises:
    ValueError: The resolution is not one or two positive integers, or there is no such way.
  """
  height, width = _sides(resolution)
  if how not in WAYS:
    raise ValueError(f'how: got {how!r}, expected one of {", ".join(WAYS)}')
  key, known = key_of(resolution), variables['batch_stats']
  if SHARED_SET in known:
    return variables, f'{key} px: the BatchNorm of all sizes'
  if key in known:
    return variables, f'{key} px: its own BatchNorm'
  side = math.sqrt(height * width)
  low, high = _neighbours([int(k) for k in known if k.isdigit()], side, how)
  params = variables['params']
  private = _between(params['private'], low, high, side)
  statistics = _between(known, low, high, side)
  source = f'of {low} px' if low == high else f'interpolated between {low} and {high} px'
  area = '' if height == width else f' (in area {side:.0f}x{side:.0f})'
  return variables | {
    'params': params | {'private': params['private'] | {key: private}},
    'batch_stats': known | {key: statistics},
  }, f'{key} px{area}: BatchNorm {source}'


def recalibrate(
  model: nn.Module, variables: Variables, resolution: Resolution, batches: Iterable[Array]
) -> tuple[Variables, str]:
  """Returns variables whose statistics at one resolution are those of the given images, and what was done.

  Each running mean and variance becomes the mean over the batches of its value in the batch, weighted by the batch's
  size; in each batch the network normalises by that batch, as in training. Scale, bias and all else stay as they are.
  Batches should be about as large as in training. No labels are needed.

  Args:
    model: A plain network, called as `model(images, train=True)`; any momentum below 1.
    variables: With normalisers for this resolution, see `add`. Where BatchNorm is one for all sizes, that one changes,
      and the result is meant for this resolution alone.
    resolution: In pixels, of a square, or (height, width).
    batches: Of normalised images, floating `[B, height, width, 3]`; they need not be equally large.

  Returns:
    The variables, and a line such as '136 px: BatchNorm statistics from 512 images'.

  Raises:
    ValueError: The resolution has no normalisers; there are no images, or of another shape or type; or a statistic is
      not finite or not a running average.
  """
  sides, key, plain = _sides(resolution), set_of(variables, resolution), view(variables, resolution)
  moments = jax.jit(lambda plain, images: _moments(model, plain, images))
  found, sizes = [], []
  for images in batches:
    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[1:3] != sides or not jnp.issubdtype(images.dtype, jnp.floating):
      got = f'{images.dtype} {images.shape}'
      raise ValueError(f'batches: got {got}, expected normalised images, floating [B, {sides[0]}, {sides[1]}, 3]')
    found.append(jax.device_get(moments(plain, images)))
    sizes.append(len(images))
  if not sum(sizes):
    raise ValueError('batches: got no images, expected at least one batch')
  means = jax.tree.map(lambda *leaves: np.average(leaves, axis=0, weights=sizes), *found)
  if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(means)):
    raise ValueError(f'batches: statistics at {key} px are not finite, expected finite images and a momentum below 1')
  statistics = jax.tree.map(lambda mean, old: jnp.asarray(mean, old.dtype), means, plain['batch_stats'])
  changed = variables | {'batch_stats': variables['batch_stats'] | {key: statistics}}
  return changed, f'{key_of(resolution)} px: BatchNorm statistics from {sum(sizes)} images'


def _sides(resolution: Resolution) -> tuple[int, int]:
  """Height and width; ValueError unless they are positive integers."""
  sides = resolution if isinstance(resolution, tuple) else (resolution, resolution)
  if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
    raise ValueError(f'resolution: got {resolution!r}, expected a positive integer or (height, width)')
  return sides


def _neighbours(trained: list[int], side: float, how: str) -> tuple[int, int]:
  """The sizes below and above, the same one twice where a single one serves."""
  if how == 'nearest':
    nearest = min(trained, key=lambda size: (abs(size - side), -size))
    return nearest, nearest
  inside = min(max(side, min(trained)), max(trained))
  return max(size for size in trained if size <= inside), min(size for size in trained if size >= inside)


def _between(sets: Variables, low: int, high: int, side: float) -> Variables:
  """The set at a size between two, linear; where they are one, that very set."""
  if low == high:
    return sets[str(low)]
  share = (side - low) / (high - low)
  return jax.tree.map(lambda a, b: (1 - share) * a + share * b, sets[str(low)], sets[str(high)])


def _moments(model: nn.Module, plain: Variables, images: Array) -> Variables:
  """What each running statistic would be if it held this batch alone.

  An update is new = momentum * old + (1 - momentum) * batch, so its derivative by the old value is the momentum.
  """

  def update(statistics):
    return model.apply(plain | {'batch_stats': statistics}, images, train=True, mutable=['batch_stats'])[1]

  old = plain['batch_stats']
  zeros, ones = jax.tree.map(jnp.zeros_like, old), jax.tree.map(jnp.ones_like, old)
  new, momentum = jax.jvp(update, (zeros,), (ones,))
  return jax.tree.map(lambda x, m: x / (1 - m), new['batch_stats'], momentum['batch_stats'])
