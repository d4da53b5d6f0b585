"""What a calibration was made on: it is kept with it, and a dial whose images are gone or others by now says so."""

import json
import os
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from etils import epath

from resjax.data import identity
from resjax.data.identity import Identity
from resjax.inference.images import Item
from resjax.paths import is_remote
from resjax.telling import printable

# Files that are looked at for being still the same, at most.
_LOOKED_AT = 2_000


class Origin(NamedTuple):
  """Images that a calibration was made on.

  Attributes:
    name: What they are called: a folder, or a split.
    split: Of a run's data; empty where images were named.
    place: The folder that the entries are in; empty where they are whole paths, or no files.
    data: All that were given, or the whole split.
  """

  name: str
  split: str
  place: str
  data: Identity

  @classmethod
  def of_items(cls, wanted: Sequence[Item]) -> Self:
    """Returns what images that were named are: files by path and size, images in memory by a CRC-32."""
    paths = [os.path.abspath(item.name) for item in wanted if isinstance(item.content, pathlib.Path)]
    sized = iter(identity.listed(epath.Path('/'), paths) if paths else [])
    entries = tuple(next(sized) if isinstance(item.content, pathlib.Path) else _in_memory(item) for item in wanted)
    folder = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ''
    return cls(folder or 'memory', '', '', Identity((), entries))

  @classmethod
  def of_split(cls, source: Any, split: str) -> Self:
    """Returns what a split of a run's data is."""
    folder = getattr(source, 'folder', '')
    place = '' if not folder or is_remote(folder) else os.path.abspath(folder)
    return cls(f'split {split}', split, place, identity.of(source))

  def to_json(self) -> str:
    """Returns what `of_json` reads, in ASCII whatever files are called."""
    return json.dumps({**self._asdict(), 'data': self.data._asdict(), 'digest': self.data.digest})

  @classmethod
  def of_json(cls, text: str) -> Self:
    """Returns what `to_json` wrote; ValueError, TypeError or LookupError for anything else."""
    read = json.loads(text)
    name, split, place = (str(read[field]) for field in ('name', 'split', 'place'))
    data = Identity(*(tuple(map(str, read['data'][field])) for field in Identity._fields))
    if data.digest != read['digest']:
      raise ValueError(f'images: got digest {read["digest"]!r}, expected {data.digest}')
    return cls(name, split, place, data)

  def shown(self, count: int, split: str = '', source: Any = None) -> str:
    """Returns in words what was calibrated on, and what of it is gone or others by now.

    Args:
      count: Images that the calibration has.
      split: A split that is at hand; what was made on it is compared with all of it.
      source: Its images.
    """
    if source is not None and split and split == self.split:
      now = identity.of(source)
      changed = '' if now.digest == self.data.digest else f'others by now: {identity.difference(self.data, now)}'
    else:
      changed = self._since()
    return printable(f'{count:,} images of {self.name}') + f' ({printable(changed)})' * bool(changed)

  def _since(self) -> str:
    """What became of the files, or of some of very many; those of a bucket, or of no files, are not looked at."""
    step = -(-len(self.data.entries) // _LOOKED_AT) or 1
    before = [(entry.rpartition('\t')[0] or entry, entry) for entry in self.data.entries[::step]]
    before = [(name, entry) for name, entry in before if os.path.isabs(os.path.join(self.place, name))]
    if not before:
      return ''
    now = identity.listed(epath.Path(self.place or '/'), [name for name, _ in before])
    others = [line for (_, entry), line in zip(before, now) if line != entry]
    gone = sum(line.endswith('\t?') for line in others)
    if gone == len(before):
      return 'none of them is there any more'
    counts = {'gone': gone, 'of another size': len(others) - gone}
    said = ' and '.join(f'{number:,} {what}' for what, number in counts.items() if number)
    return f'{said} by now, of {len(before):,}{" looked at" * (step > 1)}' if said else ''


def shown(origin: Origin | None, count: int, split: str = '', source: Any = None) -> str:
  """Returns `Origin.shown`, also where an older version did not keep what it calibrated on."""
  if origin is None:
    return f'{count:,} images that are not known (an older version made it)'
  return origin.shown(count, split, source)


def _in_memory(item: Item) -> str:
  """A line for an image that is no file."""
  content = item.content
  if callable(content) or isinstance(content, pathlib.Path):
    return item.name
  return f'{item.name}: {zlib.crc32(content if isinstance(content, bytes) else content.tobytes()):08x}'
