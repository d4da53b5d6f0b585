"""scaled_digits: real handwriting whose size says which input resolution it needs.

The 1,797 handwritten digits that scikit-learn ships (8 x 8 pixels, 17 grey levels) are drawn 8, 16
or 28 pixels high at random places of a 32 pixel canvas, over gradients, noise and pieces of other
digits. A digit can be read where it still spans about 8 pixels of the network's input, so its
size decides the smallest sufficient resolution; that one is stored with every image.

No handwriting is in two splits. The images are a function of the split and the count alone, not
of a run's seed, and are made in memory in about a second.
"""

import numpy as np

__all__ = ['CANVAS', 'NEEDED', 'SPLITS', 'ScaledDigits']

CANVAS = 32  # pixels, both ways
NEEDED = {8: 32, 16: 16, 28: 8}  # height of the digit in pixels: resolution it needs
SPLITS = {'train': 12_000, 'calibration': 10_000, 'test': 10_000}  # images by default

_SEED = 1797
_SHARES = {'train': (0, 1, 2, 3), 'calibration': (4,), 'test': (5,)}  # of six
_PIECES = 3  # of other digits, in each image
_CHUNK = 250  # images made at once: they stay in the processor's cache


class ScaledDigits:
  """Digits of three sizes over clutter, in memory.

  Attributes:
    images: uint8 `[N, 32, 32, 3]`.
    labels: int32 `[N]`, the digit.
    digit_size: int32 `[N]`, its height in pixels: 8, 16 or 28, a third of the images each.
    needed: int32 `[N]`, the smallest of 32, 16 and 8 at which it spans about 8 pixels.
    handwriting: int32 `[N]`, the number of the drawn digit in scikit-learn's set.
    num_classes: 10.
    class_names: '0' to '9'.
  """

  num_classes = 10
  class_names = tuple('0123456789')

  def __init__(self, split: str, size: int = 0):
    """Makes a split.

    Args:
      split: 'train', 'calibration' or 'test'.
      size: How many images; 0 for the split's default.

    Raises:
      ValueError: There is no such split.
    """
    if split not in SPLITS:
      raise ValueError(f'scaled_digits: split {split!r}, expected one of {", ".join(SPLITS)}')
    from sklearn.datasets import load_digits  # a second of imports that no other source needs

    ink, labels = load_digits(return_X_y=True)
    ink = (ink / 16).astype(np.float32).reshape(-1, 8, 8)
    # Dealt out in turns, class after class: every split has as many of each digit.
    order = np.random.default_rng(_SEED).permutation(len(ink))
    order = order[np.argsort(labels[order], kind='stable')]
    writings = order[np.isin(np.arange(len(ink)) % 6, _SHARES[split])]
    rng = np.random.default_rng([_SEED, list(SPLITS).index(split)])
    size = size or SPLITS[split]
    self.split = split
    self.handwriting = np.resize(rng.permutation(writings), size).astype(np.int32)
    self.labels = labels[self.handwriting].astype(np.int32)
    self.digit_size = rng.permutation(np.resize(list(NEEDED), size)).astype(np.int32)
    self.needed = np.select([self.digit_size == height for height in NEEDED], list(NEEDED.values())).astype(np.int32)
    images = [
      _draw(rng, ink, writings, self.handwriting[i : i + _CHUNK], self.digit_size[i : i + _CHUNK])
      for i in range(0, size, _CHUNK)
    ]
    self.images = np.ascontiguousarray(np.concatenate(images))

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, index: int) -> dict:
    return {'image': self.images[index], 'label': int(self.labels[index])}

  def name_of(self, index: int) -> str:
    """Returns what messages call an example."""
    return f'scaled_digits/{self.split} {index}'

  def entries(self) -> tuple[str]:
    """Returns what they are made by."""
    return (f'scaled_digits/{self.split}, {len(self)} images',)


def _stamp(ink: np.ndarray, height: np.ndarray, width: np.ndarray, top: np.ndarray, left: np.ndarray) -> np.ndarray:
  """Draws ink `[n, 8, 8]` at a size and place of each canvas: `[n, 32, 32]`, bilinear."""

  def weights(extent: np.ndarray, start: np.ndarray) -> np.ndarray:
    """`[n, 32, 8]`: what each of the 8 pixels gives to each of the canvas."""
    source = (np.arange(CANVAS) + 0.5 - start[:, None]) * (8 / extent[:, None]) - 0.5
    return np.maximum(1 - np.abs(source[..., None] - np.arange(8)), 0).astype(np.float32)

  return weights(height, top) @ ink @ weights(width, left).swapaxes(1, 2)


def _paint(canvas: np.ndarray, coverage: np.ndarray, colour: np.ndarray) -> np.ndarray:
  """Lays a colour `[n, 3]` over canvases `[n, 3, 32, 32]` where `coverage` says."""
  return canvas + coverage[:, None] * (colour[..., None, None] - canvas)


def _colours(rng: np.random.Generator, n: int, low: float, high: float) -> np.ndarray:
  """Colours `[n, 3]` of a random brightness and a slight tint."""
  colours = rng.uniform(low, high, (n, 1)) + rng.uniform(-0.1, 0.1, (n, 3))
  return colours.astype(np.float32)


def _draw(
  rng: np.random.Generator,
  ink: np.ndarray,
  writings: np.ndarray,
  handwriting: np.ndarray,
  heights: np.ndarray,
) -> np.ndarray:
  """Images uint8 `[n, 32, 32, 3]`: a background, pieces of the split's digits, the digit on top."""
  n = len(handwriting)
  # A plane of brightness in a random direction, tinted.
  slope = rng.uniform(-0.15, 0.15, (2, n, 1, 1))
  steps = np.linspace(-1, 1, CANVAS)
  plane = slope[0] * steps[:, None] + slope[1] * steps
  canvas = _colours(rng, n, 0.1, 0.35)[..., None, None] + plane[:, None].astype(np.float32)
  for _ in range(_PIECES):
    # A window of 12 of a digit's 64 pixels: strokes, but nothing to be read.
    row, column = rng.integers(0, 5, (2, n))
    tall = rng.random(n) < 0.5
    grid = np.arange(8)
    rows = (grid >= row[:, None]) & (grid < (row + np.where(tall, 4, 3))[:, None])
    columns = (grid >= column[:, None]) & (grid < (column + np.where(tall, 3, 4))[:, None])
    window = ink[rng.choice(writings, n)] * rows[:, :, None] * columns[:, None]
    extent = rng.uniform(8, 28, n)
    top, left = rng.uniform(-0.5, 1, (2, n)) * (CANVAS - extent / 2)
    canvas = _paint(canvas, _stamp(window, extent, extent, top, left), _colours(rng, n, 0.35, 0.6))
  top, left = rng.integers(0, CANVAS - heights + 1, (2, n))
  digit = _stamp(ink[handwriting], heights, heights, top, left)
  canvas = _paint(canvas, digit, _colours(rng, n, 0.75, 0.95))
  canvas += 0.04 * rng.standard_normal(canvas.shape, np.float32)
  return np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
