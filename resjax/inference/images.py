"""From what a user names, files, folders or arrays, to crops in batches; what can't be read is told, not dropped."""

import fnmatch
import functools
import glob
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from resjax.data import folders
from resjax.data.decode import BadImage

Crop = Callable[[bytes | np.ndarray], np.ndarray]


class Item(NamedTuple):
  """One image that is to be read."""

  name: str
  content: pathlib.Path | bytes | np.ndarray | Callable[[], bytes | np.ndarray]


class Chunk(NamedTuple):
  """A few images, cropped."""

  names: list[str]
  errors: list[str | None]  # why an image could not be read
  crops: np.ndarray  # uint8 [n, H, W, 3], of the readable ones alone, in order


def items(images: Any) -> list[Item]:
  """Returns one item for each image.

  Args:
    images: Items, which are returned as they are; a file, a folder (its image files, see `folders.images_in`, also
      those in folders below, by name), a pattern such as 'photos/*.jpg' (`**` for folders below) where no file has that
      very name, an encoded image as bytes, an array uint8 `[H, W, 3]` or `[N, H, W, 3]`, or a sequence of these, in
      which an array of another kind stops nothing else.

  Raises:
    ValueError: Something is none of these, such as a URL or an empty name, or a folder holds no images.
  """
  if isinstance(images, Item):
    return [images]
  if isinstance(images, str | pathlib.Path):
    if not os.fspath(images):
      raise ValueError('images: got an empty name, expected a file or folder (the current one is called .)')
    path = pathlib.Path(os.path.expanduser(images))  # not `home.expanded`: what is not there is an image's error
    if not os.path.isdir(path):
      return _files(str(images), path)
    inside = folders.images_in(str(path), below=True)
    folders.tell(path, inside)
    return [Item(str(path / name), path / name) for name in inside.files]
  if isinstance(images, bytes):
    return [Item('0', images)]
  if isinstance(images, np.ndarray) or hasattr(images, '__array__'):
    array = np.asarray(images)
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3:
      raise ValueError(f'images: got {array.dtype} {array.shape}, expected uint8 [H, W, 3] or [N, H, W, 3]')
    return [Item(str(i), image) for i, image in enumerate(array if array.ndim == 4 else array[None])]
  if not isinstance(images, Sequence):
    raise ValueError(f'images: got {type(images).__name__}, expected files, folders or arrays')
  found = [(item, isinstance(image, Item)) for image in images for item in _part(image)]
  named = [given or isinstance(item.content, pathlib.Path) for item, given in found]
  return [item if has else Item(str(i), item.content) for i, ((item, _), has) in enumerate(zip(found, named))]


def _part(image: Any) -> list[Item]:
  """The items of a part of a sequence."""
  try:
    return items(image)
  except ValueError as error:
    if isinstance(image, np.ndarray):
      return [Item('', functools.partial(_refuse, str(error)))]
    raise


def listed(stream: BinaryIO) -> list[Item]:
  """Returns the items of a list of paths, one a line, as they are: no line is taken for a pattern.

  Args:
    stream: Such as standard input, `sys.stdin.buffer`.

  Raises:
    ValueError: It names nothing, holds an image itself, or a line is a URL.
  """
  content = stream.read()
  if b'\0' in content:
    raise ValueError('standard input: got no text, expected a list of paths, one a line (an image is named as a file)')
  lines = [line for line in os.fsdecode(content).replace('\r\n', '\n').split('\n') if line.strip()]
  if not lines:
    raise ValueError('standard input: empty, expected a list of paths, one a line')
  found = []
  for line in lines:
    path = pathlib.Path(line)
    _check_local(line, path)
    found += items(path) if os.path.isdir(path) else [Item(line, path)]
  return found


def _files(name: str, path: pathlib.Path) -> list[Item]:
  """A file, also one that is missing, which shows when it is read; or those that match a pattern."""
  _check_local(name, path)
  if os.path.exists(path) or not glob.has_magic(name):
    return [Item(name, path)]
  matches = sorted(_matches(path))
  if not matches:
    return [Item(name, functools.partial(_refuse, 'no such file, and as a pattern it matches none'))]
  return [
    item for match in matches for item in (items(match) if os.path.isdir(match) else [Item(match, pathlib.Path(match))])
  ]


def _matches(path: pathlib.Path) -> list[str]:
  """What matches a pattern; leading folders of that very name are taken for themselves."""
  known = next(n for n in range(len(path.parts), -1, -1) if n == 0 or os.path.exists(os.path.join(*path.parts[:n])))
  begin, pattern = os.path.join('', *path.parts[:known]), path.parts[known:]
  deep = pattern.index('**') if '**' in pattern else len(pattern)
  found = glob.glob(os.path.join(glob.escape(begin), *pattern[:deep])) if deep else [begin or os.curdir]
  if deep == len(pattern):
    return found
  below = ((head, inside) for head in found if os.path.isdir(head) for inside, why in folders.walk(head) if not why)
  return [
    os.path.normpath(os.path.join(head, inside)) for head, inside in below if _fits(inside.split('/'), pattern[deep:])
  ]


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
  """Whether a path, which is not hidden, matches a pattern in which `**` stands for any folders."""
  if not pattern or not parts:
    return not parts and all(part == '**' for part in pattern)
  if pattern[0] == '**':
    return _fits(parts, pattern[1:]) or _fits(parts[1:], pattern)
  hidden = parts[0].startswith('.') and not pattern[0].startswith('.')
  return not hidden and fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _check_local(name: str, path: pathlib.Path) -> None:
  """Refuses what lies on another machine."""
  scheme = re.match(r'([A-Za-z][A-Za-z0-9+.-]+):/', name)
  if scheme and not os.path.exists(path):
    ways = {'http': f'download it first (curl -LO {name})', 'file': 'type its path alone'}
    way = ways.get(scheme[1].lower().removesuffix('s'), 'copy it here first, or mount its bucket as a folder')
    raise ValueError(f'images: got {name}, expected a file or folder of this machine: {way}')


def _refuse(reason: str) -> bytes:
  """Says why there is nothing to read."""
  raise BadImage(reason)


def of_source(source: Any, numbers: Iterable[int] | None = None) -> list[Item]:
  """Returns one item for each image of a data source, or for those of these numbers; read when their turn comes."""
  numbers = range(len(source)) if numbers is None else numbers
  return [Item(source.name_of(i), functools.partial(lambda i: source[i]['image'], i)) for i in numbers]


def chunks(wanted: Iterable[Item], crop: Crop, *, size: int, threads: int) -> Iterator[Chunk]:
  """Reads and crops images in threads, a chunk ahead of who takes them.

  Args:
    wanted: As from `items`.
    crop: Of an encoded image or pixels; raises BadImage.
    size: Images in a chunk.
    threads: That decode.
  """
  wanted = list(wanted)

  def read(item: Item) -> np.ndarray | str:
    try:
      content = item.content
      if isinstance(content, pathlib.Path):
        content = folders.read(content)
      return crop(content() if callable(content) else content)
    except BadImage as error:
      return str(error)
    except OSError as error:
      return error.strerror or str(error)

  if len(wanted) == 1:  # nothing to read ahead: no thread has to be started and waited for
    yield _chunk(wanted, [read(wanted[0])])
    return
  with ThreadPoolExecutor(threads) as pool:
    ahead: list[tuple[list[Item], list[Future[np.ndarray | str]]]] = []
    for start in range(0, len(wanted), size):
      part = wanted[start : start + size]
      ahead.append((part, [pool.submit(read, item) for item in part]))
      if len(ahead) == 2:
        yield _when_read(*ahead.pop(0))
    for last in ahead:
      yield _when_read(*last)


def cut(crops: np.ndarray, size: int) -> Iterator[Chunk]:
  """Yields crops uint8 `[N, H, W, 3]` in chunks of a size; they are named by their numbers."""
  for start in range(0, len(crops), size):
    part = crops[start : start + size]
    yield Chunk([str(start + i) for i in range(len(part))], [None] * len(part), part)


def _when_read(part: list[Item], futures: list[Future[np.ndarray | str]]) -> Chunk:
  """The images of a chunk when all are read."""
  return _chunk(part, [future.result() for future in futures])


def _chunk(part: list[Item], found: list[np.ndarray | str]) -> Chunk:
  """Images, and what was read of each."""
  readable = [image for image in found if not isinstance(image, str)]
  crops = np.stack(readable) if readable else np.zeros((0, 1, 1, 3), np.uint8)
  return Chunk([item.name for item in part], [image if isinstance(image, str) else None for image in found], crops)
