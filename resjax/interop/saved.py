"""The files that torch saves, today's zip files and the older form, read without torch."""

import errno
import io
import pathlib
import sys
import zipfile
from typing import IO, Any

import numpy as np

from resjax.interop import pickles
from resjax.telling import one_line

# What files of torch before 1.6 begin with, and the form that they have had from 2017 on.
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001


def load(path: pathlib.Path) -> Any:
  """Returns what `torch.save` put into a file, tensors as numpy arrays.

  Nothing in it is run, and it takes no more memory than the file is large, and 200 MB for what the pickle says.

  Raises:
    ValueError: It is no such file, damaged, or holds something else than tensors and plain values.
    OSError: It can't be read.
  """
  try:
    with path.open('rb') as file:
      size = path.stat().st_size
      return _of_zip(file, size) if file.read(2) == b'PK' else _of_old(file, size)
  except Exception as error:  # what damaged zip files and pickles raise is of many kinds
    if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that is a place before the file's beginning
      raise
    expected = 'expected a whole file, as torch.save(model.state_dict(), FILE) writes it'
    raise ValueError(f'{path}: {one_line(error)}; {expected}') from None


class _Storages:
  """The values of a file's tensors, together no more than the file has bytes."""

  def __init__(self, size: int):
    self._left = size
    self.read: dict[str, np.ndarray] = {}

  def take(self, key: str, size: int) -> None:
    """Raises ValueError where that would be more than the file has."""
    if size > self._left:
      raise ValueError(f'storage {key[:40]} claims {size:,} bytes, expected at most {self._left:,}')
    self._left -= size

  def checked(self, key: str, dtype: np.dtype, count: int) -> np.ndarray:
    """Returns what was read, if it is what a tensor says that it is."""
    found = self.read[key]
    if found.dtype != dtype or len(found) != count:
      raise ValueError(f'storage {key[:40]} has {len(found)} values of {found.dtype}, expected {count} of {dtype}')
    return found


def _of_zip(file: IO[bytes], size: int) -> Any:
  """What stands in a zip file, as torch writes it since 1.6."""
  with zipfile.ZipFile(file) as archive:
    roots = [name.removesuffix('data.pkl') for name in archive.namelist() if name.split('/')[1:] == ['data.pkl']]
    if len(roots) != 1:
      raise ValueError('a zip file without a data.pkl of torch')
    root, storages = roots[0], _Storages(size)
    big = f'{root}byteorder' in archive.NameToInfo and _content(archive, f'{root}byteorder', 16) == b'big'

    def storage_of(dtype: np.dtype, key: str, count: int) -> np.ndarray:
      if key not in storages.read:
        info = archive.getinfo(f'{root}data/{key}')
        storages.take(key, info.file_size)
        read = np.frombuffer(_content(archive, info.filename, info.file_size), dtype.newbyteorder('>' if big else '<'))
        storages.read[key] = read.astype(dtype, copy=False)
      return storages.checked(key, dtype, count)

    return pickles.load(io.BytesIO(_content(archive, f'{root}data.pkl', pickles.LARGEST)), storage_of)


def _content(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
  """A member of the archive, refused before it is read where it is compressed, or larger than the limit."""
  info = archive.getinfo(name)
  if info.compress_type != zipfile.ZIP_STORED:
    raise ValueError(f'{name} is compressed, expected as torch stores it')
  if info.file_size > limit:
    raise ValueError(f'{name} claims {info.file_size:,} bytes, expected at most {limit:,}')
  return archive.read(info)


def _of_old(file: IO[bytes], size: int) -> Any:
  """What stands in a file of torch before 1.6: a magic number, a version, the machine; the value; its storages."""
  file.seek(0)
  storages = _Storages(size)

  def storage_of(dtype: np.dtype, key: str, count: int) -> np.ndarray:
    if key not in storages.read:
      storages.take(key, count * dtype.itemsize)
      storages.read[key] = np.zeros(count, dtype)  # filled below: the values come after the pickle
    return storages.checked(key, dtype, count)

  if pickles.load(file, storage_of) != _MAGIC or pickles.load(file, storage_of) != _VERSION:
    raise ValueError('it is a pickle that torch did not write')
  pickles.load(file, storage_of)
  found, keys = pickles.load(file, storage_of), pickles.load(file, storage_of)
  if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages.read):
    raise ValueError('the storages that the file has are not those that it speaks of')
  for key in keys:
    values = storages.read[key]
    if int.from_bytes(file.read(8), 'little') != len(values) or file.readinto(values.view(np.uint8)) != values.nbytes:  # type: ignore[attr-defined]
      raise ValueError(f'storage {key[:40]} has not {len(values)} values')
    if sys.byteorder == 'big':
      values.byteswap(inplace=True)
  if file.read(1):
    raise ValueError('it goes on behind its storages')
  return found
