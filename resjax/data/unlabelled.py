"""Images without labels in one folder, to learn from a teacher; class folders beside them, to be scored on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from resjax import checkpoint
from resjax.data import identity
from resjax.data.classes import labels_of
from resjax.data.folders import class_files, classes_in, images_in, read, tell
from resjax.paths import path_of
from resjax.telling import utf8

__all__ = ['ClassFolders', 'FlatFolder', 'create']


# Images on which the sizes are compared with the teacher where none have labels.
JUDGED = 1_000


def create(config: ConfigDict, split: str) -> 'FlatFolder | ClassFolders':
  """Opens the images without labels, or those that are scored.

  Args:
    config: Reads data, model.num_classes, and the teacher's workdir, which knows the names of the classes.
    split: `data.train_split` or `data.eval_split`.

  Raises:
    ValueError: It is no such split; the folder is not as it should be.
    FileNotFoundError: A folder is missing.
  """
  data = config.data
  field = 'init' if config.teacher.checkpoint == 'init' else 'teacher'
  try:
    names = tuple(checkpoint.load_meta(config[field].checkpoint).get('class_names') or ())
  except FileNotFoundError as error:
    raise FileNotFoundError(f'config.{field}.checkpoint: {error}') from None
  names += tuple(map(str, range(len(names), config.model.num_classes)))
  if split == data.train_split:
    return FlatFolder(data.dir, names)
  if split == data.eval_split:
    return ClassFolders(data.eval_dir, names) if data.eval_dir else FlatFolder(data.dir, names, most=JUDGED)
  raise ValueError(
    f"data.source 'images': got the split {split!r}, expected {data.train_split!r} or {data.eval_split!r}"
  )


class _Unlabelled(dict):
  """An example: whoever asks for its label is told that there is none."""

  def __init__(self, name: str, image: bytes):
    super().__init__(image=image)
    self._name = name

  def __missing__(self, key: str) -> Any:
    raise ValueError(f'{self._name}: no {key}, expected images with one: config.data.eval_dir names none')


class FlatFolder:
  """The image files of one folder, in the order of their names; nobody says what they show.

  Attributes:
    num_classes: Of the teacher.
    class_names: Of the teacher.
    needed: None.
  """

  needed: np.ndarray | None = None

  def __init__(self, folder: str, class_names: Sequence[str], most: int = 0):
    """Lists the files.

    Args:
      folder: Local, or gs://BUCKET/FOLDER.
      class_names: By label.
      most: So many are drawn, always the same ones; 0: all.

    Raises:
      FileNotFoundError: The folder is missing.
      ValueError: It has no images.
    """
    self.folder = _folder(folder, 'config.data.dir', '*.jpg')
    self.class_names, self.num_classes = tuple(class_names), len(class_names)
    found = images_in(self.folder)
    tell(self.folder, found)
    files = found.files
    drawn = np.random.default_rng(0).permutation(len(files))[: most or None]
    self.files = [files[place] for place in sorted(drawn.tolist())]

  def __len__(self) -> int:
    return len(self.files)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return _Unlabelled(self.name_of(index), read(self.name_of(index)))

  def name_of(self, index: int) -> str:
    """Returns the path of an example's file."""
    return str(self.folder / self.files[index])

  def entries(self) -> list[str]:
    """Returns a line for each file."""
    return identity.listed(self.folder, self.files)


class ClassFolders:
  """Image files in `folder/class/`, where the classes are some of a network's.

  Attributes:
    num_classes: Of the network.
    class_names: Of the network.
    needed: None.
  """

  needed: np.ndarray | None = None

  def __init__(self, folder: str, class_names: Sequence[str]):
    """Lists the files.

    Args:
      folder: Holds the classes; local, or gs://BUCKET/FOLDER.
      class_names: By label.

    Raises:
      FileNotFoundError: The folder is missing.
      ValueError: It has no class folders, one has no images or is no class, see `classes.labels_of`.
    """
    self.folder = _folder(folder, 'config.data.eval_dir', '<class>/*.jpg')
    self.class_names, self.num_classes = tuple(class_names), len(class_names)
    classes = classes_in(self.folder)
    labels = labels_of(list(map(utf8, classes)), self.class_names, str(self.folder))
    files = class_files(self.folder, classes)
    found = [(f'{name}/{file}', label) for name, label, own in zip(classes, labels, files) for file in own]
    self.files = [name for name, _ in found]
    self.labels = np.array([label for _, label in found], np.int32)

  def __len__(self) -> int:
    return len(self.files)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return {'image': read(self.name_of(index)), 'label': int(self.labels[index])}

  def name_of(self, index: int) -> str:
    """Returns the path of an example's file."""
    return str(self.folder / self.files[index])

  def entries(self) -> list[str]:
    """Returns a line for each file."""
    return identity.listed(self.folder, self.files)


def _folder(folder: str, field: str, wanted: str) -> epath.Path:
  """The folder, which is there."""
  if not folder:
    raise ValueError(f'{field}: empty, expected a folder with {wanted}')
  path = path_of(folder, field)
  if not path.is_dir():
    raise FileNotFoundError(f'{field}: no folder {path}, expected {path}/{wanted}')
  return path
