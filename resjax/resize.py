"""Resizing on the device: antialiased bilinear or bicubic exactly as PIL's, as two small matrix products.

PIL stretches the filter by the ratio of the sizes when it makes an image smaller, takes
half-pixel centres and normalises the weights at the borders. The weights depend on the sizes
alone, so they are made in numpy while JAX traces and become constants of the compiled program.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from resjax import shapes
from resjax.resolution import Resolution, several, sides

__all__ = ['KERNELS', 'pyramid', 'resize']


def _triangle(x: np.ndarray) -> np.ndarray:
  """The weight of a pixel at a distance of x >= 0 pixels, linear."""
  return np.maximum(1.0 - x, 0.0)


def _cubic(x: np.ndarray) -> np.ndarray:
  """The same, cubic: Keys' kernel with a = -1/2, as PIL's."""
  near, far = (1.5 * x - 2.5) * x * x + 1.0, ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
  return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


# By the interpolation's name.
KERNELS = {'bilinear': _triangle, 'bicubic': _cubic}


def _weights(old: int, new: int, interpolation: str) -> np.ndarray:
  """The matrix [new, old] that resizes one axis: each row a kernel that sums to 1."""
  ratio = old / new
  centres = (np.arange(new) + 0.5) * ratio
  pixels = np.arange(old) + 0.5
  distance = np.abs(pixels - centres[:, None]) / max(ratio, 1.0)
  weights = KERNELS[interpolation](distance)
  return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def check_interpolation(interpolation: str) -> None:
  """Raises ValueError unless this is a key of `KERNELS`."""
  if interpolation not in KERNELS:
    raise ValueError(f'interpolation: got {interpolation!r}, expected one of {", ".join(KERNELS)}')


def resize(images: jax.Array | np.ndarray, size: Resolution, interpolation: str = 'bilinear') -> jax.Array:
  """Resizes images as PIL's `Image.resize` does, without its rounding.

  Every image is resized by itself, so the result for one does not depend on its batch. On 0..255
  values the result lies within one grey level of PIL's, which rounds to integers after each axis.

  Args:
    images: `[B, H, W, C]`, uint8 or floating.
    size: The new size in pixels: one number for a square, or (height, width).
    interpolation: A key of `KERNELS`. Cubic weights overshoot at edges; like PIL, uint8 images are kept within 0..255
      after each axis, the width first (PIL 13 takes the height first where far more of that is lost).

  Returns:
    float32 `[B, height, width, C]` on the scale of the input; images of that size already are
    passed through.

  Raises:
    ValueError: `images` has not four axes or no pixels, the size is not one or two positive integers, or there is no
      such interpolation.
  """
  height, width = sides(size, 'size')
  check_interpolation(interpolation)
  shapes.check('images', images, ('B', 'H', 'W', 'C'))
  if not all(images.shape[1:3]):
    raise ValueError(f'images: got {images.shape}, expected pixels to resize')
  pixels = images.dtype == jnp.uint8
  images = jnp.asarray(images, jnp.float32)
  if images.shape[1:3] == (height, width):
    return images
  rows, columns = (
    _weights(old, new, interpolation) for old, new in zip(images.shape[1:3], (height, width), strict=True)
  )
  exact = jax.lax.Precision.HIGHEST  # accelerators round the factors of a product otherwise
  if not (pixels and interpolation == 'bicubic'):
    return jnp.einsum('hH,bHWc,wW->bhwc', rows, images, columns, precision=exact)
  narrowed = jnp.clip(jnp.einsum('bHWc,wW->bHwc', images, columns, precision=exact), 0.0, 255.0)
  return jnp.clip(jnp.einsum('hH,bHwc->bhwc', rows, narrowed, precision=exact), 0.0, 255.0)


def pyramid(
  images: jax.Array | np.ndarray, resolutions: Sequence[Resolution], interpolation: str = 'bilinear'
) -> tuple[jax.Array, ...]:
  """Makes every resolution of a batch from one size of it.

  Args:
    images: `[B, H, W, C]`, uint8 or floating: as a rule the largest crop.
    resolutions: Sizes of the results in pixels, as in `resize`.
    interpolation: As in `resize`.

  Returns:
    One float32 `[B, height, width, C]` for each resolution, in the order given, each resized from `images`
    itself; a resolution of the input's size is the input, unresized.

  Raises:
    ValueError: As of `resize`, or `resolutions` is a single number.
  """
  return tuple(resize(images, resolution, interpolation) for resolution in several(resolutions))
