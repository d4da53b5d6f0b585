"""Some classes of a source, renumbered in the order in which they are named."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from absl import logging

from resjax.data.decode import BadImage
from resjax.fields import near
from resjax.telling import shown

__all__ = ['Subset', 'names_of']

ENDING = '.txt'  # of a file of names

_THREADS = 16  # that read records for their labels: it is the disk that takes the time


class Subset:
  """The images of some classes, in the order of the source.

  Attributes:
    num_classes: How many there are.
    class_names: Their names, in the order given; the label is the number in this order.
    labels: int32 `[N]`.
    numbers: int `[N]`, of the images in the source.
    needed: As the source's, of these images.
  """

  def __init__(self, source: Any, names: Sequence[str]):
    """Chooses.

    Where a source does not keep its labels, as TFDS's, every record is read once for its own; what can't be read is in
    no class, and is told of.

    Args:
      source: As `resjax.data.sources.create` makes them.
      names: Of its classes.

    Raises:
      ValueError: A name is no class's or stands twice, or none of these classes has an image.
    """
    _check(names, source.class_names)
    self._source, self.class_names, self.num_classes = source, tuple(names), len(names)
    places = {name: label for label, name in enumerate(names)}
    new = np.array([places.get(name, -1) for name in source.class_names], np.int32)
    labels = _labels(source)
    own = np.where(labels < 0, -1, new[labels])
    self.numbers = np.flatnonzero(own >= 0)
    if not len(self.numbers):
      raise ValueError(f'config.data.classes: none of {len(names)} has an image in {source.name_of(0)} and the others')
    self.labels = own[self.numbers]
    self.needed = None if source.needed is None else np.asarray(source.needed)[self.numbers]

  def __len__(self) -> int:
    return len(self.numbers)

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    example = self._source[int(self.numbers[index])]
    return {**example, 'label': int(self.labels[index])}

  def __getattr__(self, name: str) -> Any:
    """What else a source says of each of its images, `digit_size`, or of all of them, `folder`."""
    if name not in ('digit_size', 'folder'):
      raise AttributeError(name)
    value = getattr(self._source, name)
    return value[self.numbers] if isinstance(value, np.ndarray) else value

  def name_of(self, index: int) -> str:
    """Returns what messages call an example."""
    return self._source.name_of(int(self.numbers[index]))

  def entries(self) -> list[str]:
    """Returns the source's lines for these images; where there is none for each, all of them and how many these are."""
    lines = list(self._source.entries())
    if len(lines) == len(self._source) != 1:
      return [lines[number] for number in self.numbers]
    return [*lines, f'of these classes {len(self)} images']


def names_of(classes: Sequence[str]) -> tuple[str, ...]:
  """Returns names of classes; what ends in .txt is a file of them, one in a line, empty lines and `#` lines left out.

  Args:
    classes: `config.data.classes`.

  Raises:
    FileNotFoundError: There is no such file.
    ValueError: It is no text in UTF-8, or has no name.
  """
  found: list[str] = []
  for name in classes:
    if not name.endswith(ENDING):
      found.append(name)
      continue
    path = os.path.expanduser(name)
    if not os.path.isfile(path):
      raise FileNotFoundError(f'config.data.classes: no file {name}, expected one with a name in each line')
    try:
      with open(path, encoding='utf-8-sig') as file:  # as some editors write it, with a mark at its beginning
        lines = [line.strip() for line in file]
    except UnicodeDecodeError:
      raise ValueError(f'config.data.classes: {name} is no text in UTF-8, expected a name in each line') from None
    named = [line for line in lines if line and not line.startswith('#')]
    if not named:
      raise ValueError(f'config.data.classes: no name in {name}, expected one in each line')
    found += named
  return tuple(found)


def _check(names: Sequence[str], known: Sequence[str]) -> None:
  """Raises ValueError unless these are different classes of those that are known."""
  seen: set[str] = set()
  for name in names:
    if name not in known:
      hint = near(name, known) or f', such as {shown(known[0])}'
      raise ValueError(f'config.data.classes: got {shown(name)}, expected one of the {len(known)} classes{hint}')
    if name in seen:
      raise ValueError(f'config.data.classes: got {shown(name)} twice, expected each of them once')
    seen.add(name)


def _labels(source: Any) -> np.ndarray:
  """The label of each image of a source, -1 where it can't be read."""
  labels = getattr(source, 'labels', None)
  if labels is not None:
    return np.asarray(labels)

  def label(index: int) -> int:
    try:
      return int(source[index]['label'])
    except BadImage:
      return -1

  logging.info('config.data.classes: reading %d records for their classes', len(source))
  with ThreadPoolExecutor(_THREADS) as pool:
    found = np.fromiter(pool.map(label, range(len(source))), np.int64, len(source))
  if bad := int((found < 0).sum()):
    logging.warning('config.data.classes: %d records of %d can not be read, and are left out', bad, len(source))
  return found
