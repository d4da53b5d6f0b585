"""Pickles as torch writes them: arrays and plain values come out, and nothing in them is run."""

import math
import pickle
import pickletools
from collections.abc import Callable, Sequence
from typing import IO, Any

import ml_dtypes
import numpy as np

# Longer pickles, and such of more opcodes, are refused: those of networks hold names and shapes, some 100 kB for each.
LARGEST = 64 << 20  # bytes
_MOST_READS = 2_000_000  # one to three an opcode

STORAGES = {
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

_BUILTINS = 'bool bytearray complex dict float frozenset int list range set slice str tuple'.split()

# What stands beside weights in checkpoints and is not wanted: read as a `_Left`. A module alone: all that it has.
_IGNORED = {
  '_codecs.encode',
  'argparse.Namespace',
  'collections.Counter',
  'collections.defaultdict',
  'collections.deque',
  'datetime',
  'numpy.dtype',
  'numpy.dtypes',
  'numpy.ndarray',
  'pathlib',
  'torch.device',
  'torch.Size',
  'torch.serialization._get_layout',
  *(f'numpy.{core}.multiarray.{name}' for core in ('core', '_core') for name in ('scalar', '_reconstruct')),
  *(f'builtins.{name}' for name in _BUILTINS),
  *(f'__builtin__.{name}' for name in _BUILTINS),
  *(f'torch.{name}' for name in 'float16 bfloat16 float32 float64 int8 uint8 int16 int32 int64 bool strided'.split()),
}

# Those that torch and Python's second protocol write. Others build objects, or claim memory before there are data.
_OPCODES = (
  'PROTO STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT STRING BINSTRING '
  'SHORT_BINSTRING UNICODE BINUNICODE EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT '
  'DICT SETITEM SETITEMS POP POP_MARK DUP GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT GLOBAL REDUCE BUILD BINPERSID '
  'NEWOBJ'.split()
)

# Returns the values of a storage, flat, by its type, its key, and their number.
StorageOf = Callable[[np.dtype, str, int], np.ndarray]


def load(file: IO[bytes], storage_of: StorageOf) -> Any:
  """Returns what a pickle says, tensors as numpy arrays; the file stands behind it afterwards.

  What is not wanted (`_IGNORED`) is read as an empty object, and every other name is refused; nothing is imported.

  Args:
    file: Its bytes.
    storage_of: Gives the values of tensors.

  Raises:
    Exception: It is no such pickle, is damaged, or names something else; of many kinds.
  """
  return _Unpickler(_Stream(file), storage_of).load()


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
  """Returns a view of a storage, within its bounds and no larger than it.

  Raises:
    ValueError: It would not be.
  """
  numbers = (offset, *size, *stride)
  if not isinstance(storage, np.ndarray) or len(size) != len(stride) or not all(type(n) is int for n in numbers):
    raise ValueError('a tensor is described in another way than torch does')
  last = offset + sum((n - 1) * step for n, step in zip(size, stride))
  if min(numbers) < 0 or len(size) > 8 or math.prod(size) > len(storage) or (0 not in size and last >= len(storage)):
    raise ValueError(f'a tensor of shape {tuple(size[:9])} lies outside its storage of {len(storage)} values')
  steps = tuple(step * storage.itemsize for step in stride)
  return np.lib.stride_tricks.as_strided(storage[min(offset, len(storage)) :], size, steps, writeable=False)


class _Left:
  """Stands for a value that is not wanted, whatever it was made of and whatever it gets."""

  def __init__(self, *_: Any):
    pass

  def append(self, _: Any) -> None:
    pass


class _Ordered(dict):
  """An ordered dict of torch's, without attributes."""

  __slots__ = ()


class _Stream:
  """A file from which no more is read than a pickle may have."""

  def __init__(self, file: IO[bytes]):
    self._file, self._left, self._reads = file, LARGEST, 0

  def read(self, count: int) -> bytes:
    """Returns the next bytes; refused before memory is taken for them."""
    self._reads += 1
    self._left -= count
    if count < 0 or self._left < 0 or self._reads > _MOST_READS:
      raise ValueError('the pickle is longer than those of networks')
    return self._file.read(count)

  def readline(self) -> bytes:
    """Returns the rest of a line."""
    line = self._file.readline(self._left + 1)
    self.read(0)
    self._left -= len(line)
    return line


class _Dispatch(dict[int, Callable[[Any], None]]):
  """What is done at each opcode; others are refused."""

  def __missing__(self, code: int) -> Callable[[Any], None]:
    name = next((opcode.name for opcode in pickletools.opcodes if opcode.code == chr(code)), code)
    raise ValueError(f'the pickle has an opcode {name}, which torch does not write')


class _Unpickler(pickle._Unpickler):
  """Python's own unpickler with the opcodes of `_OPCODES`; it knows torch's tensors, and no other name.

  That in C is not used: it takes keys of any kind, and hashing one made of nested tuples ends the process, or never.
  """

  dispatch = _Dispatch({getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]
                        for name in _OPCODES})  # fmt: skip

  # Those of Python's unpickler.
  stack: list[Any]
  append: Callable[[Any], None]
  pop_mark: Callable[[], list[Any]]

  def __init__(self, file: _Stream, storage_of: StorageOf):
    """Takes what to read, and what gives the values of tensors."""
    super().__init__(file, encoding='utf-8', errors='replace')
    self._storage_of = storage_of

  def find_class(self, module: str, name: str) -> Any:
    """Returns what stands for a name; never imports anything."""
    if f'{module}.{name}' in _IGNORED or module in _IGNORED:
      return _Left
    if (module, name) == ('collections', 'OrderedDict'):
      return _Ordered
    if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
      return rebuild_tensor
    if (module, name) == ('torch._utils', '_rebuild_parameter'):
      return _rebuild_parameter
    if module == 'torch' and name in STORAGES:
      return name
    raise ValueError(f'it names {module}.{name}, which is neither an array nor a plain value')

  def persistent_load(self, pid: Any) -> np.ndarray:
    """Returns the values of a storage, flat."""
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or (len(pid) == 6 and pid[5] is not None):
      raise ValueError('a storage is described in another way than torch does')
    kind, name, key, _, count = pid[:5]
    if not all(isinstance(text, str) for text in (kind, name, key)) or type(count) is not int or count < 0:
      raise ValueError('a storage is described in another way than torch does')
    if kind != 'storage' or name not in STORAGES:
      raise ValueError('a storage is described in another way than torch does')
    return self._storage_of(np.dtype(STORAGES[name]), key, count)

  def _put(self, target: Any, keys: Sequence[Any], values: Sequence[Any]) -> None:
    """Puts items into a dict, but those under keys that no weights have."""
    if isinstance(target, dict):
      target.update((key, value) for key, value in zip(keys, values) if isinstance(key, str | int | float))
    elif not isinstance(target, _Left):
      raise ValueError('the pickle puts items into what is no dict')

  def _setitem(self) -> None:
    value, key = self.stack.pop(), self.stack.pop()
    self._put(self.stack[-1], [key], [value])

  def _setitems(self) -> None:
    items = self.pop_mark()
    self._put(self.stack[-1], items[::2], items[1::2])

  def _dict(self) -> None:
    items = self.pop_mark()
    self.append({})
    self._put(self.stack[-1], items[::2], items[1::2])

  def _build(self) -> None:
    """Leaves an object as it is: attributes are of those that are not wanted, and of ordered dicts."""
    self.stack.pop()
    if not isinstance(self.stack[-1], _Left | _Ordered):
      raise ValueError('the pickle sets attributes of what has none')

  def _newobj(self) -> None:
    """Makes an object of a class that is not wanted."""
    self.stack.pop()
    if self.stack.pop() is not _Left:
      raise ValueError('the pickle makes an object of a class that has none')
    self.append(_Left())

  dispatch |= {
    pickle.SETITEM[0]: _setitem,
    pickle.SETITEMS[0]: _setitems,
    pickle.DICT[0]: _dict,
    pickle.BUILD[0]: _build,
    pickle.NEWOBJ[0]: _newobj,
  }


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
  """A parameter is its values."""
  return tensor
