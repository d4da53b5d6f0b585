"""Where images come from. A source is a sequence of encoded images and labels that can be pickled.

A new source is a file with a class like the others', and an entry in `SOURCES`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from resjax.data import identity
from resjax.data.cache import cached
from resjax.data.folders import class_files, classes_in, read
from resjax.data.subset import Subset, names_of
from resjax.home import expanded
from resjax.paths import is_remote, path_of
from resjax.telling import distinct, utf8

__all__ = ['SOURCES', 'FakeSource', 'FolderSource', 'Source', 'create']


class Source(Protocol):
  """Images with labels.

  Attributes:
    num_classes: How many labels there are.
    class_names: By label.
    needed: int32 `[N]`, the resolution that each image needs, or None where nobody knows it.
  """

  num_classes: int
  class_names: tuple[str, ...]

  @property
  def needed(self) -> np.ndarray | None:
    """See the class."""

  def __len__(self) -> int:
    """How many images there are."""

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    """`image`, the bytes of a file or uint8 `[H, W, 3]`, and `label`, int."""

  def name_of(self, index: int) -> str:
    """What messages call the example."""

  def entries(self) -> Sequence[str]:
    """What tells these images from others, see `identity.Identity`."""


def create(config: ConfigDict, split: str) -> Source:
  """Opens one split of the data that a config names.

  Args:
    config: A run's; read: data, resolutions and model.num_classes.
    split: As the source calls it: a folder's name, a TFDS split such as 'train[:90%]', or a
      split of scaled_digits. 'validation' finds a folder 'val', too.

  Raises:
    ValueError: The data do not fit `config.model.num_classes` or are not as they should be.
    FileNotFoundError: The data are not there.
  """
  data = config.data
  if data.source not in SOURCES:
    raise ValueError(f'config.data.source: got {data.source!r}, expected one of {", ".join(SOURCES)}')
  if data.cache and data.source in IN_MEMORY:
    raise ValueError(
      f"config.data.cache: got {data.cache!r}, expected '' with data.source={data.source!r}, made in memory"
    )
  source = opened(config, split)
  if not data.cache:
    return source
  # Two projects may have the same names and sizes.
  place = os.path.realpath(expanded(data.dir, 'config.data.dir')) if data.dir and not is_remote(data.dir) else data.dir
  name = f'{data.source} {place} {data.name} {split} {identity.of(source).digest}'
  return cached(source, data.cache, name, max(0, data.workers))


def opened(config: ConfigDict, split: str) -> Source:
  """Returns what `create` does, without `config.data.cache`; arguments and errors as there."""
  data, classes = config.data, config.model.num_classes
  source = SOURCES[data.source](config, split)
  if data.classes:
    source = Subset(source, names_of(data.classes))
  at_most = data.source == 'tfds' and not data.classes
  fits = source.num_classes <= classes if at_most else source.num_classes == classes
  if not fits:
    raise ValueError(
      f'config.model.num_classes: {classes}, expected {source.num_classes}, '
      f'the classes of {data.source} {data.dir if data.source in ("folder", "images") else data.name}'
    )
  return source


def _tfds(config: ConfigDict, split: str) -> Source:
  from resjax.data.tfds import TfdsSource  # with its imports, only where it is used

  return TfdsSource(config.data.name, config.data.dir, split)


def _folder(config: ConfigDict, split: str) -> Source:
  return FolderSource(config.data.dir, split, (config.data.train_split, config.data.eval_split))


def _images(config: ConfigDict, split: str) -> Source:
  from resjax.data import unlabelled  # with Orbax, only where it is used

  return unlabelled.create(config, split)


def _scaled_digits(config: ConfigDict, split: str) -> Source:
  from resjax.data.scaled_digits import ScaledDigits

  return ScaledDigits(split, config.data.size if split == 'train' else 0)


def _fake(config: ConfigDict, split: str) -> Source:
  return FakeSource(split, config.data.size or 1_000, config.model.num_classes, max(config.resolutions))


# By name: opens a split of the data that a config describes.
SOURCES: dict[str, Callable[[ConfigDict, str], Source]] = {
  'tfds': _tfds,
  'folder': _folder,
  'images': _images,
  'scaled_digits': _scaled_digits,
  'fake': _fake,
}


# Those whose images are pixels already.
IN_MEMORY = ('fake', 'scaled_digits')


class FolderSource:
  """Image files in `root/split/class/`, classes and files in the order of their names.

  Attributes:
    num_classes: Number of class folders.
    class_names: Their names, sorted, as `telling.utf8` writes them; the label is the number in this order.
    needed: None.
  """

  needed: np.ndarray | None = None

  def __init__(self, root: str, split: str, splits: tuple[str, ...] = ()):
    """Lists the files.

    Args:
      root: Folder of the splits, local or gs://BUCKET/FOLDER.
      split: Folder of the classes; 'validation' finds 'val' where there is no such folder.
      splits: Those that must have the same classes, as far as they are there.

    Raises:
      FileNotFoundError: The folder is missing.
      ValueError: It has no classes, a class has no images, or another split has other classes.
    """
    if not root:
      raise ValueError('config.data.dir: empty, expected a folder with train/<class>/*.jpg')
    self.folder = _split_folder(root, split)
    if not self.folder.is_dir():
      raise FileNotFoundError(f'config.data.dir: no folder {self.folder}, expected {self.folder}/<class>/*.jpg')
    self._folders = classes_in(self.folder)
    self.class_names = tuple(map(utf8, self._folders))
    if not self._folders:
      raise ValueError(f'{self.folder}: no class folders, expected {self.folder}/<class>/*.jpg')
    self.num_classes = len(self.class_names)
    for other in (_split_folder(root, name) for name in splits):
      if other.is_dir():
        _check_same_classes(self.folder, self._folders, other)
    files = class_files(self.folder, self._folders)
    self.files = [name for names in files for name in names]
    self.labels = np.repeat(np.arange(self.num_classes, dtype=np.int32), [len(f) for f in files])

  def __len__(self) -> int:
    return len(self.files)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return {'image': read(self.name_of(index)), 'label': int(self.labels[index])}

  def name_of(self, index: int) -> str:
    """Returns the path of an example's file."""
    return str(self.folder / self._folders[self.labels[index]] / self.files[index])

  def entries(self) -> list[str]:
    """Returns a line for each file."""
    names = [f'{self._folders[label]}/{file}' for label, file in zip(self.labels.tolist(), self.files)]
    return identity.listed(self.folder, names)


class FakeSource:
  """Random pixels, made when they are read: the label is the number modulo the classes.

  Attributes:
    num_classes: As given.
    class_names: The numbers.
    needed: None.
  """

  needed: np.ndarray | None = None

  def __init__(self, split: str, size: int, num_classes: int, resolution: int):
    """Makes a source.

    Args:
      split: Another name gives other images.
      size: Number of images.
      num_classes: Number of labels.
      resolution: Images are 1 to 1.5 times as high and as wide, in pixels.
    """
    self.split, self.size, self.resolution = split, size, resolution
    self.num_classes = num_classes
    self.labels = np.arange(size, dtype=np.int32) % num_classes
    self.class_names = tuple(str(label) for label in range(num_classes))

  def __len__(self) -> int:
    return self.size

  def __getitem__(self, index: int) -> dict[str, Any]:
    rng = np.random.default_rng([index, *self.split.encode()])
    height, width = rng.integers(self.resolution, self.resolution * 3 // 2 + 1, 2)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    return {'image': image, 'label': index % self.num_classes}

  def name_of(self, index: int) -> str:
    """Returns what messages call an example."""
    return f'fake/{self.split} {index}'

  def entries(self) -> tuple[str]:
    """Returns what they are made by."""
    return (f'fake/{self.split}, {self.size} images, {self.resolution} px',)


def _split_folder(root: str, split: str) -> epath.Path:
  """The folder of a split."""
  folder = path_of(root, 'config.data.dir') / split
  short = folder.with_name('val')
  return short if split == 'validation' and not folder.is_dir() and short.is_dir() else folder


def _check_same_classes(folder: epath.Path, names: tuple[str, ...], other: epath.Path) -> None:
  """Refuses splits with different classes: their labels would mean different things."""
  for name in sorted(set(names) ^ set(classes_in(other))):
    here, there = (folder, other) if name in names else (other, folder)
    shown = distinct(name, [*names, *classes_in(other)])
    shown = f' ({shown})' if shown != repr(name) else ''
    raise ValueError(f'{here / name}{shown}: no such class in {there}, expected the same in both')
