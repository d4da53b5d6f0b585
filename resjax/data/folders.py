"""What folders of images hold: classes and files, in one way for all that reads images, and what was left out."""

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from absl import logging
from etils import epath

from resjax.data.bombs import MOST_BYTES
from resjax.data.decode import BEGINNING, BadImage, known, suffixes, wanted_for
from resjax.paths import is_remote
from resjax.telling import printable

__all__ = ['Listed', 'class_files', 'classes_in', 'images_in', 'read', 'walk']

_THREADS = 16  # that ask what files are: it is the disk that takes the time
_MANY = 256


class Listed(NamedTuple):
  """What a folder holds.

  Attributes:
    files: Names of the images, with the folders below, in their order.
    left_out: Reason to names of what is not used.
  """

  files: list[str]
  left_out: Mapping[str, Sequence[str]]

  def said(self) -> str:
    """Returns how many were left out, by reason, and one of each; '' where none was."""
    return '; '.join(f'{len(names)} {why}, such as {printable(names[0])}' for why, names in self.left_out.items())


def classes_in(folder: epath.Path) -> tuple[str, ...]:
  """Returns the class folders of a split, sorted."""
  if is_remote(folder):
    names: Iterator[str] = (entry.name for entry in folder.iterdir() if entry.is_dir())
  else:
    names = (entry.name for entry in os.scandir(folder) if _is_folder(entry))
  return tuple(sorted(name for name in names if not name.startswith('.')))


def class_files(folder: epath.Path, classes: Sequence[str]) -> list[list[str]]:
  """Returns the image files of each class folder; what was left out of all of them is logged, in one line.

  Args:
    folder: Of the classes.
    classes: Some of `classes_in`.

  Raises:
    ValueError: A class has none.
  """
  found: list[list[str]] = []
  left_out: defaultdict[str, list[str]] = defaultdict(list)
  for name in classes:
    one = images_in(folder / name)
    found.append(one.files)
    for why, names in one.left_out.items():
      left_out[why] += [f'{name}/{file}' for file in names]
  if not is_remote(folder):
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
      if entry.name.startswith('.'):
        left_out['hidden'].append(entry.name)
      elif not _is_folder(entry):
        left_out['beside the class folders'].append(entry.name)
  tell(folder, Listed([], left_out))
  return found


def images_in(folder: epath.Path | str, *, below: bool = False) -> Listed:
  """Returns the image files of a folder, in the order of their names; not logged, see `tell`.

  Images have an ending of `decode.suffixes`, are regular files of a plausible size or links to such, and not hidden.
  Of a bucket the names alone are looked at.

  Args:
    folder: Local, or in a bucket.
    below: Those in folders below too, also in linked ones, each folder once.

  Raises:
    ValueError: There are none; says what was left out.
    OSError: The folder can't be read.
  """
  files: list[str] = []
  left_out: defaultdict[str, list[str]] = defaultdict(list)
  if is_remote(folder):
    for name in (entry.name for entry in epath.Path(folder).iterdir()):
      reason = _by_name(name)
      (left_out[reason] if reason else files).append(name)
  else:
    maybe: list[str] = []
    for name, reason in walk(folder, below=below):
      reason = reason or _by_name(name.rpartition('/')[2])
      (left_out[reason] if reason else maybe).append(name)
    for name, reason in zip(maybe, _reasons(folder, maybe)):
      (left_out[reason] if reason else files).append(name)
  listed = Listed(_ordered(files), {reason: _ordered(names) for reason, names in sorted(left_out.items())})
  if not files:
    said = f' (left out: {listed.said()})' if left_out else ''
    raise ValueError(f'{folder}: no images, expected files named {", ".join(suffixes())}{said}')
  return listed


def tell(folder: str | os.PathLike[str], listed: Listed) -> None:
  """Logs what was left out of a folder, if anything was."""
  if listed.left_out:
    logging.warning('%s: left out are %s', printable(os.fspath(folder)), listed.said())


def walk(folder: str | os.PathLike[str], *, below: bool = True) -> Iterator[tuple[str, str | None]]:
  """Yields the name of everything in a local folder that is no folder, and None; of folders left out the reason.

  Linked folders are gone into after the others, and none twice, so that links in a circle come to an end.

  Args:
    folder: Where to look.
    below: In folders below too; else those are left out.

  Raises:
    OSError: The folder can't be read.
  """
  seen, waiting = {_place_of(folder)}, ['']
  links: list[str] = []
  while waiting or links:
    if not waiting:
      link = links.pop(0)
      if (place := _place_of(os.path.join(folder, link))) in seen:
        yield link, 'linked folders that are listed already'
        continue
      seen.add(place)
      waiting = [link]
    name = waiting.pop()
    try:
      entries = sorted(os.scandir(os.path.join(folder, name)), key=lambda entry: entry.name)
    except OSError:
      if not name:
        raise
      yield name, 'folders that can not be read'
      continue
    for entry in entries:
      inside = f'{name}/{entry.name}' if name else entry.name
      if not _is_folder(entry):
        yield inside, None
      elif not below or entry.name.startswith('.'):
        yield inside, 'hidden' if entry.name.startswith('.') else 'folders below'
      elif entry.is_symlink():
        links.append(inside)
      else:
        seen.add(_place_of(entry.path))
        waiting.append(inside)


def read(path: str | os.PathLike[str]) -> bytes:
  """Returns the content of an image's file, if that is a regular one of a plausible size; in a bucket of any.

  Raises:
    BadImage: It is another kind of thing, too large, or begins as no image does.
    OSError: It can't be read.
  """
  if is_remote(path):
    return epath.Path(path).read_bytes()
  try:
    _check(os.stat(path))  # before it is opened: that alone may block, or do something
    number = os.open(path, os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_CLOEXEC', 0))
  except ValueError as error:  # a name with a null byte
    raise BadImage(str(error)) from None
  with open(number, 'rb') as file:
    status = os.fstat(number)
    _check(status)
    begins = file.read(min(status.st_size, BEGINNING))
    known(begins, status.st_size)  # before all is read
    return begins + file.read(status.st_size - len(begins))


def _by_name(name: str) -> str | None:
  """Why a file is left out, by its name."""
  if name.startswith('.'):
    return 'hidden'
  ending = os.path.splitext(name)[1].lower()
  if ending in suffixes():
    return None
  return wanted_for(ending) or 'of other kinds'


def _reasons(folder: epath.Path | str, names: Sequence[str]) -> list[str | None]:
  """Why each file is left out, by what stands there."""

  def reason(name: str) -> str | None:
    try:
      _check(os.stat(os.path.join(folder, name)))
    except BadImage as error:
      return str(error)
    except OSError as error:
      return {errno.ENOENT: 'broken links', errno.ELOOP: 'links in a circle'}.get(error.errno or 0, 'unreadable')
    return None

  if len(names) < _MANY:
    return [reason(name) for name in names]
  with ThreadPoolExecutor(_THREADS) as pool:
    return list(pool.map(reason, names, chunksize=_MANY))


def _check(status: os.stat_result) -> None:
  """Refuses what is no file, or none that an image has."""
  if not stat.S_ISREG(status.st_mode):
    kinds = {stat.S_ISFIFO: 'a pipe', stat.S_ISSOCK: 'a socket', stat.S_ISDIR: 'a folder'}
    kind = next((kind for is_one, kind in kinds.items() if is_one(status.st_mode)), 'a device')
    raise BadImage(f'no regular file but {kind}')
  if status.st_size > MOST_BYTES:
    raise BadImage(f'larger than the {MOST_BYTES >> 20} MiB that an image may have')


def _is_folder(entry: os.DirEntry[str]) -> bool:
  """Whether it is a folder, or a link to one; a link in a circle is none."""
  return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _place_of(folder: str | os.PathLike[str]) -> tuple[int, int] | None:
  """What tells a folder from others, however it is called; None where it is gone."""
  try:
    status = os.stat(folder)
  except OSError:
    return None
  return status.st_dev, status.st_ino


def _ordered(names: Sequence[str]) -> list[str]:
  """Names by the folders that they are in."""
  return sorted(names, key=lambda name: name.split('/'))
