"""What a resolution is: the side of a square in pixels, or (height, width). Here it is checked, named and read."""

import itertools
import numbers
from collections.abc import Iterable, Sequence

from resjax.telling import shown

Resolution = int | tuple[int, int]

MOST = 16_384  # pixels of a side; one such crop takes 0.8 GB


def sides(resolution: Resolution, field: str = 'resolution') -> tuple[int, int]:
  """Returns height and width in pixels.

  Args:
    resolution: Of a square, or (height, width); NumPy's integers are taken too.
    field: What the error calls it.

  Raises:
    ValueError: It is not a positive integer, nor two of them, or more than `MOST`.
  """
  pair = tuple(resolution) if isinstance(resolution, tuple | list) else (resolution, resolution)
  if len(pair) != 2 or not all(isinstance(s, numbers.Integral) and not isinstance(s, bool) and s > 0 for s in pair):
    raise ValueError(f'{field}: got {shown(resolution)}, expected a positive integer or (height, width)')
  if max(pair) > MOST:
    raise ValueError(f'{field}: got {shown(resolution)}, expected at most {MOST} pixels')
  return int(pair[0]), int(pair[1])


def several(resolutions: Iterable[Resolution], field: str = 'resolutions') -> tuple[Resolution, ...]:
  """Returns resolutions as a tuple.

  Args:
    resolutions: One or more.
    field: What the error calls them.

  Raises:
    ValueError: They are a single one, none, or not what `sides` takes.
  """
  if isinstance(resolutions, str | numbers.Number) or not isinstance(resolutions, Iterable):
    raise ValueError(f'{field}: got {resolutions!r}, expected one or more, such as (224, 160)')
  found = tuple(resolutions)
  for resolution in found:
    sides(resolution, field)
  return found


def square(resolution: Resolution) -> Resolution:
  """Returns the same resolution, as one number where both sides are equal; ValueError as `sides`."""
  height, width = sides(resolution)
  return height if height == width else (height, width)


def check_order(resolutions: Sequence[Resolution]) -> None:
  """Raises ValueError unless there are resolutions, and each has more pixels than the next."""
  areas = [height * width for height, width in map(sides, resolutions)]
  if not areas or any(high <= low for high, low in itertools.pairwise(areas)):
    raise ValueError(f'resolutions: got {tuple(resolutions)}, expected one or more, the highest first')


def name(resolution: Resolution) -> str:
  """Returns '160' for a square, '128x192' for height x width; ValueError as `sides`."""
  height, width = sides(resolution)
  return str(height) if height == width else f'{height}x{width}'


def parse(text: str) -> Resolution:
  """Returns the resolution that `160` or `128x192` (height x width) names.

  Raises:
    ValueError: The text is neither, or means more than `MOST`.
  """
  read = [int(side[:9]) if side.isdecimal() else 0 for side in text.split('x')]
  if not 1 <= len(read) <= 2 or min(read) < 1:
    raise ValueError(f'got {shown(text)}, expected pixels such as 160, or 128x192')
  if max(read) > MOST:
    raise ValueError(f'got {shown(text)}, expected at most {MOST} pixels')
  return square((read[0], read[-1]))
