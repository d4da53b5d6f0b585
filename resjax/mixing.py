"""Images changed on the device while training: a box erased, or mixed with a partner (mixup, CutMix); labels follow.

A box stands in shares of the image's side and counts a pixel that it covers in part by that part, so all resolutions
see the same mixture and its share is exact at each. Partners are neighbours: images 2k and 2k + 1 of the batch.

Zhang et al., "mixup", ICLR 2018; Yun et al., "CutMix", ICCV 2019; Zhong et al., "Random Erasing", AAAI 2020.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from resjax.losses import Mixed

# Of the box that is erased, as in the paper: its share of the area, uniform, and its height / width, log-uniform.
ERASED_AREA = (0.02, 0.33)
ERASED_RATIO = (0.3, 3.3)


class Box(NamedTuple):
  """A part of each image, in shares of its sides, float `[B]` each."""

  top: Array
  bottom: Array
  left: Array
  right: Array

  @property
  def area(self) -> Array:
    """Of each box, `[B]`, as a share of the image's."""
    return (self.bottom - self.top) * (self.right - self.left)

  def mask(self, height: int, width: int) -> Array:
    """Returns how much of each pixel lies in the box, 0 to 1, `[B, height, width, 1]`; its mean is `area`."""
    rows, columns = _covered(self.top, self.bottom, height), _covered(self.left, self.right, width)
    return (rows[:, :, None] * columns[:, None, :])[..., None]


class Mixture(NamedTuple):
  """How much of its partner each image gets, and where."""

  box: Box
  amount: Array  # float [B], the partner's share inside the box

  @property
  def share(self) -> Array:
    """Of the image itself, float `[B]`: what its label counts."""
    return 1 - self.amount * self.box.area


def draw_mixture(keys: Array, mixup: float, cutmix: float) -> Mixture:
  """Draws a mixture for each image.

  mixup blends the whole image, with the share lambda ~ Beta(mixup, mixup) of its own; CutMix takes a box of the sides
  sqrt(1 - lambda) around a uniform centre from the partner, cut off at the border, lambda ~ Beta(cutmix, cutmix).

  Args:
    keys: `[B]`, typed PRNG keys, one for each image.
    mixup: Beta's parameter; 0: no image is blended.
    cutmix: Beta's parameter; 0: no image gets a box. Where neither is 0, each image gets one or the other at evens.
  """

  def one(key: Array) -> Mixture:
    which, of_mixup, of_cutmix, place = jax.random.split(key, 4)
    half = 0.5 * jnp.sqrt(1 - jax.random.beta(of_cutmix, cutmix or 1.0, cutmix or 1.0))
    y, x = jax.random.uniform(place, (2,))
    cut = Mixture(Box(*(jnp.clip(edge, 0, 1) for edge in (y - half, y + half, x - half, x + half))), jnp.ones(()))
    whole = Box(jnp.zeros(()), jnp.ones(()), jnp.zeros(()), jnp.ones(()))
    blended = Mixture(whole, 1 - jax.random.beta(of_mixup, mixup or 1.0, mixup or 1.0))
    chosen = jax.random.bernoulli(which, 0.5 if mixup and cutmix else float(mixup > 0))
    return jax.tree.map(lambda a, b: jnp.where(chosen, a, b), blended, cut)

  return jax.vmap(one)(keys)


def mix(images: Sequence[Array], mixture: Mixture) -> tuple[Array, ...]:
  """Returns images `[B, H, W, C]` of every size, each mixed with its partner, at all sizes alike."""
  return tuple(_blend(sized, partners(sized), mixture.box, mixture.amount) for sized in images)


def mixed_labels(labels: Array, mixture: Mixture) -> Mixed:
  """Returns the labels `[B]` of images that `mix` returned: each its own and its partner's."""
  return Mixed(labels, partners(labels), mixture.share)


def partners(rows: Array) -> Array:
  """Returns the partner of each row `[B, ...]`: 2k + 1 for 2k, and 2k for 2k + 1.

  Raises:
    ValueError: Somebody has none.
  """
  if rows.shape[0] % 2:
    raise ValueError(f'batch_size: got {rows.shape[0]} images on a device, expected an even number to mix in pairs')
  return rows.reshape(-1, 2, *rows.shape[1:])[:, ::-1].reshape(rows.shape)


def draw_erased(keys: Array, probability: float) -> Box:
  """Draws the box that is erased of each image, with this probability; of the others an empty one.

  Area and ratio are drawn as `ERASED_AREA` and `ERASED_RATIO` say, the ratio among those that fit into the image.

  Args:
    keys: `[B]`, typed PRNG keys, one for each image.
    probability: 0 to 1.
  """

  def one(key: Array) -> Box:
    which, size, shape, place = jax.random.split(key, 4)
    area = jax.random.uniform(size, minval=ERASED_AREA[0], maxval=ERASED_AREA[1])
    lowest, highest = jnp.maximum(ERASED_RATIO[0], area), jnp.minimum(ERASED_RATIO[1], 1 / area)
    ratio = jnp.exp(jax.random.uniform(shape, minval=jnp.log(lowest), maxval=jnp.log(highest)))
    there = jax.random.bernoulli(which, probability)
    height, width = jnp.where(there, jnp.sqrt(area * ratio), 0.0), jnp.where(there, jnp.sqrt(area / ratio), 0.0)
    y, x = jax.random.uniform(place, (2,))
    top, left = y * (1 - height), x * (1 - width)
    return Box(top, top + height, left, left + width)

  return jax.vmap(one)(keys)


def erase(images: Sequence[Array], box: Box) -> tuple[Array, ...]:
  """Returns normalised images `[B, H, W, C]` of every size with a box of 0, the mean colour, at all sizes alike."""
  return tuple(_blend(sized, jnp.zeros_like(sized), box, jnp.ones_like(box.top)) for sized in images)


def _blend(images: Array, others: Array, box: Box, amount: Array) -> Array:
  """Images with a share of others inside a box."""
  mask = box.mask(*images.shape[1:3]) * amount[:, None, None, None]
  return images + mask * (others - images)


def _covered(low: Array, high: Array, size: int) -> Array:
  """How much of each of `size` pixels lies between two shares of a side, `[B, size]`."""
  edges = jnp.arange(size + 1, dtype=jnp.float32)[None] / size
  inside = jnp.minimum(high[:, None], edges[:, 1:]) - jnp.maximum(low[:, None], edges[:, :-1])
  return jnp.clip(inside * size, 0, 1)
