"""Where weights come from: a file, a folder as timm and the hub keep it, the hub; and what is said of them there."""

import importlib.util
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from resjax.home import present
from resjax.interop import files
from resjax.telling import one_line, printable

HUB = 'hf-hub:'

# Of a folder, in the order in which they are looked for.
_WEIGHTS = ('model.safetensors', 'pytorch_model.bin')
_LARGEST_CONFIG = 16 << 20  # bytes
_SECONDS = 10  # to wait for the hub

# Torchvision's second weights are named by these; they are evaluated at 224 px of 232.
_SECOND = ('11ad3fa6', 'cd907fc2', 'f82ba261', '1a0047aa', '7ebf99e0')
_OF_232 = 0.9655  # int(224 / 0.9655) is 232

# The arguments of a model that change nothing of what its weights compute.
_ARGUMENTS = {'num_classes', 'in_chans', 'global_pool', 'drop_rate', 'drop_path_rate', 'zero_init_last'}

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
  note: str = ''  # on what was taken
  resolutions: tuple[int, ...] | None = None  # of files that resjax wrote


def read(source: str | pathlib.Path, largest: int, averaged: bool = False) -> Source:
  """Returns the weights that a user names.

  Args:
    source: A file; a folder with config.json and model.safetensors; or `hf-hub:OWNER/NAME`, optionally `@REVISION`.
    largest: The highest input size in pixels that is wanted: some sources have a crop fraction of their own for it.
    averaged: Whether a checkpoint's moving average of the weights is meant.

  Raises:
    FileNotFoundError: It is not there.
    ValueError: It can't be had from the hub, is damaged, or of another form.
    OSError: It can't be read.
  """
  name = str(source)
  if name.startswith(HUB):
    return _of_folder(_from_hub(name), name, largest, averaged)
  path = pathlib.Path(present(source, 'source'))
  if not path.exists():
    raise FileNotFoundError(f'{name}: not there, expected {_way(name)}')
  if path.is_dir():
    return _of_folder({file: path / file for file in (*_WEIGHTS, 'config.json', 'README.md')}, name, largest, averaged)
  weights = files.read(path, averaged)
  found = _source(name, weights, weights.facts, f'{name}: metadata', largest)
  second = any(f'-{digest}' in path.name for digest in _SECOND)
  return found._replace(
    architecture=found.architecture or _same_keys(path.name),
    crop_fraction=_OF_232 if second else found.crop_fraction,
  )


def _way(name: str) -> str:
  """What to type instead of a source that is not there."""
  if re.match(r'https?://', name, re.IGNORECASE):
    return f'a file of this machine: download it first (curl -LO {name})'
  hub = f', or {HUB}{name}' if re.fullmatch(r'[\w-]+/[\w.-]+', name) else f', or {HUB}OWNER/NAME'
  return f'a file, a folder{hub}'


def _same_keys(name: str) -> str | None:
  """The architecture in the name of a file, where it is one that has another's keys."""
  found = re.match(r'(?:tf_|tv_)?resnet(?:aa|blur)\d+(?![a-z0-9])', name.lower())
  return found[0] if found else None


def _from_hub(name: str) -> dict[str, pathlib.Path]:
  """The files of a repository of the hub, in the cache of its client library, fetched where they are not there yet."""
  if importlib.util.find_spec('huggingface_hub') is None:
    raise ValueError(f"{name}: needs huggingface_hub: pip install 'resjax[hub]'")
  import huggingface_hub

  huggingface_hub.logging.set_verbosity_error()
  repository, _, revision = name.removeprefix(HUB).partition('@')
  found: dict[str, pathlib.Path] = {}
  reason = ''
  try:
    huggingface_hub.HfApi().model_info(repository, revision=revision or None, timeout=_SECONDS)
  except (huggingface_hub.errors.HfHubHTTPError, huggingface_hub.errors.HFValidationError) as error:
    reason = one_line(error)
  except Exception as error:  # of the hub's client and of those below it; the reason is the first line
    reason = f'the hub can not be reached ({one_line(error)})'
  cached = bool(reason)  # alone: asking again for every file would take minutes
  for file in ('config.json', *_WEIGHTS, 'README.md'):
    if file == _WEIGHTS[1] and _WEIGHTS[0] in found:
      continue
    try:
      path = huggingface_hub.hf_hub_download(repository, file, revision=revision or None, local_files_only=cached)
      found[file] = pathlib.Path(path)
    except Exception as error:
      reason = reason or one_line(error)
      if file == 'config.json':
        break
  if not any(file in found for file in _WEIGHTS):
    raise ValueError(f'{name}: {reason}; expected a repository that the hub, or its cache on this machine, has')
  return found


def _of_folder(found: Mapping[str, pathlib.Path], name: str, largest: int, averaged: bool) -> Source:
  """The weights among files by name, with what their config.json and README.md say."""
  path = next((found[file] for file in _WEIGHTS if file in found and found[file].is_file()), None)
  if path is None or not found['config.json'].is_file():
    raise FileNotFoundError(f'{name}: expected a folder with config.json and {" or ".join(_WEIGHTS)}')
  config = _json(found['config.json'])
  pretrained = config.get('pretrained_cfg')
  said = (
    {field: value for field, value in pretrained.items() if value is not None} if isinstance(pretrained, dict) else {}
  )
  facts = config | said
  card = found.get('README.md')
  where = f'{name}/config.json'
  _check_function(facts, where)
  source = _source(name, files.read(path, averaged), facts, where, largest)
  carded = _license_of(card) if card is not None and card.is_file() else None
  both = (source.license or '').lower() != (carded or '').lower() and source.license and carded
  return source._replace(
    license=f'{source.license}; its model card says {carded}' if both else source.license or carded
  )


def _source(name: str, weights: files.Weights, facts: Mapping[str, Any], where: str, largest: int) -> Source:
  """Weights with the facts on them."""
  return Source(
    name,
    weights.tensors,
    architecture=_text(facts, 'architecture') or weights.architecture,
    mean=_channels(facts, 'mean', where),
    std=_channels(facts, 'std', where),
    crop_fraction=_crop_fraction(facts, largest, where),
    interpolation=_text(facts, 'interpolation'),
    class_names=_class_names(facts),
    license=_text(facts, 'license'),
    note=weights.note,
    resolutions=_sizes(weights.facts),
  )


def _check_function(facts: Mapping[str, Any], where: str) -> None:
  """Refuses facts of networks that compute something else with the same keys."""
  for field, expected in (('crop_mode', 'center'), ('global_pool', 'avg')):
    if facts.get(field) not in (expected, None):
      raise ValueError(f'{where}: {field}: got {_short(facts[field])}, expected {expected!r}')
  arguments = facts.get('model_args')
  if arguments is None:
    return
  if not isinstance(arguments, dict):
    raise ValueError(f'{where}: model_args: got {_short(arguments)}, expected an object')
  _check_function({'global_pool': arguments.get('global_pool')}, f'{where}: model_args')
  other = sorted(arguments.keys() - _ARGUMENTS)
  if other:
    raise ValueError(
      f'{where}: model_args: got {_short(", ".join(other))}, expected none of those that change the network, but '
      f'{", ".join(sorted(_ARGUMENTS))}'
    )


def _short(value: Any) -> str:
  """A value as messages show it."""
  try:
    return printable(repr(value)[:100])
  except (RecursionError, ValueError):  # lists in lists, and numbers of thousands of digits
    return type(value).__name__


def _json(path: pathlib.Path) -> dict[str, Any]:
  """A JSON file of one object."""
  with path.open('rb') as file:
    text = file.read(_LARGEST_CONFIG + 1)
  try:
    value = json.loads(text.decode('utf-8-sig')) if len(text) <= _LARGEST_CONFIG else None
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path}: {one_line(error)}; expected JSON') from None
  if not isinstance(value, dict):
    raise ValueError(f'{path}: expected a JSON object of at most {_LARGEST_CONFIG:,} bytes')
  return value


def _text(facts: Mapping[str, Any], field: str) -> str | None:
  """A field that is a string, or None."""
  value = facts.get(field)
  return printable(value[:200]) if isinstance(value, str) else None


def _sizes(facts: Mapping[str, Any]) -> tuple[int, ...] | None:
  """The sizes of a network that resjax wrote, or None."""
  value = facts.get('resolutions')
  if not isinstance(value, list) or not value or not all(type(size) is int and 0 < size < 1 << 16 for size in value):
    return None
  return tuple(value)


def _is_number(value: Any) -> bool:
  """Whether a value is a number that float32 holds."""
  return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e38


def _channels(facts: Mapping[str, Any], field: str, where: str) -> Channels | None:
  """A field of three numbers, or None."""
  value = facts.get(field)
  if value is None:
    return None
  if not isinstance(value, list) or len(value) != 3 or not all(map(_is_number, value)):
    raise ValueError(f'{where}: {field}: got {_short(value)}, expected three numbers')
  return tuple(map(float, value))


def _crop_fraction(facts: Mapping[str, Any], largest: int, where: str) -> float | None:
  """The crop fraction; that of a test where the size of the test is wanted."""
  size = facts.get('test_input_size')
  at_test = isinstance(size, list) and size[-1:] == [largest]
  field = 'test_crop_pct' if at_test and 'test_crop_pct' in facts else 'crop_pct'
  value = facts.get(field)
  if value is not None and not _is_number(value):
    raise ValueError(f'{where}: {field}: got {_short(value)}, expected a number')
  return None if value is None else float(value)


def _class_names(facts: Mapping[str, Any]) -> tuple[str, ...] | None:
  """What the classes are called, in words where there are any: timm's names, or the hub's `id2label`."""
  names, words = facts.get('label_names'), facts.get('label_descriptions')
  numbered = facts.get('id2label')
  if names is None and isinstance(numbered, dict):
    names = [numbered.get(str(number)) for number in range(len(numbered))]
  if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
    return None
  return tuple(printable(str(words.get(name, name)) if isinstance(words, dict) else name) for name in names)


def _license_of(card: pathlib.Path) -> str | None:
  """The licence in the head of a model card: of `other` its name, of a list all."""
  with card.open(encoding='utf-8', errors='replace') as file:
    head = file.read(_LARGEST_CONFIG).split('\n---', 1)[0]
  if not head.startswith('---'):
    return None
  said = {}
  for field in ('license', 'license_name'):
    found = re.search(rf'^{field}:[ \t]*(\S.*)?((?:\n[ \t]*-[ \t].*)*)$', head, re.MULTILINE)
    words = [found[1] or '', *found[2].split('\n')] if found else []
    said[field] = ', '.join(filter(None, (word.strip(' \t-[]"\'') for word in words)))
  other = said['license'].lower() == 'other' and said['license_name']
  return printable((other or said['license'])[:200]) or None
