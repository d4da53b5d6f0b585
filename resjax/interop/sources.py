"""Where weights come from: a file, a folder as timm and the hub keep it, the hub; and what is said of them there."""

import importlib.util
import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from resjax.interop import files

HUB = 'hf-hub:'

# Of a folder, in the order in which they are looked for.
_WEIGHTS = ('model.safetensors', 'pytorch_model.bin')
_LARGEST_CONFIG = 16 << 20  # bytes

# Torchvision's second weights are named by these; they are evaluated at 224 px of 232.
_SECOND = ('11ad3fa6', 'cd907fc2', 'f82ba261', '1a0047aa', '7ebf99e0')
_OF_232 = 0.9655  # int(224 / 0.9655) is 232

Channels = tuple[float, ...]


class Source(NamedTuple):
  """Weights, and what their source says of them; None where it says nothing."""

  name: str
  tensors: dict[str, np.ndarray]
  architecture: str | None = None
  mean: Channels | None = None
  std: Channels | None = None
  crop_fraction: float | None = None
  interpolation: str | None = None
  class_names: tuple[str, ...] | None = None
  license: str | None = None


def read(source: str | pathlib.Path, largest: int) -> Source:
  """Returns the weights that a user names.

  Args:
    source: A file; a folder with config.json and model.safetensors; or `hf-hub:OWNER/NAME`, optionally `@REVISION`.
    largest: The highest input size in pixels that is wanted: some sources have a crop fraction of their own for it.

  Raises:
    FileNotFoundError: It is not there.
    ValueError: It can't be had from the hub, is damaged, or of another form.
    OSError: It can't be read.
  """
  name = str(source)
  if name.startswith(HUB):
    return _of_folder(_from_hub(name), name, largest)
  path = pathlib.Path(source).expanduser()
  if path.is_dir():
    return _of_folder({file: path / file for file in (*_WEIGHTS, 'config.json', 'README.md')}, name, largest)
  weights = files.read(path)
  second = any(f'-{digest}' in path.name for digest in _SECOND)
  return Source(name, weights.tensors, weights.architecture, crop_fraction=_OF_232 if second else None)


def _from_hub(name: str) -> dict[str, pathlib.Path]:
  """The files of a repository of the hub, in the cache of its client library, fetched where they are not there yet."""
  if importlib.util.find_spec('huggingface_hub') is None:
    raise ValueError(f"{name}: needs huggingface_hub: pip install 'resjax[hub]'")
  import huggingface_hub

  repository, _, revision = name.removeprefix(HUB).partition('@')
  found: dict[str, pathlib.Path] = {}
  reason = ''
  for file in ('config.json', *_WEIGHTS, 'README.md'):
    if file == _WEIGHTS[1] and _WEIGHTS[0] in found:
      continue
    try:
      found[file] = pathlib.Path(huggingface_hub.hf_hub_download(repository, file, revision=revision or None))
    except Exception as error:  # of the hub's client and of those below it; the reason is the first line
      if file != 'README.md':
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:300]
      if file == 'config.json':
        break
  if not any(file in found for file in _WEIGHTS):
    raise ValueError(f'{name}: {reason}; expected a repository that the hub, or its cache on this machine, has')
  return found


def _of_folder(found: Mapping[str, pathlib.Path], name: str, largest: int) -> Source:
  """The weights among files by name, with what their config.json and README.md say."""
  path = next((found[file] for file in _WEIGHTS if file in found and found[file].is_file()), None)
  if path is None or not found['config.json'].is_file():
    raise FileNotFoundError(f'{name}: expected a folder with config.json and {" or ".join(_WEIGHTS)}')
  config = _json(found['config.json'])
  pretrained = config.get('pretrained_cfg')
  facts = config | pretrained if isinstance(pretrained, dict) else config
  card = found.get('README.md')
  weights = files.read(path)
  where = f'{name}/config.json'
  if facts.get('crop_mode', 'center') != 'center':
    raise ValueError(f"{where}: crop_mode: got {facts['crop_mode']!r}, expected 'center'")
  return Source(
    name,
    weights.tensors,
    architecture=_text(facts, 'architecture') or weights.architecture,
    mean=_channels(facts, 'mean', where),
    std=_channels(facts, 'std', where),
    crop_fraction=_crop_fraction(facts, largest, where),
    interpolation=_text(facts, 'interpolation'),
    class_names=_class_names(config),
    license=_text(facts, 'license') or (_license_of(card) if card is not None and card.is_file() else None),
  )


def _json(path: pathlib.Path) -> dict[str, Any]:
  """A JSON file of one object."""
  with path.open('rb') as file:
    text = file.read(_LARGEST_CONFIG + 1)
  try:
    value = json.loads(text) if len(text) <= _LARGEST_CONFIG else None
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path}: {error}; expected JSON') from None
  if not isinstance(value, dict):
    raise ValueError(f'{path}: expected a JSON object of at most {_LARGEST_CONFIG:,} bytes')
  return value


def _text(facts: Mapping[str, Any], field: str) -> str | None:
  """A field that is a string, or None."""
  value = facts.get(field)
  return value if isinstance(value, str) else None


def _is_number(value: Any) -> bool:
  """Whether a value is a finite number."""
  return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _channels(facts: Mapping[str, Any], field: str, where: str) -> Channels | None:
  """A field of three numbers, or None."""
  value = facts.get(field)
  if value is None:
    return None
  if not isinstance(value, list) or len(value) != 3 or not all(map(_is_number, value)):
    raise ValueError(f'{where}: {field}: got {value!r}, expected three numbers')
  return tuple(map(float, value))


def _crop_fraction(facts: Mapping[str, Any], largest: int, where: str) -> float | None:
  """The crop fraction; that of a test where the size of the test is wanted."""
  size = facts.get('test_input_size')
  at_test = isinstance(size, list) and size[-1:] == [largest]
  field = 'test_crop_pct' if at_test and 'test_crop_pct' in facts else 'crop_pct'
  value = facts.get(field)
  if value is not None and not _is_number(value):
    raise ValueError(f'{where}: {field}: got {value!r}, expected a number')
  return None if value is None else float(value)


def _class_names(config: Mapping[str, Any]) -> tuple[str, ...] | None:
  """What the classes are called, in words where there are any."""
  names, words = config.get('label_names'), config.get('label_descriptions')
  if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
    return None
  return tuple(str(words.get(name, name)) if isinstance(words, dict) else name for name in names)


def _license_of(card: pathlib.Path) -> str | None:
  """The licence in the head of a model card."""
  with card.open(encoding='utf-8', errors='replace') as file:
    head = file.read(_LARGEST_CONFIG).split('\n---', 1)[0]
  found = re.search(r'^license:[ \t]*(\S.*)$', head, re.MULTILINE) if head.startswith('---') else None
  return found[1].strip() if found else None
