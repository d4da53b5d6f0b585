"""Images in memory for a benchmark, as they are stored: of files, of a data source, or made."""

import io
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from resjax.data.crops import evaluation_crops
from resjax.data.decode import BadImage
from resjax.data.folders import read
from resjax.inference.images import Item, chunks
from resjax.inference.programs import Servable

# Height and width of the photographs that are made, in units of the largest resolution: ImageNet's usual size at 224.
_PHOTOGRAPH = (375 / 224, 500 / 224)


class Pool:
  """Images in memory as they are stored, encoded or pixels, and their crops; a round may take them more than once.

  Attributes:
    crops: uint8 `[M, S, S, 3]`, of the largest resolution.
  """

  def __init__(self, wanted: Sequence[Item], network: Servable, *, threads: int):
    """Reads the images.

    Args:
      wanted: As from `images.items`.
      network: Says how its images are cropped.
      threads: That decode.

    Raises:
      ValueError: An image can't be decoded; names it.
      OSError: A file can't be read.
    """
    self._items = [Item(item.name, _content(item)) for item in wanted]
    self._threads = threads
    self._crop = evaluation_crops(network.preprocessing, (network.resolutions[0],))
    self.crops = self.decoded(np.arange(len(self._items)))

  def rows(self, slots: np.ndarray) -> np.ndarray:
    """Returns which images the slots of a round hold."""
    return slots % len(self._items)

  def decoded(self, slots: np.ndarray) -> np.ndarray:
    """Returns the crops of slots, made anew from the stored images, in threads."""
    wanted = [self._items[row] for row in self.rows(slots)]
    (chunk,) = chunks(wanted, lambda image: self._crop(image)[0], size=len(wanted), threads=self._threads)
    for name, error in zip(chunk.names, chunk.errors):
      if error is not None:
        raise ValueError(f'{name}: {error}; expected images that can be read')
    return chunk.crops


def _content(item: Item) -> bytes | np.ndarray:
  """An image as it is stored."""
  if isinstance(item.content, pathlib.Path):
    try:
      return read(item.content)
    except BadImage as error:
      raise ValueError(f'{item.name}: {error}; expected images that can be read') from None
  return item.content() if callable(item.content) else item.content


def photographs(largest: int, count: int) -> list[Item]:
  """Returns JPEGs cut from scikit-learn's two photographs, of ImageNet's usual size where the largest input is 224 px.

  Args:
    largest: Resolution in pixels; the JPEGs grow with it.
    count: How many, each from another place.
  """
  from sklearn.datasets import load_sample_images

  pictures = [Image.fromarray(picture) for picture in load_sample_images().images]
  height, width = (max(1, round(side * largest)) for side in _PHOTOGRAPH)
  rng, found = np.random.default_rng(0), []
  for number in range(count):
    picture = pictures[number % len(pictures)]
    scale = rng.uniform(0.6, 1) * min(picture.width / width, picture.height / height)
    left, top = (rng.uniform(0, 1) * (a - scale * b) for a, b in zip(picture.size, (width, height)))
    box, buffer = (left, top, left + scale * width, top + scale * height), io.BytesIO()
    picture.resize((width, height), Image.Resampling.BICUBIC, box).save(buffer, 'JPEG', quality=90)
    found.append(Item(f'photograph {number}', buffer.getvalue()))
  return found
