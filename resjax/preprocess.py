"""From the uint8 crops of a batch to the network's inputs, on the device: other sizes, flips, normalisation."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from resjax import resize
from resjax.resolution import Resolution, at_width, at_widths, branches, several

# Mean and standard deviation per channel, of values in [0, 1].
NORMALIZATIONS = {
  'imagenet': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
  'unit': ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
  'signed': ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
FLIPS = ('none', 'shared', 'independent')

# A key of `NORMALIZATIONS`, or ((mean, ...), (deviation, ...)), a number for each channel.
Normalize = str | tuple[tuple[float, ...], tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """What happens to an image between its file and the network, where it is not trained.

  Attributes:
    normalize: A key of `NORMALIZATIONS`, or a mean and a standard deviation as they stand there.
    interpolation: Of resizing, antialiased: a key of `resize.KERNELS`.
    crop_fraction: The crop's share of the resized image's shorter side, above 0, at most 1.
    max_pixels: Larger images are refused before they are decoded.
  """

  normalize: Normalize = 'imagenet'
  interpolation: str = 'bilinear'
  crop_fraction: float = 0.875
  max_pixels: int = 2**26

  @classmethod
  def of_config(cls, config: ConfigDict) -> 'Preprocessing':
    """Returns how a run's evaluation prepares images.

    Args:
      config: A run's; reads data.normalize, data.max_pixels, eval.interpolation and eval.crop_fraction.
    """
    return cls(config.data.normalize, config.eval.interpolation, config.eval.crop_fraction, config.data.max_pixels)

  def __post_init__(self) -> None:
    """Raises ValueError, naming the field, where a value is none of those described."""
    mean_and_std(self.normalize)
    if self.interpolation not in resize.KERNELS:
      raise ValueError(f'interpolation: got {self.interpolation!r}, expected one of {", ".join(resize.KERNELS)}')
    if not 0 < self.crop_fraction <= 1:
      raise ValueError(f'crop_fraction: got {self.crop_fraction!r}, expected more than 0, at most 1')
    if not self.max_pixels > 0:
      raise ValueError(f'max_pixels: got {self.max_pixels!r}, expected more than 0')


def mean_and_std(normalize: Normalize, field: str = 'normalize') -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Returns mean and standard deviation of each channel, of values in [0, 1].

  Args:
    normalize: As of `Preprocessing`.
    field: What messages call it.

  Raises:
    ValueError: It is neither a key of `NORMALIZATIONS` nor such a pair.
  """
  if isinstance(normalize, str) and normalize in NORMALIZATIONS:
    return NORMALIZATIONS[normalize]
  if isinstance(normalize, tuple) and len(normalize) == 2:
    mean, std = normalize
    numbers = [v for part in normalize if isinstance(part, tuple) and len(part) == 3 for v in part]
    if len(numbers) == 6 and all(isinstance(v, int | float) and math.isfinite(v) for v in numbers) and min(std) > 0:
      return mean, std
  raise ValueError(
    f'{field}: got {normalize!r}, expected one of {", ".join(NORMALIZATIONS)}, or three means and three deviations'
  )


def prepare(
  images: Sequence[Array | np.ndarray],
  resolutions: Sequence[Resolution],
  normalize: Normalize,
  flips: Array | None = None,
  interpolation: str = 'bilinear',
) -> tuple[Array, ...]:
  """Returns the network's inputs, float32 `[B, r, r, 3]` for every resolution, or `[B, height, width, 3]`.

  Args:
    images: uint8 `[B, r, r, 3]`, one per resolution in their order, or the largest alone.
    resolutions: In pixels, of squares, or (height, width); highest first.
    normalize: As of `Preprocessing`.
    flips: bool `[R, B]`: which images to mirror left to right. None: none.
    interpolation: A key of `resize.KERNELS`, for sizes made from the largest.

  Raises:
    ValueError: There are another number of sizes, or a shape is not that.
  """
  mean, std = (255.0 * jnp.array(v).reshape(1, 1, 1, -1) for v in mean_and_std(normalize))
  resolutions = several(resolutions)
  if len(images) not in (1, len(resolutions)):
    raise ValueError(f'images: got {len(images)} sizes, expected one for each of {resolutions}, or the largest alone')
  if len(images) == 1:
    images = resize.pyramid(images[0], resolutions, interpolation)
  inputs = []
  for i, image in enumerate(images):
    sized = jnp.asarray(image, jnp.float32)
    if flips is not None:
      sized = jnp.where(flips[i][:, None, None, None], sized[:, :, ::-1], sized)
    inputs.append((sized - mean) / std)
  return tuple(inputs)


def sized(config: ConfigDict, images: tuple[Array, ...]) -> tuple[Array, ...]:
  """Returns the images of a batch for each of `at_widths(config)`; the largest alone, if there are no others.

  Args:
    config: Reads `resolutions` and `widths`.
    images: One for each of `config.resolutions`, or the largest alone.
  """
  if len(images) == 1 or len(config.widths) == 1:
    return images
  places = {resolution: place for place, resolution in enumerate(branches(config.resolutions))}
  return tuple(images[places[at_width(resolution, 1.0)]] for resolution in at_widths(config))


def alike_note(config: ConfigDict) -> str | None:
  """Returns a line for the user where several branches of one size see the same images; else None.

  Args:
    config: Reads `resolutions`, `data.flip` and `data.crops`.
  """
  sizes, data = tuple(config.resolutions), config.data
  if len(set(sizes)) == len(sizes) or data.flip == 'independent' or data.crops == 'different':
    return None
  return (
    f'config.resolutions: got {sizes} with data.flip={data.flip!r} and data.crops={data.crops!r}: branches of one size '
    "see the same images, and stay alike where they start alike (data.flip='independent' tells them apart)"
  )


def per_example_keys(key: Array, index: Array) -> Array:
  """Returns a key for each example, drawn from its number: no result depends on how a batch is split over devices.

  Args:
    key: The step's typed PRNG key.
    index: int `[B]`, the examples' numbers in their source.
  """
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def draw_flips(key: Array, index: Array, resolutions: Sequence[Resolution], kind: str) -> Array | None:
  """Returns bool `[R, B]`, each true with probability one half, or None for kind 'none'.

  Args:
    key: The step's typed PRNG key.
    index: int `[B]`, the examples' numbers in their source.
    resolutions: Highest first.
    kind: 'shared' draws once per image; 'independent' once per image and resolution, as RS-Net's code does.

  Raises:
    ValueError: There is no such kind.
  """
  if kind not in FLIPS:
    raise ValueError(f'kind: got {kind!r}, expected one of {", ".join(FLIPS)}')
  if kind == 'none':
    return None
  draws = 1 if kind == 'shared' else len(resolutions)
  keys = per_example_keys(key, index)
  flips = jax.vmap(lambda k: jax.random.bernoulli(k, shape=(draws,)))(keys).T
  return jnp.broadcast_to(flips, (len(resolutions), index.shape[0]))
