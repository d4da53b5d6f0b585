"""From the uint8 crops of a batch to the network's inputs, on the device: other sizes, flips, normalisation."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from resjax import resize
from resjax.resolution import Resolution

# Mean and standard deviation per channel, of values in [0, 1].
NORMALIZATIONS = {
  'imagenet': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
  'unit': ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
  'signed': ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
FLIPS = ('none', 'shared', 'independent')


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """What happens to an image between its file and the network, where it is not trained.

  Attributes:
    normalize: A key of `NORMALIZATIONS`.
    interpolation: Of resizing, antialiased: a key of `resize.KERNELS`.
    crop_fraction: The crop's share of the resized image's shorter side, above 0, at most 1.
    max_pixels: Larger images are refused before they are decoded.
  """

  normalize: str = 'imagenet'
  interpolation: str = 'bilinear'
  crop_fraction: float = 0.875
  max_pixels: int = 50_000_000

  @classmethod
  def of_config(cls, config: ConfigDict) -> 'Preprocessing':
    """Returns how a run's evaluation prepares images; reads data.normalize, data.max_pixels and eval.crop_fraction."""
    data = config.data
    return cls(normalize=data.normalize, crop_fraction=config.eval.crop_fraction, max_pixels=data.max_pixels)

  def __post_init__(self) -> None:
    """Raises ValueError, naming the field, where a value is none of those described."""
    if self.normalize not in NORMALIZATIONS:
      raise ValueError(f'normalize: got {self.normalize!r}, expected one of {", ".join(NORMALIZATIONS)}')
    if self.interpolation not in resize.KERNELS:
      raise ValueError(f'interpolation: got {self.interpolation!r}, expected one of {", ".join(resize.KERNELS)}')
    if not 0 < self.crop_fraction <= 1:
      raise ValueError(f'crop_fraction: got {self.crop_fraction!r}, expected more than 0, at most 1')
    if not self.max_pixels > 0:
      raise ValueError(f'max_pixels: got {self.max_pixels!r}, expected more than 0')


def prepare(
  images: Sequence[Array | np.ndarray],
  resolutions: Sequence[Resolution],
  normalize: str,
  flips: Array | None = None,
  interpolation: str = 'bilinear',
) -> tuple[Array, ...]:
  """Returns the network's inputs, float32 `[B, r, r, 3]` for every resolution, or `[B, height, width, 3]`.

  Args:
    images: uint8 `[B, r, r, 3]`, one per resolution in their order, or the largest alone.
    resolutions: In pixels, of squares, or (height, width); highest first.
    normalize: A key of `NORMALIZATIONS`.
    flips: bool `[R, B]`: which images to mirror left to right. None: none.
    interpolation: A key of `resize.KERNELS`, for sizes made from the largest.
  """
  mean, std = (255.0 * jnp.array(v).reshape(1, 1, 1, -1) for v in NORMALIZATIONS[normalize])
  if len(images) == 1:
    images = resize.pyramid(images[0], resolutions, interpolation)
  inputs = []
  for i, image in enumerate(images):
    sized = jnp.asarray(image, jnp.float32)
    if flips is not None:
      sized = jnp.where(flips[i][:, None, None, None], sized[:, :, ::-1], sized)
    inputs.append((sized - mean) / std)
  return tuple(inputs)


def per_example_keys(key: Array, index: Array) -> Array:
  """Returns a key for each example, drawn from its number: no result depends on how a batch is split over devices.

  Args:
    key: The step's typed PRNG key.
    index: int `[B]`, the examples' numbers in their source.
  """
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def draw_flips(key: Array, index: Array, resolutions: Sequence[int], kind: str) -> Array | None:
  """Returns bool `[R, B]`, each true with probability one half, or None for kind 'none'.

  Args:
    key: The step's typed PRNG key.
    index: int `[B]`, the examples' numbers in their source.
    resolutions: Highest first.
    kind: 'shared' draws once per image; 'independent' once per image and resolution, as RS-Net's code does.
  """
  if kind == 'none':
    return None
  draws = 1 if kind == 'shared' else len(resolutions)
  keys = per_example_keys(key, index)
  flips = jax.vmap(lambda k: jax.random.bernoulli(k, shape=(draws,)))(keys).T
  return jnp.broadcast_to(flips, (len(resolutions), index.shape[0]))
