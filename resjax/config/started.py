"""How images are prepared, where a config leaves that to the network that its run starts from."""

import pathlib
from typing import Any

from ml_collections import ConfigDict

from resjax import checkpoint
from resjax.config.stored import complete, flatten
from resjax.recipes import default

# What leaves a field open: it is as the start has it; where there is none, as the default has it.
_OPEN = {'data.normalize': '', 'eval.interpolation': '', 'eval.crop_fraction': 0}
FIELDS = tuple(_OPEN)


def left(config: ConfigDict) -> list[str]:
  """Returns the fields of `FIELDS` that a config leaves open."""
  flat = flatten(config)
  return [field for field, nothing in _OPEN.items() if flat.get(field) == nothing]


def settled(config: ConfigDict, workdir: str | pathlib.Path | None = None) -> ConfigDict:
  """Returns a config that leaves nothing open.

  A run that goes on has what it began with, whatever became of its start.

  Args:
    config: Reads `FIELDS`, `init.checkpoint` and `drnet.checkpoint`.
    workdir: Of the run.

  Raises:
    FileNotFoundError: There is no such start.
    ValueError: It is damaged, or a newer version wrote it.
    OSError: The disk does not let it be read.
  """
  if not left(config):
    return config
  begun = None if workdir is None else _begun(workdir)
  return filled(config, begun or _start(config))


def filled(config: ConfigDict, values: dict[str, Any] | None = None) -> ConfigDict:
  """Returns a config with what it leaves open taken from dotted fields; None: from the default, and nothing is read."""
  fields = left(config)
  if not fields:
    return config
  values = values or flatten(default.get_config())
  config = config.copy_and_resolve_references()
  with config.ignore_type():
    config.update_from_flattened_dict({field: values[field] for field in fields})
  return config


def _begun(workdir: str | pathlib.Path) -> dict[str, Any] | None:
  """The fields of the run in a workdir; None where there is none that can be read, which training says itself."""
  try:
    return flatten(complete(checkpoint.load_meta(workdir), workdir))
  except (FileNotFoundError, ValueError):
    return None


def _start(config: ConfigDict) -> dict[str, Any] | None:
  """The fields of the network that a run starts from; None where it starts from random weights."""
  field = 'init.checkpoint' if config.init.checkpoint else 'drnet.checkpoint'
  place = flatten(config)[field]
  if not place:
    return None
  try:
    return flatten(complete(checkpoint.load_meta(place), place))
  except FileNotFoundError as error:
    raise FileNotFoundError(f'config.{field}: {error}') from None
