"""Files of weights, in whatever form: names and arrays out; nothing in a file is ever run."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from resjax.interop import saved
from resjax.telling import one_line, printable

# Where checkpoints keep the weights, beside an optimiser's state and other things; and where their moving average.
_NESTED = ('state_dict', 'model', 'model_state_dict')
_AVERAGED = ('state_dict_ema', 'model_ema', 'ema_state_dict', 'ema')

# Of safetensors' metadata: as a config.json has them.
FACTS = 'resjax'

# What torch's averages and compilers have besides weights.
_COUNTED = 'n_averaged'


class Weights(NamedTuple):
  """What a file holds."""

  tensors: dict[str, np.ndarray]  # by torch's names, without what is before all of them, such as `module.`
  architecture: str | None = None  # as a checkpoint names it
  note: str = ''  # which of several were taken
  facts: Mapping[str, Any] = {}  # on images and classes, as resjax's own safetensors files have them


def read(path: str | pathlib.Path, averaged: bool = False) -> Weights:
  """Returns the tensors in a file: safetensors, `.pth`, or a checkpoint with a `state_dict`.

  Args:
    path: Of the file.
    averaged: Whether a checkpoint's moving average of the weights is meant; where it has nothing else, that is taken.

  Raises:
    ValueError: It is damaged, of another form, holds no tensors, or no average.
    OSError: It can't be read.
  """
  path = pathlib.Path(path)
  with path.open('rb') as file:
    begin = file.read(9)
  if begin[8:] == b'{' or path.suffix == '.safetensors':
    tensors, facts = _safetensors(path)
    return _weights(tensors, path, averaged)._replace(facts=facts)
  if begin.startswith((b'PK', b'\x80')):
    found = saved.load(path)
  else:
    raise ValueError(f'{path}: begins with {begin[:4]!r}, expected safetensors, or a .pth as torch.save writes it')
  return _weights(found, path, averaged)


def _weights(found: Any, path: pathlib.Path, averaged: bool) -> Weights:
  """The tensors among what was read."""
  architecture, note = None, ''
  if isinstance(found, Mapping):
    named = found.get('arch')
    architecture = printable(named) if isinstance(named, str) else None
    found, note = _entry(found, path, averaged)
  if not isinstance(found, Mapping) or not any(isinstance(value, np.ndarray) for value in found.values()):
    raise ValueError(f'{path}: holds no tensors by name, expected a state dict (torch.save(model.state_dict(), FILE))')
  tensors = {str(name): value for name, value in found.items() if isinstance(value, np.ndarray) and name != _COUNTED}
  while len(first := {name.partition('.')[0] for name in tensors}) == 1 and all('.' in name for name in tensors):
    tensors = {name.removeprefix(f'{min(first)}.'): value for name, value in tensors.items()}
  return Weights(tensors, architecture, note)


def _entry(found: Mapping[Any, Any], path: pathlib.Path, averaged: bool) -> tuple[Mapping[Any, Any], str]:
  """The part of a checkpoint that holds the weights, and what should be said of it; all of it, where it is those."""
  own = next((key for key in _NESTED if isinstance(found.get(key), Mapping)), None)
  average = next((key for key in _AVERAGED if isinstance(found.get(key), Mapping)), None)
  if average is None:
    if averaged:
      raise ValueError(f'{path}: has no averaged weights, expected them under one of {", ".join(_AVERAGED)}')
    return (found if own is None else found[own]), ''
  if averaged or own is None:
    return found[average], f'weights: the averaged ones ({average})'
  return found[own], f'weights: {own}; the file has averaged ones too ({average}), which --ema takes'


def _safetensors(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """The tensors of a safetensors file, and what resjax said of them where it wrote the file."""
  import safetensors
  import safetensors.numpy  # bfloat16 is known to numpy since `pickles` imported ml_dtypes

  try:
    tensors = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, 'np') as file:
      facts = json.loads((file.metadata() or {}).get(FACTS, '{}'))
  except (
    safetensors.SafetensorError,
    TypeError,
    KeyError,
    ValueError,
    OverflowError,
    MemoryError,
    RecursionError,
  ) as error:
    raise ValueError(f'{path}: {one_line(error)}; expected a whole safetensors file') from None
  if not isinstance(facts, dict):
    raise ValueError(f'{path}: its metadata {FACTS!r} is a {type(facts).__name__}; expected an object')
  return tensors, facts
