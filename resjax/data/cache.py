"""Encoded images kept near after they were first read: for data in a bucket or on a slow disk."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from resjax import checksums
from resjax.data.decode import BadImage
from resjax.data.identity import of as identity_of
from resjax.home import expanded

__all__ = ['FolderCache', 'MemoryCache', 'cached']

_SAMPLE = 32  # images that are read to estimate the size of all
_LABEL = struct.Struct('<i')
_NONE = -1  # there: an image without a label


def cached(source: Any, where: str, identity: str, workers: int = 0) -> Any:
  """Returns a source whose examples are read once, and warns how much room they take.

  Args:
    source: As `resjax.data.sources.create` makes them, of encoded images.
    where: '' (keeps nothing: the source itself), 'memory', or a local folder.
    identity: What tells the source from others in the same folder: their place, and a digest of what they are.
    workers: Of the loader: each process would have a memory of its own.

  Raises:
    ValueError: There is not enough room, or 'memory' with worker processes.
    OSError: The folder can't be made.
  """
  if not where:
    return source
  if where == 'memory' and workers:
    raise ValueError(
      f"config.data.cache: got 'memory' with data.workers={workers}, expected a folder "
      '(each process would keep a copy of its own; a folder in /dev/shm is memory that all share)'
    )
  cache = MemoryCache(source) if where == 'memory' else FolderCache(source, where, identity)
  needed, room = _estimate(source), cache.room()
  logging.warning('config.data.cache: %s will hold about %.1f GB, %d images', where, needed / 1e9, len(source))
  if needed > room:
    raise ValueError(
      f'config.data.cache: {where}: room for {room / 1e9:.1f} GB, expected about {needed / 1e9:.1f} GB '
      f'for the {len(source)} images of {identity}'
    )
  return cache


class _Cache:
  """A source in front of another."""

  def __init__(self, source: Any):
    self._source = source
    self.num_classes, self.class_names, self.needed = source.num_classes, source.class_names, source.needed
    self.labels = getattr(source, 'labels', None)

  def __len__(self) -> int:
    return len(self._source)

  def name_of(self, index: int) -> str:
    """Returns what messages call an example."""
    return self._source.name_of(index)

  def entries(self) -> Sequence[str]:
    """Returns what tells these images from others."""
    return identity_of(self._source).entries


class MemoryCache(_Cache):
  """Keeps every example that was read in this process's memory."""

  def __init__(self, source: Any):
    """Starts empty.

    Args:
      source: What is read.
    """
    super().__init__(source)
    self._examples: dict[int, dict[str, Any]] = {}

  def __getitem__(self, index: int) -> dict[str, Any]:
    if index not in self._examples:
      self._examples[index] = self._source[index]
    return self._examples[index]

  def room(self) -> int:
    """Returns the bytes that may be kept: the machine's memory."""
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


class FolderCache(_Cache):
  """Keeps every example that was read in a local folder, one file each; threads, processes and runs share it.

  A file is the label, int32, the image as it was encoded, and their checksum: one that is damaged is named in the log
  and read anew. It is written under another name and renamed. The folder is never emptied.
  """

  def __init__(self, source: Any, folder: str, identity: str):
    """Opens the folder, made if it is missing.

    Args:
      source: What is read.
      folder: For the examples of any number of sources.
      identity: Names this source's folder in it.

    Raises:
      OSError: The folder can't be made.
    """
    super().__init__(source)
    name = hashlib.sha256(f'{identity} {len(source)}'.encode()).hexdigest()[:16]
    self._folder = pathlib.Path(expanded(folder, 'config.data.cache')) / name
    try:
      self._folder.mkdir(parents=True, exist_ok=True)
      (self._folder / 'source.txt').write_text(f'{identity}, {len(source)} images\n')
    except OSError as error:
      raise OSError(f'config.data.cache: {self._folder}: {error.strerror}, expected a folder to write to') from error

  def __getitem__(self, index: int) -> dict[str, Any]:
    path = self._folder / str(index // 1000) / str(index)
    try:
      data = checksums.opened(path.read_bytes())
      label = _LABEL.unpack_from(data)[0]
      return {'image': data[_LABEL.size :]} | ({} if label == _NONE else {'label': label})
    except FileNotFoundError:
      pass
    except ValueError as error:
      logging.warning('config.data.cache: %s: damaged (%s), read anew', path, error)
    example = self._source[index]
    self._write(path, checksums.sealed(_LABEL.pack(example.get('label', _NONE)) + example['image']))
    return example

  def room(self) -> int:
    """Returns the bytes that may be kept: what is free on the disk, and what is kept already."""
    kept = 0
    for path in self._folder.glob('*/*'):
      with contextlib.suppress(FileNotFoundError):  # another run has just renamed it
        kept += path.stat().st_size
    return shutil.disk_usage(self._folder).free + kept

  def _write(self, path: pathlib.Path, data: bytes) -> None:
    """Writes a file at once; a full disk ends the run rather than count as a bad image."""
    try:
      path.parent.mkdir(exist_ok=True)
      checksums.write(path, data)
    except OSError as error:
      raise ValueError(f'config.data.cache: {path}: {error.strerror}, expected room and leave to write') from error


def _estimate(source: Any) -> int:
  """The bytes of all images, from some of them."""
  sizes = []
  for index in np.unique(np.linspace(0, len(source) - 1, _SAMPLE).astype(int)).tolist():
    try:
      sizes.append(len(source[index]['image']))
    except (BadImage, OSError):  # counted when it is trained on
      continue
  return round(float(np.mean(sizes)) * len(source)) if sizes else 0
