"""What a resolution is: the side of a square in pixels, or (height, width). Here it is checked, named and read.

Where several branches of a network have one size, as in an ensemble of them, the first is called by the size alone,
and the others are a `Branch`, which stands wherever a resolution does.
"""

import dataclasses
import itertools
import numbers
import re
from collections.abc import Iterable, Sequence

from resjax.telling import shown

Size = int | tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Branch:
  """A second, third, ... branch of one size.

  Attributes:
    size: In pixels, of a square, or (height, width).
    number: 2 or more.
  """

  size: Size
  number: int

  def __str__(self) -> str:
    """Its name: '224_2'."""
    return name(self)


Resolution = Size | Branch

MOST = 16_384  # pixels of a side; one such crop takes 0.8 GB


def sides(resolution: Resolution, field: str = 'resolution') -> tuple[int, int]:
  """Returns height and width in pixels.

  Args:
    resolution: Of a square, or (height, width); NumPy's integers are taken too.
    field: What the error calls it.

  Raises:
    ValueError: It is not a positive integer, nor two of them, or more than `MOST`.
  """
  if isinstance(resolution, Branch):
    resolution = resolution.size
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
  size = _size(*sides(resolution))
  return Branch(size, resolution.number) if isinstance(resolution, Branch) else size


def _size(height: int, width: int) -> Size:
  """One number where both sides are equal."""
  return height if height == width else (height, width)


def branches(resolutions: Iterable[Resolution]) -> tuple[Resolution, ...]:
  """Returns resolutions of which some may be the same as branches that have names of their own: 224, 224_2, 224_3."""
  found: list[Resolution] = []
  for resolution in resolutions:
    number = 1 + sum(not isinstance(resolution, Branch) and sides(resolution) == sides(other) for other in found)
    found.append(resolution if number == 1 or isinstance(resolution, Branch) else Branch(resolution, number))
  return tuple(found)


def check_order(resolutions: Sequence[Resolution]) -> None:
  """Raises ValueError unless there are resolutions, and each has more pixels than the next, or is its next branch."""
  if not resolutions or any(not _falls(high, low) for high, low in itertools.pairwise(resolutions)):
    raise ValueError(f'resolutions: got {tuple(resolutions)}, expected one or more, the highest first')


def check_distinct(resolutions: Sequence[Resolution]) -> None:
  """Raises ValueError where several are branches of one size: between such there is nothing to choose."""
  if len({sides(resolution) for resolution in resolutions}) != len(resolutions):
    named = ', '.join(map(name, resolutions))
    raise ValueError(f'resolutions: got {named}, branches of one size, expected distinct sizes, or one of these alone')


def _falls(high: Resolution, low: Resolution) -> bool:
  """Whether one resolution may stand before another."""
  (height, width), (lower, narrower) = sides(high), sides(low)
  if (height, width) == (lower, narrower) and isinstance(low, Branch):
    return low.number > (high.number if isinstance(high, Branch) else 1)
  return height * width > lower * narrower


def name(resolution: Resolution) -> str:
  """Returns '160' for a square, '128x192' for height x width, '160_2' for a second branch; ValueError as `sides`."""
  if isinstance(resolution, Branch):
    return f'{name(resolution.size)}_{resolution.number}'
  height, width = sides(resolution)
  return str(height) if height == width else f'{height}x{width}'


def is_name(text: str) -> bool:
  """Whether a text is what `name` may return."""
  return re.fullmatch(r'[0-9]+(x[0-9]+)?(_[0-9]+)?', text) is not None


def parse(text: str) -> Resolution:
  """Returns the resolution that `160` or `128x192` (height x width) names; `160_2` is a second branch of that size.

  Raises:
    ValueError: The text is neither, or means more than `MOST`.
  """
  size, _, number = text.partition('_')
  which = int(number[:9]) if number.isdecimal() else 1
  read = [int(side[:9]) if side.isdecimal() else 0 for side in size.split('x')]
  if not 1 <= len(read) <= 2 or min(read) < 1 or (number and which < 2) or text.endswith('_'):
    raise ValueError(f'got {shown(text)}, expected pixels such as 160, or 128x192')
  if max(read) > MOST:
    raise ValueError(f'got {shown(text)}, expected at most {MOST} pixels')
  size_read = _size(read[0], read[-1])
  return Branch(size_read, which) if number else size_read
