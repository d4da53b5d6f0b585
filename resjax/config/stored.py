"""A config as it is stored: its JSON form, read again by newer versions; what may change when a run goes on."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax.traverse_util import unflatten_dict
from ml_collections import ConfigDict

from resjax import formats, macs, models
from resjax.config import extension
from resjax.models.predictor import PREDICTORS, create_predictor
from resjax.recipes import default
from resjax.routing.budget import Budget

# Fields that may differ when a run goes on: they change where, how fast or how often, not what is computed.
FREE = (
  'data.dir',
  'data.cache',
  'data.workers',
  'data.threads',
  'data.max_bad_images',
  'data.max_pixels',
  'eval',
  'log_steps',
  'wandb',
  'checkpoint',
  'parallel',
  'memory',
  'remat',
)

# Each brings the fields of a stored config, by dotted name, from one format to the next: where fields were renamed or
# removed, or mean something else. `formats.FORMAT` counts them.
_UPGRADES: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = (lambda fields: _budget_with_predictor(fields),)

# The default of version 0.2 and before, which some phones' photographs were above; it stands for today's.
_OLD_MAX_PIXELS = 50_000_000

# Fields that one method alone reads.
_OF_METHOD = {'drnet': 'drnet.'}


def flatten(config: ConfigDict | Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns the config as one dict of dotted fields."""
  flat: dict[str, Any] = {}
  for name, value in config.items():
    if isinstance(value, ConfigDict | Mapping):
      flat |= flatten(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = value
  return flat


def fields_read(config: ConfigDict, method: str) -> dict[str, Any]:
  """Returns the fields that a method reads, by dotted name, as JSON values."""
  others = [prefix for other, prefix in _OF_METHOD.items() if other != method]
  return {name: value for name, value in flatten(to_json(config)).items() if not name.startswith(tuple(others))}


def to_json(config: ConfigDict) -> dict[str, Any]:
  """Returns the config as JSON values: tuples become lists."""
  return json.loads(json.dumps(config.to_dict()))


def from_json(values: Mapping[str, Any]) -> ConfigDict:
  """Returns a config from what `to_json` gave: lists become tuples."""

  def convert(value: Any) -> Any:
    if isinstance(value, dict):
      return {k: convert(v) for k, v in value.items()}
    return tuple(map(convert, value)) if isinstance(value, list) else value

  return ConfigDict(convert(values))


def complete(stored: Mapping[str, Any], where: str | os.PathLike[str]) -> ConfigDict:
  """Returns the config of a stored run as this version has it: upgraded, and with defaults where fields came later.

  Args:
    stored: What was saved with the run: `config`, as `to_json` gave it, and its `format`; without one it is 0.
    where: What messages call it.

  Returns:
    A config with the fields of the default. Of format 0, fields of a recipe's own are left out: nothing read them.

  Raises:
    ValueError: A newer version wrote it, or it is damaged.
  """
  number = formats.check(stored.get('format', 0), where)
  if not isinstance(stored.get('config'), Mapping):
    raise ValueError(f'{where}: damaged, got config {stored.get("config")!r}, expected the fields of a run')
  defaults = flatten(default.get_config())
  fields = defaults | flatten(from_json(stored['config']))
  if fields['data.max_pixels'] == _OLD_MAX_PIXELS:
    fields['data.max_pixels'] = defaults['data.max_pixels']
  try:
    for upgrade in _UPGRADES[number:]:
      fields = upgrade(fields)
  except (ValueError, TypeError, LookupError, ArithmeticError) as error:
    raise ValueError(f'{where}: the stored config can not be brought to this version ({error})') from None
  unknown = sorted(fields.keys() - defaults.keys())
  if unknown and number:
    raise ValueError(
      f'{where}: got config.{unknown[0]}, no field of this version: a newer resjax wrote it, update resjax'
    )
  return ConfigDict(unflatten_dict({name: fields[name] for name in defaults}, sep='.'))


def _budget_with_predictor(fields: dict[str, Any]) -> dict[str, Any]:
  """From format 0 to 1: a budget counts the predictor's own multiply-adds, which it had left out."""
  if fields['method'] != 'drnet':
    return fields
  size, name = fields['drnet.predictor.size'], fields['drnet.predictor.name']
  count, width = len(fields['resolutions']), fields['drnet.predictor.width']
  predictor_macs = macs.of_model(create_predictor(name, resolutions=count, width=width), size or PREDICTORS[name][1])
  return fields | {'drnet.budget': _budget_in_macs(fields) + predictor_macs}


def _budget_in_macs(fields: Mapping[str, Any]) -> float:
  """The budget of a config by dotted names, in multiply-adds."""
  classes, width = fields['model.num_classes'], fields['model.width']
  network = models.create(fields['model.name'], num_classes=classes, width=width)
  return Budget.parse(fields['drnet.budget']).target(macs.of_model(network, fields['resolutions'][0]))


def changed(saved: Mapping[str, Any], config: ConfigDict, free: Sequence[str] = FREE) -> dict[str, tuple[Any, Any]]:
  """Returns the old and the new value of each field that differs, is read by the method, and is not free to differ.

  Args:
    saved: As `to_json` gave it when the run started.
    config: Of the run that wants to go on.
    free: Fields, and sections, that may differ.
  """
  old, new = fields_read(from_json(saved), config.method), fields_read(config, config.method)
  fields = [field for field in sorted(old.keys() | new.keys()) if not extension.among(field, free)]
  found = {field: (old.get(field), new.get(field)) for field in fields if old.get(field) != new.get(field)}
  if 'drnet.budget' in found and math.isclose(_budget_in_macs(old), _budget_in_macs(new), rel_tol=1e-9):
    del found['drnet.budget']  # one is a share, the other as many multiply-adds
  return found


def differences(saved: Mapping[str, Any], config: ConfigDict) -> list[str]:
  """Returns one line for each field of `changed`, which see."""
  return extension.lines(changed(saved, config))


def check_same(stored: Mapping[str, Any], config: ConfigDict, where: str) -> None:
  """Refuses to go on with a run that was started with another config.

  Args:
    stored: As of `complete`.
    config: Of the run that wants to go on.
    where: What messages call the stored run.

  Raises:
    ValueError: Fields differ, and all are named; or a newer version wrote it.
  """
  different = changed(to_json(complete(stored, where)), config)
  if different:
    extend = '' if extension.of_network(different) else ', --extend to go on under this one'
    raise ValueError(
      f'{where} holds a run with another config ({"; ".join(extension.lines(different))}): give its config'
      f'{extend}, or another --workdir'
    )
