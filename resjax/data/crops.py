"""Which part of an image is seen, and at which sizes: the reference's crops, resized by PIL."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from resjax.data import augment
from resjax.data.decode import BadImage, Picture
from resjax.preprocess import Preprocessing
from resjax.resolution import Resolution, sides

__all__ = ['Region', 'centre_crops', 'evaluation_crops', 'random_region', 'train_crops']

# A JPEG is shrunk while it is decoded only where this much is left for the antialiased resize. On real
# photographs the result then lies within 0.5 grey levels of the full decode's in the mean (of the worst
# image 1.3): less than what resizing in two steps, as the device's pyramid does, changes.
_LEFT = 1.5


Box = tuple[float, float, float, float]  # left, top, right, bottom, pixels


class Region(NamedTuple):
  """A part of an image, in pixels."""

  top: int
  left: int
  height: int
  width: int


def random_region(
  rng: np.random.Generator,
  height: int,
  width: int,
  area: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Region:
  """Draws the region of Inception's training crop, by the rule of torchvision's RandomResizedCrop.

  Args:
    rng: Where the numbers come from.
    height: Of the image in pixels.
    width: Of the image in pixels.
    area: Lowest and highest fraction of the image's area, uniform.
    ratio: Lowest and highest width / height, log-uniform.

  Returns:
    The first of ten draws that fits into the image; else the largest centred part whose aspect
    ratio is allowed.
  """
  low, high = math.log(ratio[0]), math.log(ratio[1])
  for _ in range(10):
    pixels = height * width * rng.uniform(*area)
    aspect = math.exp(rng.uniform(low, high))
    w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
    if 0 < w <= width and 0 < h <= height:
      return Region(int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w)
  w = min(width, max(1, round(height * ratio[1])))
  h = min(height, max(1, round(width / ratio[0])))
  return Region((height - h) // 2, (width - w) // 2, h, w)


def train_crops(
  image: bytes | np.ndarray,
  sizes: Sequence[int],
  rng: np.random.Generator | None,
  *,
  crop: str = 'random_resized',
  crops: str = 'same',
  area: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
  max_pixels: int = 2**26,
  may_shrink: bool = False,
  operations: Callable[[np.random.Generator], Sequence[augment.Drawn]] | None = None,
) -> tuple[np.ndarray, ...]:
  """Makes the training crops: regions cut out of the full image, resized antialiased bilinear.

  Args:
    image: An encoded file, or pixels `[H, W, 3]`.
    sizes: Of the square results, in pixels.
    rng: Where the numbers come from; None where nothing is drawn: with crop 'full', and no `operations`.
    crop: 'random_resized' (see `random_region`) or 'full': the whole image.
    crops: 'same': one region for all sizes; 'different': one for each.
    area: Lowest and highest fraction of the image's area.
    ratio: Lowest and highest width / height.
    max_pixels: Larger images are refused.
    may_shrink: Whether a JPEG may be decoded 2, 4 or 8 times smaller where its regions are far
      larger than their results.
    operations: Draws what is done to the results, the same for all sizes; None: nothing.

  Returns:
    One uint8 `[r, r, 3]` for each size.

  Raises:
    BadImage: The image can't be decoded, or is refused.
  """
  picture = Picture(image, max_pixels)
  height, width = picture.height, picture.width
  regions = [Region(0, 0, height, width)] * len(sizes)
  if crop == 'random_resized':
    draws = 1 if crops == 'same' else len(sizes)
    assert rng is not None  # random crops draw
    regions = [random_region(rng, height, width, area, ratio) for _ in range(draws)]
    regions *= len(sizes) // draws
  spare = min(min(region[2:]) / size for region, size in zip(regions, sizes)) / _LEFT
  shrink = next((s for s in (8, 4, 2) if may_shrink and spare >= s), 1)
  pixels = picture.pixels(shrink)
  shrink = round(height / pixels.shape[0])  # 1 where the image could not be shrunk
  resizers = {region: _resizer(*_cut(pixels, region, shrink)) for region in set(regions)}
  results = tuple(resizers[region](size, size) for region, size in zip(regions, sizes))
  if operations is None:
    return results
  assert rng is not None
  drawn = operations(rng)
  return tuple(augment.apply(result, drawn) for result in results)


def centre_crops(
  image: bytes | np.ndarray,
  sizes: Sequence[Resolution],
  crop_fraction: float,
  max_pixels: int,
  interpolation: str = 'bilinear',
) -> tuple[np.ndarray, ...]:
  """Makes the evaluation crops: the image just covers int(size / crop_fraction) both ways, then its centre.

  For squares, resize and crop are torchvision's `Resize` and `CenterCrop`, rounding included.

  Args:
    image: An encoded file, or pixels `[H, W, 3]`.
    sizes: Of the results in pixels, of a square, or (height, width); each is made from the full image.
    crop_fraction: The result's share of the resized image's side that just covers, above 0, at most 1.
    max_pixels: Larger images are refused, and so are images so long that resizing makes them
      larger than this.
    interpolation: 'bilinear' or 'bicubic', antialiased.

  Returns:
    One uint8 `[height, width, 3]` for each size.

  Raises:
    BadImage: The image can't be decoded, or is refused.
  """
  picture = Picture(image, max_pixels)
  height, width = picture.height, picture.width
  wanted = [sides(size, 'size') for size in sizes]
  shapes = []
  for rows, columns in wanted:
    h, w = int(rows / crop_fraction), int(columns / crop_fraction)
    h, w = (h, int(h * width / height)) if h * width >= w * height else (int(w * height / width), w)
    if h * w > max_pixels:
      raise BadImage(
        f'{width} x {height} pixels: too long, {w} x {h} when resized, more than max_pixels = {max_pixels} '
        '(config.data.max_pixels, --max-pixels)'
      )
    shapes.append((h, w))
  resize = _resizer(picture.pixels(), interpolation=interpolation)
  results = []
  for (rows, columns), (h, w) in zip(wanted, shapes):
    top, left = round((h - rows) / 2), round((w - columns) / 2)
    results.append(resize(h, w)[top : top + rows, left : left + columns])
  return tuple(results)


def evaluation_crops(
  preprocessing: Preprocessing, sizes: Sequence[Resolution]
) -> Callable[..., tuple[np.ndarray, ...]]:
  """Returns `centre_crops` with all but the image given: how images are cropped where a network is not trained.

  Args:
    preprocessing: Reads all but `normalize`.
    sizes: Of the results, see `centre_crops`.
  """
  return functools.partial(
    centre_crops,
    sizes=sizes,
    crop_fraction=preprocessing.crop_fraction,
    max_pixels=preprocessing.max_pixels,
    interpolation=preprocessing.interpolation,
  )


def _cut(pixels: np.ndarray, region: Region, shrink: int) -> tuple[np.ndarray, Box | None]:
  """The part of a `shrink` times smaller image that holds a region, and the region's box in it."""
  top, left = region.top // shrink, region.left // shrink
  bottom = -(-(region.top + region.height) // shrink)
  right = -(-(region.left + region.width) // shrink)
  part = pixels[top:bottom, left:right]
  if shrink == 1:
    return part, None
  x, y = region.left / shrink - left, region.top / shrink - top
  return part, (x, y, x + region.width / shrink, y + region.height / shrink)


def _resizer(
  pixels: np.ndarray, box: Box | None = None, interpolation: str = 'bilinear'
) -> Callable[[int, int], np.ndarray]:
  """Returns a function that makes `[height, width, 3]` of pixels or a box in them, as PIL does."""
  picture = functools.cache(lambda: Image.fromarray(pixels))
  by = Image.Resampling[interpolation.upper()]

  def resize(height: int, width: int) -> np.ndarray:
    if pixels.shape[:2] == (height, width) and box is None:
      return pixels
    return np.asarray(picture().resize((width, height), by, box))

  return resize
