"""A finished run as one small file: which images each way got right, what that cost, and what it was made with.

```
{'format': 1, 'arm': 'RS-Net', 'seed': 0, 'config': {...}, 'start': {...} or None, 'sizes': [], 'fractions': [],
 'recalibrated': False, 'earlier': [], 'prunes': [], 'members': [],
 'images': 10000, 'ways': {'32': {'macs': 12501632, 'right': '...'}, ..., 'ensemble': {...}},
 'seconds': 61.2, 'epochs': 3.5, 'params': 79389, 'data': {...}, 'versions': {...}, 'machine': '...', 'date': '...'}
```

`right` has a bit for each image, packed by NumPy, compressed by zlib, in base 64. `data` is what `data.identity.stored`
returns. `start` is the config of the run whose network this one started from, `earlier` those that that one comes from,
the nearest first; `prunes` the share of channels that went before this run, before its start, and so on.
`members` are networks that answer together, as what the config of each has otherwise than `config`, by dotted name.
"""

import base64
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from resjax import checksums, formats
from resjax import config as configuration
from resjax.evidence.jobs import key_of

__all__ = ['Record', 'Way', 'pack', 'read', 'read_all', 'unpack', 'write']

_FIELDS = {'arm': str, 'seed': int, 'config': dict, 'images': int, 'ways': dict, 'seconds': int | float, 'data': dict}


class Way(NamedTuple):
  """One way to run a network: what it got right of the images, bool `[N]`, and its multiply-adds for one of them."""

  right: np.ndarray
  macs: float


class Record(NamedTuple):
  """A finished run."""

  key: str
  ways: Mapping[str, Way]
  about: Mapping[str, Any]  # all else that the file holds


def pack(right: np.ndarray) -> str:
  """Returns bits, bool `[N]`, as text."""
  return base64.b64encode(zlib.compress(np.packbits(right).tobytes(), 9)).decode()


def unpack(text: str, count: int) -> np.ndarray:
  """Returns what `pack` was given, bool `[count]`.

  Raises:
    ValueError: It is not so many bits.
  """
  try:
    packed = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), np.uint8)
  except (zlib.error, TypeError) as error:
    raise ValueError(f'right: damaged ({error})') from None
  if len(packed) != -(-count // 8):
    raise ValueError(f'right: got {len(packed)} bytes, expected those of {count} images')
  return np.unpackbits(packed, count=count).astype(bool)


def write(path: pathlib.Path, ways: Mapping[str, Way], about: Mapping[str, Any]) -> None:
  """Writes a record, whole or not at all.

  Args:
    path: Its file.
    ways: By name.
    about: All else that a record has, as above.

  Raises:
    OSError: It can't be written.
  """
  packed = {name: {'macs': way.macs, 'right': pack(way.right)} for name, way in ways.items()}
  content = {'format': formats.FORMAT, **about, 'ways': packed}
  path.parent.mkdir(parents=True, exist_ok=True)
  checksums.write(path, checksums.to_json(content, allow_nan=False))


def read(path: pathlib.Path) -> Record:
  """Returns the record in a file.

  Raises:
    ValueError: It is damaged, or a newer version wrote it.
    OSError: It can't be read.
  """
  try:
    content = checksums.of_json(path.read_bytes())
    wrong = [name for name, kind in _FIELDS.items() if not isinstance(content.get(name), kind)]
    if wrong:
      raise ValueError(f'{", ".join(wrong)} missing')
    formats.check(content.get('format', 0), path)
    ways = {
      name: Way(unpack(way['right'], content['images']), way['macs']) for name, way in content.pop('ways').items()
    }
    config = configuration.complete(content, path)
    key = key_of(config, *_start(content, path))
  except (ValueError, LookupError, TypeError, AttributeError) as error:
    text = str(error).removeprefix(f'{path}: ')
    raise ValueError(f'{path}: {text}; expected a finished run (delete it to run it anew)') from None
  return Record(key, ways, content)


def _start(content: Mapping[str, Any], path: pathlib.Path) -> tuple[Any, ...]:
  """What `key_of` takes besides the config."""
  configs = [each for each in (content.get('start'), *content.get('earlier', ())) if each]
  own, *prunes = [*content.get('prunes', ()), *[0.0] * (len(configs) + 1)][: len(configs) + 1]
  start = None
  for config, prune in reversed([*zip(configs, prunes, strict=True)]):
    start = key_of(configuration.complete({**content, 'config': config}, path), start, prune=prune)
  members = []
  for changed in content.get('members', ()):
    member = configuration.complete({**content, 'config': content['config']}, path)
    with member.ignore_type():
      member.update_from_flattened_dict(dict(changed))
    members.append(configuration.from_json(configuration.to_json(member)))
  return start, content.get('sizes', ()), content.get('fractions', ()), own, members, content.get('recalibrated', False)


def read_all(folder: pathlib.Path) -> Iterator[Record]:
  """Yields the records in a folder; errors as of `read`."""
  for path in sorted(folder.glob('*.json')):
    yield read(path)
