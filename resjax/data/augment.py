"""TrivialAugment and RandAugment: operations on a crop, by PIL, drawn once for an image and applied at any size.

Müller and Hutter, "TrivialAugment", ICCV 2021 (its wide space); Cubuk et al., "RandAugment", NeurIPS 2020. Shifts are
shares of the side, so that an operation does the same at every resolution.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

__all__ = ['OPERATIONS', 'Drawn', 'apply', 'draw']

STRENGTHS = 30  # the strongest, as in both papers

_GREY = (128, 128, 128)  # outside the image, as in the papers' code


class Drawn(NamedTuple):
  """An operation and its argument, in the operation's unit."""

  name: str
  value: float


class Operation(NamedTuple):
  """What can be done to an image, and how strongly."""

  run: Callable[[Image.Image, float], Image.Image]
  trivialaugment: float = 0.0  # the strongest argument of each kind
  randaugment: float = 0.0
  signed: bool = False  # drawn in both directions


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
  """The image at other places: the pixel (x, y) is that of (a x + b y + c, d x + e y + f)."""
  how = Image.Transform.AFFINE
  return image.transform(image.size, how, matrix, Image.Resampling.BILINEAR, fillcolor=_GREY)


OPERATIONS: dict[str, Operation] = {
  'identity': Operation(lambda image, v: image),
  'shear_x': Operation(lambda image, v: _affine(image, (1, v, 0, 0, 1, 0)), 0.99, 0.3, True),
  'shear_y': Operation(lambda image, v: _affine(image, (1, 0, 0, v, 1, 0)), 0.99, 0.3, True),
  # Shares of the side: 32 of 224 px, and 150 of 331.
  'shift_x': Operation(lambda image, v: _affine(image, (1, 0, v * image.width, 0, 1, 0)), 32 / 224, 150 / 331, True),
  'shift_y': Operation(lambda image, v: _affine(image, (1, 0, 0, 0, 1, v * image.height)), 32 / 224, 150 / 331, True),
  'rotate': Operation(
    lambda image, v: image.rotate(v, Image.Resampling.BILINEAR, fillcolor=_GREY), 135.0, 30.0, True
  ),  # degrees
  'brightness': Operation(lambda image, v: ImageEnhance.Brightness(image).enhance(1 + v), 0.99, 0.9, True),
  'colour': Operation(lambda image, v: ImageEnhance.Color(image).enhance(1 + v), 0.99, 0.9, True),
  'contrast': Operation(lambda image, v: ImageEnhance.Contrast(image).enhance(1 + v), 0.99, 0.9, True),
  'sharpness': Operation(lambda image, v: ImageEnhance.Sharpness(image).enhance(1 + v), 0.99, 0.9, True),
  'posterize': Operation(lambda image, v: ImageOps.posterize(image, 8 - round(v)), 6.0, 4.0),  # bits that are lost
  'solarize': Operation(lambda image, v: ImageOps.solarize(image, 256 - round(v)), 256.0, 256.0),  # grey levels
  'autocontrast': Operation(lambda image, v: ImageOps.autocontrast(image)),
  'equalize': Operation(lambda image, v: ImageOps.equalize(image)),
}
_NAMES = tuple(OPERATIONS)


def draw(rng: np.random.Generator, kind: str, count: int, strength: float) -> tuple[Drawn, ...]:
  """Draws what is done to an image.

  Args:
    rng: Where the numbers come from.
    kind: 'trivialaugment': one operation, of a strength of 0 to 30 that is drawn too. 'randaugment': `count`
      operations, drawn with replacement, of the given strength.
    count: Operations of 'randaugment'.
    strength: Of 'randaugment', 0 to 30.
  """
  drawn = []
  for _ in range(1 if kind == 'trivialaugment' else count):
    name = _NAMES[int(rng.integers(len(_NAMES)))]
    operation = OPERATIONS[name]
    level = (int(rng.integers(STRENGTHS + 1)) if kind == 'trivialaugment' else strength) / STRENGTHS
    value = level * (operation.trivialaugment if kind == 'trivialaugment' else operation.randaugment)
    back = bool(rng.integers(2)) and operation.signed
    drawn.append(Drawn(name, -value if back else value))
  return tuple(drawn)


def apply(crop: np.ndarray, drawn: Sequence[Drawn]) -> np.ndarray:
  """Returns a crop uint8 `[H, W, 3]` after operations, one after the other."""
  image = Image.fromarray(crop)
  for name, value in drawn:
    image = OPERATIONS[name].run(image, value)
  return np.asarray(image)
