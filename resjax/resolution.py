"""What a resolution is: the side of a square in pixels, or (height, width). Here it is checked, named and read.

Where several branches of a network have one size, as in an ensemble of them, or run with a share of its channels, the
first with all channels is called by the size alone, and the others are a `Branch`, which stands wherever a resolution
does.
"""

import dataclasses
import itertools
import numbers
import re
from collections.abc import Iterable, Sequence

from jax import Array
from ml_collections import ConfigDict

from resjax import shapes
from resjax.telling import shown

Size = int | tuple[int, int]


@dataclasses.dataclass(frozen=True, repr=False)
class Branch:
  """A second, third, ... branch of one size, or one with a share of the network's channels.

  Attributes:
    size: In pixels, of a square, or (height, width).
    number: 2 or more; 1 for the first, or the only one.
    width: The share of the channels, see `resjax.widths`.
  """

  size: Size
  number: int = 1
  width: float = 1.0

  def __post_init__(self) -> None:
    """Raises ValueError where the width is no share."""
    if not isinstance(self.width, float) or not 0.001 <= self.width <= 1:
      raise ValueError(f'width: got {shown(self.width)}, expected 0.001 to 1.0')

  def __str__(self) -> str:
    """Its name: '224_2', '224x0.5'."""
    return name(self)

  __repr__ = __str__  # in messages it stands among sizes: (224, 224x0.5)


Resolution = Size | Branch

_NAME = re.compile(r'(\d+)(?:x(\d+))?(?:x(0\.\d+))?(?:_(\d+))?')

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
  return dataclasses.replace(resolution, size=size) if isinstance(resolution, Branch) else size


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


def check_images(
  images: Sequence[Array], resolutions: Sequence[Resolution], mask: Sequence[Array] | Array | None
) -> None:
  """Raises ValueError unless images and masks pair up with resolutions, highest first.

  Args:
    images: `[B, H, W, C]` for each.
    resolutions: In the order of `images`.
    mask: `[B]` for each, or None.
  """
  resolutions = several(resolutions)
  for field, given in (('images', images), ('mask', mask)):
    if given is not None and len(given) != len(resolutions):
      wanted = f'one for each of the resolutions {resolutions}'
      raise ValueError(f'{field}: got {len(given)} sizes, expected {wanted}')
  check_order(resolutions)
  wanted_sizes = [sides(resolution) for resolution in resolutions]
  for i, image in enumerate(images):
    shapes.check(f'images[{i}]', image, ('B', 'H', 'W', 'C'))
  got = [image.shape[1:3] for image in images]
  if got != wanted_sizes:
    raise ValueError(f'images: got the sizes {got}, expected {wanted_sizes}, those of the resolutions')
  for i, image in enumerate(images):
    shapes.check(f'images[{i}]', image, (len(images[0]), 'H', 'W', 'C'), what='as many as at the highest resolution')
    if mask is not None:
      shapes.check(f'mask[{i}]', mask[i], (len(image),), what='one for each image')


def at_widths(config: ConfigDict) -> tuple[Resolution, ...]:
  """Returns the branches of a config: every resolution at each of its widths, the highest `rank` first.

  Args:
    config: Reads `resolutions` and `widths`.
  """
  found = branches(config.resolutions)
  each = (at_width(resolution, float(width)) for resolution in found for width in config.widths)
  return found if tuple(config.widths) == (1.0,) else tuple(sorted(each, key=rank, reverse=True))


def at_width(resolution: Resolution, width: float) -> Resolution:
  """Returns the same branch with another share of the channels."""
  branch = resolution if isinstance(resolution, Branch) else Branch(resolution)
  return branch.size if width == branch.number == 1 else dataclasses.replace(branch, width=width)


def width_of(resolution: Resolution) -> float:
  """Returns the share of the network's channels that are run, 1.0 where it is not said."""
  return resolution.width if isinstance(resolution, Branch) else 1.0


def rank(resolution: Resolution) -> tuple[float, int, int]:
  """Returns what branches are ordered by: pixels times the square of the width, about their cost; pixels; number."""
  height, width = sides(resolution)
  number = resolution.number if isinstance(resolution, Branch) else 1
  return height * width * width_of(resolution) ** 2, height * width, -number


def check_order(resolutions: Sequence[Resolution]) -> None:
  """Raises ValueError unless there are resolutions, and each is of a higher `rank` than the next."""
  ranks = [rank(resolution) for resolution in resolutions]
  if not ranks or any(high <= low for high, low in itertools.pairwise(ranks)):
    raise ValueError(f'resolutions: got {tuple(resolutions)}, expected one or more, the highest first')


def check_distinct(resolutions: Sequence[Resolution]) -> None:
  """Raises ValueError where several are branches of one size: between such there is nothing to choose."""
  if len({(sides(r), width_of(r)) for r in resolutions}) != len(resolutions):
    named = ', '.join(map(name, resolutions))
    raise ValueError(f'resolutions: got {named}, branches of one size, expected distinct sizes, or one of these alone')


def name(resolution: Resolution) -> str:
  """Returns '160' for a square, '128x192' for height x width, '160x0.5' at a width, '160_2' for a second branch.

  Raises:
    ValueError: As `sides`.
  """
  height, width = sides(resolution)
  size = str(height) if height == width else f'{height}x{width}'
  if not isinstance(resolution, Branch):
    return size
  share = f'x{resolution.width!r}' if resolution.width < 1 else ''
  return f'{size}{share}' + (f'_{resolution.number}' if resolution.number > 1 else '')


def plain(resolution: Resolution) -> Size | str:
  """Returns a resolution as JSON holds it: pixels, or both sides; a branch's name."""
  return name(resolution) if isinstance(resolution, Branch) else resolution


def is_name(text: str) -> bool:
  """Whether a text is what `name` may return."""
  return _NAME.fullmatch(text) is not None


def parse(text: str) -> Resolution:
  """Returns the resolution that `160` or `128x192` (height x width) names, at a width `160x0.5`; `160_2` is a branch.

  Raises:
    ValueError: The text is none of these, or means more than `MOST`.
  """
  found = _NAME.fullmatch(text)
  if found is None:
    raise ValueError(f'got {shown(text)}, expected pixels such as 160, or 128x192')
  height, width, share, number = found.groups()
  read = [int(side[:9]) for side in (height, width or height)]
  which, channels = int((number or '1')[:9]), float((share or '1.0')[:20])
  if min(read) < 1 or (number and which < 2) or not 0.001 <= channels <= 1:
    raise ValueError(f'got {shown(text)}, expected pixels such as 160, or 128x192')
  if max(read) > MOST:
    raise ValueError(f'got {shown(text)}, expected at most {MOST} pixels')
  size = _size(*read)
  return Branch(size, which, channels) if number or share else size
