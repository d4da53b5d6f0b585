"""`results.json`: what a run found, what it cost, and what it was made with.

```
{'format': 1, 'method': 'rsnet',
 'resolutions': {'224': {'macs': 1814073344, 'top1': 0.731, 'top5': 0.91, 'images': 50000}, ...},
 'ensemble': {'top1': ..., 'top5': ...},
 'params': 11727917, 'train_seconds': ..., 'versions': {...}, 'config': {...}}
```

`format` is that of `resjax.formats`; where it is missing, 0. Resolutions stand highest first. `macs` are multiply-adds
of one image, top-1 and top-5 fractions of 0..1. There may be more: `unreadable`, images that could not be scored;
`groups` {group of images: {resolution: top1}}; `routers` {name: {'macs', 'top1', ...}}; `history`, of a run that was
extended, what came before: a list of {'step', 'images', 'epochs', 'finished', 'config'}; `size`, of a quantised
network, {'quantise': '2/32', 'weights': how many are, 'plain': bytes in float32, 'packed': bytes}. In the file there is
also the `checksum` of all that, see `resjax.checksums`.
"""

import importlib.metadata
import numbers
import os
import pathlib
import platform
from typing import Any

import jax
import numpy as np

from resjax import checksums, formats
from resjax.home import expanded

NAME = 'results.json'

_FIELDS: dict[str, type] = {
  'method': str,
  'resolutions': dict,
  'ensemble': dict,
  'params': numbers.Real,
  'train_seconds': numbers.Real,
  'versions': dict,
  'config': dict,
}
_KINDS: dict[type, str] = {dict: 'a dict', numbers.Real: 'a number', str: 'a name'}
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def write(results: dict[str, Any], workdir: str | os.PathLike[str]) -> pathlib.Path:
  """Writes `workdir/results.json`, whole or not at all.

  Args:
    results: As above; NumPy and JAX scalars are written as numbers.
    workdir: Folder of the run, made where it is missing.

  Returns:
    The file's path.

  Raises:
    ValueError: An entry is missing, an accuracy is not a fraction, or a number is not finite.
  """
  _check(results)
  path = pathlib.Path(expanded(workdir, 'workdir')) / NAME
  try:
    content = checksums.to_json(results, indent=2, allow_nan=False, default=_plain)
  except (TypeError, ValueError) as error:
    raise ValueError(f'results: expected what JSON can hold: {error}') from None
  path.parent.mkdir(parents=True, exist_ok=True)
  checksums.write(path, content)
  return path


def read(workdir: str | os.PathLike[str]) -> dict[str, Any] | None:
  """Returns what `write` wrote to this folder, or None where there is no `results.json`.

  Raises:
    ValueError: The file is not JSON, an entry is missing or out of range, or a newer version wrote it.
  """
  path = pathlib.Path(expanded(workdir, 'workdir')) / NAME
  if not path.exists():
    return None
  try:
    results = checksums.of_json(path.read_bytes())
    number = results.get('format', 0)
    if not isinstance(number, int) or number <= formats.FORMAT:
      _check(results)
      _check_kinds(results)
      if number < 1 and 'budget' in results.get('predictor', {}):
        results['predictor']['budget'] += results['predictor']['macs']  # which a budget had left out
  except (ValueError, TypeError, AttributeError, KeyError) as error:
    raise ValueError(f'{path}: {error}; expected the result of a run (delete it to score the run anew)') from None
  formats.check(number, path)
  return results


def versions() -> dict[str, Any]:
  """Returns the versions of what a result depends on, and the devices it was made on."""
  found = {'python': platform.python_version(), 'resjax': formats.VERSION}
  return (
    found
    | {package: importlib.metadata.version(package) for package in _PACKAGES}
    | {
      'platform': jax.default_backend(),
      'device': jax.devices()[0].device_kind,
      'devices': jax.device_count(),
    }
  )


def title(results: dict[str, Any]) -> str:
  """Returns the run in a few words: its method, network and data."""
  config = results['config']
  data = config['data']
  return ', '.join(
    [
      results['method'],
      config['model']['name'],
      data['name'] if data['source'] == 'tfds' else data['source'],
    ]
  )


def _check(results: dict[str, Any]) -> None:
  """Refuses results without an entry of the schema, or with an accuracy that is no fraction."""
  missing = [field for field in _FIELDS if field not in results]
  if missing:
    raise ValueError(f'results: {", ".join(missing)} missing, expected {", ".join(_FIELDS)}')
  if not results['resolutions']:
    raise ValueError('results: resolutions is empty, expected at least one')
  entries = {f'resolutions.{name}': entry for name, entry in results['resolutions'].items()}
  for name, entry in (entries | {'ensemble': results['ensemble']}).items():
    for field in ('top1', 'top5'):
      if not (field in entry and 0 <= entry[field] <= 1):
        value = entry.get(field, 'nothing')
        raise ValueError(f'results: {name}.{field} is {value}, expected a fraction of 0..1')
  for name, entry in entries.items():
    if not ('macs' in entry and entry['macs'] > 0 and entry.get('images', 0) > 0):
      raise ValueError(f'results: {name} is {entry}, expected macs and images above 0')


def _check_kinds(results: dict[str, Any]) -> None:
  """Refuses a file with entries of another kind than those that are written."""
  for field, kind in _FIELDS.items():
    if not isinstance(results[field], kind):
      raise ValueError(f'results: {field} is {results[field]!r}, expected {_KINDS[kind]}')
  if not (title(results) and results['config']['eval']['pyramid']):  # what is shown of the config
    raise ValueError('results: config is not whole, expected the fields of a run')


def _plain(value: Any) -> Any:
  """A NumPy or JAX number as Python's."""
  if isinstance(value, (np.generic, np.ndarray, jax.Array)):
    return np.asarray(value).tolist()
  raise TypeError(f'{type(value).__name__} {value!r}')
