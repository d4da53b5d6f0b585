"""The zip files that torch saves, read without torch: arrays and plain values alone; nothing in them is ever run."""

import collections
import errno
import io
import math
import pathlib
import pickle
import pickletools
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

# Larger pickles are refused: those of networks hold names and shapes, a few hundred kilobytes.
_LARGEST_PICKLE = 64 << 20

_STORAGES = {
  'DoubleStorage': np.float64,
  'FloatStorage': np.float32,
  'HalfStorage': np.float16,
  'BFloat16Storage': ml_dtypes.bfloat16,
  'LongStorage': np.int64,
  'IntStorage': np.int32,
  'ShortStorage': np.int16,
  'CharStorage': np.int8,
  'ByteStorage': np.uint8,
  'BoolStorage': np.bool_,
}

# What stands beside weights in checkpoints and is not wanted: read as a `_Left`.
_IGNORED = {
  ('_codecs', 'encode'),
  ('argparse', 'Namespace'),
  ('numpy', 'dtype'),
  ('numpy', 'ndarray'),
  ('numpy.core.multiarray', 'scalar'),
  ('numpy._core.multiarray', 'scalar'),
  ('torch', 'device'),
  ('torch', 'Size'),
}

# Those that torch and Python's second protocol write. Others build objects, or claim memory before there are data.
_OPCODES = set(
  'PROTO STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT STRING BINSTRING '
  'SHORT_BINSTRING UNICODE BINUNICODE EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT '
  'DICT SETITEM SETITEMS POP POP_MARK DUP GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT GLOBAL REDUCE BUILD BINPERSID '
  'EMPTY_SET'.split()
)


class _Left:
  """Stands for a value that is not wanted, whatever it was made of."""

  def __init__(self, *_: Any):
    pass

  def __setstate__(self, state: Any) -> None:
    pass


class _Unpickler(pickle.Unpickler):
  """Knows torch's tensors and `_IGNORED`, and refuses every other name."""

  def __init__(self, archive: zipfile.ZipFile, root: str, limit: int):
    """Takes the open archive.

    Args:
      archive: As torch saved it.
      root: The folder in it.
      limit: Bytes that all storages may have together.
    """
    pickled = _read(archive, f'{root}data.pkl', _LARGEST_PICKLE)
    _check_opcodes(pickled)
    super().__init__(io.BytesIO(pickled))
    self._archive, self._root, self._left = archive, root, limit
    self._names = set(archive.namelist())
    big = f'{root}byteorder' in self._names and _read(archive, f'{root}byteorder', 16) == b'big'
    self._order = '>' if big else '<'
    self._storages: dict[str, np.ndarray] = {}

  def find_class(self, module: str, name: str) -> Any:
    """Returns what stands for a name; never imports anything."""
    if (module, name) in _IGNORED:
      return _Left
    if (module, name) == ('collections', 'OrderedDict'):
      return collections.OrderedDict
    if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
      return lambda *described: _tensor(*described)  # a new one: a pickle may set attributes of what it gets
    if (module, name) == ('torch._utils', '_rebuild_parameter'):
      return lambda tensor, *_: tensor
    if module == 'torch' and name in _STORAGES:
      return name
    raise ValueError(f'it names {module}.{name}, which is neither an array nor a plain value')

  def persistent_load(self, pid: Any) -> np.ndarray:
    """Returns the values of a storage, flat."""
    kind, name, key, _, count = pid
    if kind != 'storage' or name not in _STORAGES or not isinstance(key, str) or type(count) is not int:
      raise ValueError('a storage is described in another way than torch does')
    read = np.dtype(_STORAGES[name])
    if key not in self._storages:
      content = _read(self._archive, f'{self._root}data/{key}', self._left, stored=True)
      self._left -= len(content)
      self._storages[key] = np.frombuffer(content, read.newbyteorder(self._order)).astype(read, copy=False)
    if self._storages[key].dtype != read or len(self._storages[key]) != count:
      raise ValueError(f'storage {key} has {self._storages[key].size} values, expected {count}')
    return self._storages[key]


def load(path: pathlib.Path) -> Any:
  """Returns what `torch.save` put into a zip file, tensors as numpy arrays, in no more memory than the file is large.

  Raises:
    ValueError: It is no such file, damaged, or holds something else than tensors and plain values.
    OSError: It can't be read.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      roots = [name.removesuffix('data.pkl') for name in archive.namelist() if name.split('/')[1:] == ['data.pkl']]
      if len(roots) != 1:
        raise ValueError('a zip file without a data.pkl of torch')
      return _Unpickler(archive, roots[0], path.stat().st_size).load()
  except Exception as error:  # what damaged zip files and pickles raise is of many kinds
    if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that is a place before the file's beginning
      raise
    reason = next(iter(str(error).splitlines()), '') or type(error).__name__
    raise ValueError(f'{path}: {reason[:300]}; expected a whole file of tensors as torch.save writes it') from None


def _read(archive: zipfile.ZipFile, name: str, limit: int, stored: bool = False) -> bytes:
  """A member of the archive, refused before it is read where it is larger than the limit."""
  info = archive.getinfo(name)
  if info.file_size > limit:
    raise ValueError(f'{name} claims {info.file_size:,} bytes, expected at most {limit:,}')
  if stored and info.compress_type != zipfile.ZIP_STORED:
    raise ValueError(f'{name} is compressed, expected as torch stores it')
  return archive.read(info)


def _check_opcodes(pickled: bytes) -> None:
  """Refuses a pickle with other opcodes than `_OPCODES`, or with places in its memory far beyond what it holds."""
  for count, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
    if opcode.name not in _OPCODES:
      raise ValueError(f'the pickle has an opcode {opcode.name}, which torch does not write')
    if opcode.name in ('PUT', 'BINPUT', 'LONG_BINPUT') and argument is not None and not 0 <= argument <= count:
      raise ValueError(f'the pickle claims memory for {argument} values')


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
  """A view of a storage, within its bounds and no larger than it."""
  numbers = (offset, *size, *stride)
  if not isinstance(storage, np.ndarray) or len(size) != len(stride) or not all(type(n) is int for n in numbers):
    raise ValueError('a tensor is described in another way than torch does')
  last = offset + sum((n - 1) * step for n, step in zip(size, stride))
  if min(numbers) < 0 or len(size) > 8 or math.prod(size) > len(storage) or (0 not in size and last >= len(storage)):
    raise ValueError(f'a tensor of shape {tuple(size)} lies outside its storage of {len(storage)} values')
  steps = tuple(step * storage.itemsize for step in stride)
  return np.lib.stride_tricks.as_strided(storage[min(offset, len(storage)) :], size, steps, writeable=False)
