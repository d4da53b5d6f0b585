"""What data are, so that others are told from them: the names of the classes, and a list of the files with their sizes.

A run knows its data by a digest of that in every checkpoint and in its result. The lists themselves stand once in its
workdir: by them it is said which images are others.
"""

import hashlib
import itertools
import json
import os
import pathlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from resjax import checksums
from resjax.paths import is_remote
from resjax.telling import distinct

__all__ = ['Identity', 'agree', 'check', 'difference', 'listed', 'of', 'read', 'stored', 'write']

NAME = 'data.lists'

_THREADS = 16  # that ask for sizes: it is the disk that takes the time
_TOGETHER = 1_000  # files


class Identity(NamedTuple):
  """What a split of data is.

  Attributes:
    classes: Their names, by label.
    entries: A line for each file, see `listed`, in the order of the images; or one that says which prepared data they
      are.
  """

  classes: tuple[str, ...]
  entries: tuple[str, ...]

  @property
  def digest(self) -> str:
    """Of all of it."""
    text = '\0'.join([*self.classes, '', *self.entries])
    return hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()


def of(source: Any) -> Identity:
  """Returns what a source holds; of one without `entries` its kind and how many images it has."""
  entries = source.entries() if hasattr(source, 'entries') else (f'{type(source).__name__}: {len(source)} images',)
  return Identity(tuple(source.class_names), tuple(entries))


def listed(folder: epath.Path, names: Sequence[str]) -> list[str]:
  """Returns a line for each file: its name, and its size in bytes; in a bucket its name alone.

  Args:
    folder: That the names are in.
    names: Of files, with the folders below.
  """
  if is_remote(folder):
    return list(names)

  def sized(part: Sequence[str]) -> list[str]:
    return [f'{name}\t{_size(os.path.join(folder, name))}' for name in part]

  parts = [names[i : i + _TOGETHER] for i in range(0, len(names), _TOGETHER)]
  if len(parts) == 1:
    return sized(parts[0])
  with ThreadPoolExecutor(_THREADS) as pool:
    return [line for lines in pool.map(sized, parts) for line in lines]


def stored(data: Mapping[str, Identity]) -> dict[str, dict[str, Any]]:
  """Returns what is kept with each checkpoint and result, as JSON values."""
  return {split: {'digest': one.digest, 'entries': len(one.entries)} for split, one in data.items()}


def check(
  before: Mapping[str, Any] | None,
  now: Mapping[str, Identity],
  workdir: pathlib.Path,
  *,
  class_names: Sequence[str] = (),
  allowed: bool = False,
) -> list[str]:
  """Returns a line for each split whose data differ from those of the run in a workdir.

  Args:
    before: What `stored` returned for the run; None: it is of an older version, which knew the classes alone.
    now: The data at hand, by split.
    workdir: The run's.
    class_names: Of the run, for where that is all that is known.
    allowed: The run shall go on all the same.

  Raises:
    ValueError: Some differ, and that is not allowed; or what is known of the run's data is damaged.
  """
  try:
    if before is None:
      lines = _classes_alone(tuple(class_names), now)
    else:
      changed = {split: before[split] for split, one in now.items() if before[split]['digest'] != one.digest}
      lists = read(workdir) if changed else {}
      lines = [
        f'{split}: {difference(lists.get(known["digest"]), now[split], int(known["entries"]))}'
        for split, known in changed.items()
      ]
  except (LookupError, TypeError) as error:
    raise ValueError(f'workdir {workdir}: damaged, got data {before!r} ({error!r})') from None
  if lines and not allowed:
    raise ValueError(
      f'workdir {workdir} holds a run on other data ({"; ".join(lines)}): expected the same, another --workdir, or '
      '--other-data to go on all the same'
    )
  return lines


def difference(before: Identity | None, now: Identity, count: int = 0) -> str:
  """Returns in words what data have become.

  Args:
    before: What they were; None: not known.
    now: What they are, something else.
    count: How many entries there were, where no more is known.
  """
  if before is None:
    here = len(now.entries)
    return f'{count:,} images there, {here:,} here' if count != here else f'{here:,} images, but not the same'
  if len(before.entries) == len(now.entries) == 1 and before.classes == now.classes:
    return f'{before.entries[0]} there, {now.entries[0]} here'.replace('\t', ' of bytes ')
  names, renamed = {*before.classes, *now.classes}, _renamed(before, now)
  called = list(renamed.values())
  theirs, ours = {*before.classes, *called}, {*now.classes, *renamed}
  gone = [name for name in before.classes if name not in ours]
  new = [name for name in now.classes if name not in theirs]
  pairs = zip(_shown(renamed, names), _shown(called, names))
  parts = [f'class {old} is called {name}' for old, name in pairs]
  parts += [f'and {len(renamed) - 3:,} more classes otherwise'] if len(renamed) > 3 else []
  for what, some in (('no class', gone), ('a new class', new)):
    if some:
      parts.append(f'{what} {", ".join(_shown(some, names))}' + f' and {len(some) - 3:,} others' * (len(some) > 3))
  return '; '.join(parts + _files(before, now, renamed)) or 'the same in another order'


def write(workdir: pathlib.Path, data: Mapping[str, Identity]) -> None:
  """Keeps the lists of a run's data, those of earlier ones given up.

  Raises:
    OSError: It can't be written.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  text = json.dumps({split: one._asdict() for split, one in data.items()})
  checksums.write(workdir / NAME, checksums.sealed(zlib.compress(text.encode(), 1)))


def read(workdir: pathlib.Path) -> dict[str, Identity]:
  """Returns the lists of a run's data by their digests; none where they are not there, or damaged, which is logged."""
  try:
    lists = json.loads(zlib.decompress(checksums.opened((workdir / NAME).read_bytes())))
    found = [Identity(tuple(one['classes']), tuple(one['entries'])) for one in lists.values()]
  except FileNotFoundError:
    return {}
  except (OSError, ValueError, LookupError, TypeError, zlib.error) as error:
    logging.warning('%s: damaged (%s); which images are others is not known', workdir / NAME, error)
    return {}
  return {one.digest: one for one in found}


def agree(data: Mapping[str, Identity]) -> None:
  """Checks that all hosts see the same data; all call it.

  Raises:
    ValueError: This one sees others than the first.
  """
  if jax.process_count() == 1:
    return
  for split, one in data.items():
    mine = np.frombuffer(bytes.fromhex(one.digest), np.uint8)
    if not np.array_equal(multihost_utils.broadcast_one_to_all(mine), mine):
      raise ValueError(
        f'config.data.dir: host {jax.process_index()} sees other data ({split}) than host 0; expected the same on all'
      )


def _classes_alone(names: tuple[str, ...], now: Mapping[str, Identity]) -> list[str]:
  """A line for each split that has other classes."""
  others = {split: Identity(one.classes, ()) for split, one in now.items() if names and one.classes != names}
  return [f'{split}: {difference(Identity(names, ()), one)}' for split, one in others.items()]


def _size(path: str) -> int | str:
  """The bytes of a file; '?' where nobody knows."""
  try:
    return os.stat(path).st_size
  except OSError:
    return '?'


def _renamed(before: Identity, now: Identity) -> dict[str, str]:
  """Classes that have another name: with the same files in a folder of another name, or at the same place in a list."""
  known, wanted = set(before.classes), set(now.classes)
  old = [name for name in before.classes if name not in wanted]
  new = [name for name in now.classes if name not in known]
  there, here = _by_folder(before, old), _by_folder(now, new)
  if not any(there.values()) and not any(here.values()):  # no folders
    return dict(zip(old, new)) if len(before.classes) == len(now.classes) else {}
  found = {files: name for name, files in here.items() if files}
  return {name: found[files] for name, files in there.items() if files in found}


def _shown(some: Iterable[str], names: Iterable[str]) -> list[str]:
  """The first three of some names of classes, told from all others."""
  return [distinct(name, names) for name in itertools.islice(some, 3)]


def _by_folder(one: Identity, names: Sequence[str]) -> dict[str, frozenset[str]]:
  """The files of some classes, each in a folder that is called as it is."""
  files: dict[str, set[str]] = {name: set() for name in names}
  for entry in one.entries:
    folder, _, file = entry.partition('/')
    if folder in files:
      files[folder].add(file)
  return {name: frozenset(found) for name, found in files.items()}


def _files(before: Identity, now: Identity, renamed: Mapping[str, str]) -> list[str]:
  """How many images were added, removed and changed; those in a folder that is called otherwise are the same."""

  def sizes(one: Identity, names: Mapping[str, str]) -> dict[str, str]:
    parts = (entry.partition('/') for entry in one.entries) if names else ()
    entries = [names.get(folder, folder) + slash + file for folder, slash, file in parts] if names else one.entries
    return {name: size for name, _, size in (entry.partition('\t') for entry in entries)}

  there, here = sizes(before, renamed), sizes(now, {})
  added, removed = len(here.keys() - there.keys()), len(there.keys() - here.keys())
  changed = sum(here[name] != size for name, size in there.items() if name in here)
  counts = {'added': added, 'removed': removed, 'changed': changed}
  said = [f'{count:,} {what}' for what, count in counts.items() if count]
  return [f'{", ".join(said)} of {len(before.entries):,} images'] if said else []
