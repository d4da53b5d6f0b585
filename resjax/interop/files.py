"""Files of weights, in whatever form: names and arrays out; nothing in a file is ever run."""

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from resjax.interop import pickles

# Where checkpoints keep the weights, beside an optimiser's state and other things; the averaged ones are not meant.
_NESTED = ('state_dict', 'model', 'model_state_dict')


class Weights(NamedTuple):
  """What a file holds."""

  tensors: dict[str, np.ndarray]  # by torch's names, without a prefix `module.`
  architecture: str | None  # as a checkpoint names it


def read(path: str | pathlib.Path) -> Weights:
  """Returns the tensors in a file: safetensors, `.pth`, or a checkpoint with a `state_dict`.

  Raises:
    ValueError: It is damaged, of another form, holds no tensors, or is one of torch's old files and torch is missing.
    OSError: It can't be read.
  """
  path = pathlib.Path(path).expanduser()
  with path.open('rb') as file:
    begin = file.read(9)
  if begin.startswith(b'PK'):
    found = pickles.load(path)
  elif begin[8:] == b'{' or path.suffix == '.safetensors':
    found = _safetensors(path)
  elif begin.startswith((b'\x80\x02', b'\x80\x03', b'\x80\x04')):
    found = _legacy(path)
  else:
    raise ValueError(f'{path}: begins with {begin[:4]!r}, expected safetensors, or a .pth as torch.save writes it')
  return _weights(found, path)


def _weights(found: Any, path: pathlib.Path) -> Weights:
  """The tensors among what was read."""
  architecture = None
  if isinstance(found, Mapping):
    named = found.get('arch')
    architecture = named if isinstance(named, str) else None
    found = next((found[key] for key in _NESTED if isinstance(found.get(key), Mapping)), found)
  if not isinstance(found, Mapping) or not any(isinstance(value, np.ndarray) for value in found.values()):
    raise ValueError(f'{path}: holds no tensors by name, expected a state dict (torch.save(model.state_dict(), FILE))')
  tensors = {str(name): value for name, value in found.items() if isinstance(value, np.ndarray)}
  if all(name.startswith('module.') for name in tensors):
    tensors = {name.removeprefix('module.'): value for name, value in tensors.items()}
  return Weights(tensors, architecture)


def _safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The tensors of a safetensors file."""
  import safetensors.numpy  # bfloat16 is known to numpy since `pickles` imported ml_dtypes

  try:
    return safetensors.numpy.load_file(path)
  except (safetensors.SafetensorError, TypeError, KeyError, ValueError) as error:
    raise ValueError(f'{path}: {str(error)[:300]}; expected a whole safetensors file') from None


def _legacy(path: pathlib.Path) -> Any:
  """What one of torch's files from before 2020 holds; torch reads it, and refuses all but tensors."""
  if importlib.util.find_spec('torch') is None:
    raise ValueError(
      f"{path}: a file in torch's old form, which only torch reads: pip install 'resjax[torch]', or save it anew there"
    )
  import torch

  try:
    found = torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:  # torch raises many kinds
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    raise ValueError(f'{path}: {reason[:300]}; expected a whole file of tensors as torch.save writes it') from None
  return _arrays(found, torch.Tensor)


def _arrays(value: Any, tensor: Any) -> Any:
  """A tree of dicts with tensors as arrays."""
  if isinstance(value, Mapping):
    return {key: _arrays(inner, tensor) for key, inner in value.items()}
  if not isinstance(value, tensor):
    return value
  return value.detach().float().numpy() if value.is_floating_point() else value.detach().numpy()
