"""One batch from its step: which images, read and cropped, and what stands in for unreadable ones."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from resjax.data.decode import BadImage

__all__ = ['Batch', 'EvalBatch', 'TrainBatch']

Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Maker:
  """What both kinds of batches need; workers get a copy of it."""

  source: Any
  rows: np.ndarray  # of the global batch, those that are made here
  batch_size: int  # of the global batch
  num_classes: int
  sizes: tuple[int, ...]
  crop: Callable[..., tuple[np.ndarray, ...]]  # of an encoded image

  def read(self, index: int) -> tuple[Any, int]:
    """The image, still encoded, and the label of an example."""
    try:
      record = self.source[index]
    except OSError as error:
      raise BadImage(error.strerror or str(error)) from error
    label = record.get('label')
    if label is None:  # the whole source has none
      return record['image'], -1
    if not 0 <= label < self.num_classes:
      raise ValueError(
        f'{self.source.name_of(index)}: label {label}, expected 0 to {self.num_classes - 1} '
        f'(config.model.num_classes = {self.num_classes})'
      )
    return record['image'], label

  def blank(self) -> tuple[np.ndarray, ...]:
    """Black images in the place of missing ones."""
    return tuple(np.zeros((size, size, 3), np.uint8) for size in self.sizes)


@dataclasses.dataclass(frozen=True)
class TrainBatch(Maker):
  """Makes the training batch of a step."""

  seed: int
  draws: bool  # whether something is drawn for an image
  max_bad: int
  offset: int = 0  # in the stream, of what would be step 0

  def __call__(self, step: int) -> Batch:
    """Returns `images`, `label`, `index`, and `bad`: names and reasons of unreadable images."""
    bad: list[tuple[str, str]] = []
    positions = (self.offset + step * self.batch_size + self.rows).tolist()
    examples = [self._example(position, bad) for position in positions]
    images, labels, indices = zip(*examples)
    return _stack(images, label=labels, index=indices) | {'bad': bad}

  def _example(self, position: int, bad: list[tuple[str, str]]) -> tuple:
    """Images, label and number of the next readable image from a position of the stream on."""
    n = len(self.source)
    epoch, offset = divmod(position, n)
    first = int(_order(self.seed, epoch, n)[offset])
    for index in (i % n for i in range(first, first + min(n, self.max_bad + 1))):
      bits = np.random.Philox(key=[self.seed, position]) if self.draws else None
      try:
        image, label = self.read(index)
        return self.crop(image, rng=bits and np.random.Generator(bits)), label, index
      except BadImage as error:
        bad.append((self.source.name_of(index), str(error)))
    if n <= self.max_bad:
      raise ValueError(f'{self.source.name_of(0)} and the {n - 1} others: no readable image')
    return self.blank(), 0, -1  # more than max_bad are bad: the iterator stops the run


@dataclasses.dataclass(frozen=True)
class EvalBatch(Maker):
  """Makes the evaluation batch of a step, filled up behind the last image."""

  def __call__(self, step: int) -> Batch:
    """Returns what training batches have, and `mask`."""
    bad: list[tuple[str, str]] = []
    indices = step * self.batch_size + self.rows
    indices = np.where(indices < len(self.source), indices, -1)
    examples = [self._example(index, bad) for index in indices.tolist()]
    images, labels, masks = zip(*examples)
    batch = _stack(images, label=labels, index=indices)
    return batch | {'mask': np.array(masks, np.float32), 'bad': bad}

  def _example(self, index: int, bad: list[tuple[str, str]]) -> tuple:
    """Images, label and mask of an image of the source, or of padding."""
    if index >= 0:
      try:
        image, label = self.read(index)
        return self.crop(image), label, 1.0
      except BadImage as error:
        bad.append((self.source.name_of(index), str(error)))
    return self.blank(), 0, 0.0


def _stack(images: Sequence[tuple[np.ndarray, ...]], **numbers: Sequence[int] | np.ndarray) -> Batch:
  """One batch of many examples."""
  stacked = tuple(np.stack(size) for size in zip(*images))
  return {'images': stacked} | {k: np.asarray(v, np.int32) for k, v in numbers.items()}


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, size: int) -> np.ndarray:
  """The order of a source in one epoch."""
  # RandomState's stream is frozen for good, so that a run resumes under any later numpy.
  return np.random.RandomState([seed % 2**32, seed >> 32, epoch]).permutation(size)
