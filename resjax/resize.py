"""Resizing on the device: antialiased bilinear exactly as PIL's, as two small matrix products.

PIL stretches the triangle filter by the ratio of the sizes when it makes an image smaller, takes
half-pixel centres and normalises the weights at the borders. The weights depend on the sizes
alone, so they are made in numpy while JAX traces and become constants of the compiled program.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from resjax.resolution import Resolution, sides

__all__ = ['pyramid', 'resize']


def _weights(old: int, new: int) -> np.ndarray:
  """The matrix [new, old] that resizes one axis: each row a triangle that sums to 1."""
  ratio = old / new
  centres = (np.arange(new) + 0.5) * ratio
  pixels = np.arange(old) + 0.5
  distance = np.abs(pixels - centres[:, None]) / max(ratio, 1.0)
  triangle = np.maximum(1.0 - distance, 0.0)
  return (triangle / triangle.sum(axis=1, keepdims=True)).astype(np.float32)


def resize(images: jax.Array, size: Resolution) -> jax.Array:
  """Resizes images as PIL's `Image.resize(..., BILINEAR)` does, without its rounding.

  Every image is resized by itself, so the result for one does not depend on its batch. On 0..255
  values the result lies within one grey level of PIL's, which rounds to integers after each axis.

  Args:
    images: `[B, H, W, C]`, uint8 or floating.
    size: The new size in pixels: one number for a square, or (height, width).

  Returns:
    float32 `[B, height, width, C]` on the scale of the input; images of that size already are
    passed through.

  Raises:
    ValueError: `images` has not four axes, or the size is not one or two positive integers.
  """
  height, width = sides(size, 'size')
  if images.ndim != 4:
    raise ValueError(f'images: shape {images.shape}, expected [batch, height, width, channels]')
  images = jnp.asarray(images, jnp.float32)
  if images.shape[1:3] == (height, width):
    return images
  rows, columns = _weights(images.shape[1], height), _weights(images.shape[2], width)
  exact = jax.lax.Precision.HIGHEST  # accelerators round the factors of a product otherwise
  return jnp.einsum('hH,bHWc,wW->bhwc', rows, images, columns, precision=exact)


def pyramid(images: jax.Array, resolutions: Sequence[Resolution]) -> tuple[jax.Array, ...]:
  """Makes every resolution of a batch from one size of it.

  Args:
    images: `[B, H, W, C]`, uint8 or floating: as a rule the largest crop.
    resolutions: Sizes of the results in pixels, as in `resize`.

  Returns:
    One float32 `[B, height, width, C]` for each resolution, in the order given, each resized from `images`
    itself; a resolution of the input's size is the input, unresized.
  """
  return tuple(resize(images, resolution) for resolution in resolutions)
