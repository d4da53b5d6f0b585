"""A run's config: made from a recipe, checked, stored as JSON and read again; what may change when a run goes on."""

import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from resjax import formats, losses, macs, models, preprocess, recipes, resize, switchable
from resjax.models.predictor import PREDICTORS, create_predictor
from resjax.recipes import default

# Fields that may differ when a run goes on: they change where, how fast or how often, not what is computed.
FREE = (
  'data.dir',
  'data.cache',
  'data.workers',
  'data.threads',
  'data.max_bad_images',
  'eval',
  'log_steps',
  'checkpoint',
  'parallel',
  'memory',
)

_CHOICES = {
  'method': ('rsnet', 'drnet'),
  'distillation': losses.DISTILLATIONS,
  'drnet.start': ('scratch', 'pretrain', 'checkpoint'),
  'drnet.estimator': ('dense', 'routed', 'supervised'),
  'drnet.predictor.name': tuple(PREDICTORS),
  'model.dtype': ('float32', 'bfloat16'),
  'data.source': ('tfds', 'folder', 'scaled_digits', 'fake'),
  'data.crop': ('random_resized', 'full'),
  'data.crops': ('same', 'different'),
  'data.pyramid': ('device', 'host'),
  'data.flip': preprocess.FLIPS,
  'eval.pyramid': ('device', 'host'),
  'eval.interpolation': tuple(resize.KERNELS),
  'optimizer.name': ('sgd', 'adamw'),
  'optimizer.schedule': ('cosine', 'step', 'constant'),
  'optimizer.decay': ('kernels', 'all'),
  'parallel': ('shard_map', 'pmap'),
  'memory': ('joint', 'two_pass'),
}

# Each brings the fields of a stored config, by dotted name, from one format to the next: where fields were renamed or
# removed, or mean something else. `formats.FORMAT` counts them.
_UPGRADES: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = (lambda fields: _budget_with_predictor(fields),)

# Fields that one method alone reads.
_OF_METHOD = {'drnet': 'drnet.'}

_Check = tuple[Callable[[Any], bool], str]
_POSITIVE: _Check = (lambda v: v > 0, 'more than 0')
_NOT_NEGATIVE: _Check = (lambda v: v >= 0, '0 or more')
_SHARE: _Check = (lambda v: 0 <= v < 1, '0 or more and less than 1')
_RANGES: dict[str, _Check] = {
  'batch_size': _POSITIVE,
  'eval.batch_size': _POSITIVE,
  'epochs': _POSITIVE,
  'seed': (lambda v: 0 <= v < 2**32, '0 or more and less than 2**32'),
  'label_smoothing': _SHARE,
  'drnet.pretrain.epochs': _POSITIVE,
  'drnet.pretrain.learning_rate': _POSITIVE,
  'drnet.pretrain.step_epochs': _POSITIVE,
  'drnet.pretrain.warmup_epochs': _NOT_NEGATIVE,
  'drnet.budget': _POSITIVE,
  'drnet.eta': _NOT_NEGATIVE,
  'drnet.tau': _POSITIVE,
  'drnet.tau_end': _POSITIVE,
  'drnet.margin': (lambda v: v >= 1, '1 or more'),
  'drnet.learning_rate_factor': _POSITIVE,
  'drnet.predictor.size': _NOT_NEGATIVE,
  'drnet.predictor.width': _POSITIVE,
  'model.num_classes': (lambda v: v > 1, '2 or more'),
  'model.width': _POSITIVE,
  'data.size': _NOT_NEGATIVE,
  'data.workers': _NOT_NEGATIVE,
  'data.threads': _POSITIVE,
  'data.max_bad_images': _NOT_NEGATIVE,
  'data.max_pixels': _POSITIVE,
  'data.crop_area': (lambda v: len(v) == 2 and 0 < v[0] <= v[1] <= 1, '0 < lowest <= highest <= 1'),
  'data.crop_ratio': (lambda v: len(v) == 2 and 0 < v[0] <= v[1], '0 < lowest <= highest'),
  'eval.every_epochs': _NOT_NEGATIVE,
  'eval.crop_fraction': (lambda v: 0 < v <= 1, 'more than 0, at most 1'),
  'optimizer.learning_rate': _POSITIVE,
  'optimizer.step_epochs': _POSITIVE,
  'optimizer.step_factor': _POSITIVE,
  'optimizer.warmup_epochs': _NOT_NEGATIVE,
  'optimizer.momentum': _SHARE,
  'optimizer.weight_decay': _NOT_NEGATIVE,
  'optimizer.accumulate': _POSITIVE,
  'optimizer.ema_decay': _SHARE,
  'log_steps': _POSITIVE,
  'checkpoint.every_epochs': _POSITIVE,
  'checkpoint.keep': _POSITIVE,
}


def load(recipe: str | pathlib.Path, fields: Sequence[str] = ()) -> ConfigDict:
  """Returns the config of a recipe, checked.

  Args:
    recipe: One of `recipes.NAMES`, or a file, as of `recipes.make`.
    fields: What is set on top, as `--config.FIELD=VALUE`.

  Raises:
    FileNotFoundError: There is no such recipe.
    ValueError: It has no such field, or a value does not fit; see `validate`.
  """
  config = recipes.make(recipe, fields)
  validate(config)
  return config


def validate(config: ConfigDict) -> None:
  """Raises ValueError, in one line that names the field, its value and what was expected, if a run can't start so."""
  flat, known = flatten(config), flatten(default.get_config())
  for field in flat.keys() ^ known.keys():
    reason = 'no such field, expected one' if field in flat else 'missing, expected every field'
    raise ValueError(f'config.{field}: {reason} of resjax/recipes/default.py')
  for field, choices in _CHOICES.items():
    if flat[field] not in choices:
      raise ValueError(f'config.{field}: got {flat[field]!r}, expected one of {", ".join(choices)}')
  for field, (ok, expected) in _RANGES.items():
    if not _finite(flat[field]) or not ok(flat[field]):
      raise ValueError(f'config.{field}: got {flat[field]!r}, expected {expected}')
  resolutions = tuple(config.resolutions)
  try:
    models.check_name(config.model.name)
    switchable.check_resolutions(resolutions)
    preprocess.mean_and_std(config.data.normalize, 'data.normalize')
  except ValueError as error:
    raise ValueError(f'config.{error}') from None
  if list(resolutions) != sorted(resolutions, reverse=True):
    raise ValueError(f'config.resolutions: got {resolutions}, expected the highest first')
  if config.data.crops == 'different' and config.data.pyramid != 'host':
    raise ValueError(
      "config.data.pyramid: got 'device' with data.crops='different', expected 'host' "
      '(the device makes the lower resolutions from one crop)'
    )
  if config.memory == 'two_pass':
    for field, expected in (('method', 'rsnet'), ('parallel', 'shard_map')):
      if config[field] != expected:
        raise ValueError(f"config.memory: got 'two_pass' with {field}={config[field]!r}, expected {field}={expected!r}")
  if config.method == 'drnet':
    _validate_drnet(config)


def _finite(value: Any) -> bool:
  """Whether a field is a finite number, or a tuple of them."""
  values = value if isinstance(value, tuple | list) else (value,)
  return all(isinstance(v, int | float) and math.isfinite(v) for v in values)


def _validate_drnet(config: ConfigDict) -> None:
  """Raises ValueError if fields of DRNet contradict each other."""
  options, resolutions = config.drnet, tuple(config.resolutions)
  if len(resolutions) < 2:
    raise ValueError(f"config.resolutions: got {resolutions}, expected two or more to choose from with method='drnet'")
  if config.shared_batch_norm:
    raise ValueError("config.shared_batch_norm: got True, expected False with method='drnet'")
  if config.data.crops != 'same':
    raise ValueError(f"config.data.crops: got {config.data.crops!r}, expected 'same' with method='drnet'")
  if options.tau_end > options.tau:
    raise ValueError(f'config.drnet.tau_end: got {options.tau_end}, expected at most tau = {options.tau}')
  size = options.predictor.size or PREDICTORS[options.predictor.name][1]
  if size > resolutions[0]:
    raise ValueError(
      f'config.drnet.predictor.size: got {size}, expected at most {resolutions[0]}, the largest resolution'
    )
  if (options.start == 'checkpoint') != bool(options.checkpoint):
    raise ValueError(
      f'config.drnet.checkpoint: got {options.checkpoint!r}, expected the workdir of an RS-Net run with '
      "drnet.start='checkpoint', and nothing otherwise"
    )
  if options.start == 'scratch' and options.frozen:
    raise ValueError(
      "config.drnet.frozen: got True, expected False with drnet.start='scratch' (nothing is trained yet)"
    )
  if options.estimator == 'supervised' and not options.frozen:
    raise ValueError("config.drnet.frozen: got False, expected True with drnet.estimator='supervised'")


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
    ValueError: A newer version wrote it.
  """
  number = stored.get('format', 0)
  formats.check(number, where)
  config = default.get_config()
  fields = flatten(config) | flatten(from_json(stored['config']))
  for upgrade in _UPGRADES[number:]:
    fields = upgrade(fields)
  unknown = sorted(fields.keys() - flatten(config).keys())
  if unknown and number:
    raise ValueError(
      f'{where}: got config.{unknown[0]}, no field of this version: a newer resjax wrote it, update resjax'
    )
  with config.ignore_type():
    config.update_from_flattened_dict({name: value for name, value in fields.items() if name not in unknown})
  return config


def _budget_with_predictor(fields: dict[str, Any]) -> dict[str, Any]:
  """From format 0 to 1: a budget counts the predictor's predictor_macs multiply-adds, which it had left out."""
  if fields['method'] != 'drnet':
    return fields
  budget, size = fields['drnet.budget'], fields['drnet.predictor.size']
  name = fields['drnet.predictor.name']
  count, width = len(fields['resolutions']), fields['drnet.predictor.width']
  predictor_macs = macs.of_model(create_predictor(name, resolutions=count, width=width), size or PREDICTORS[name][1])
  classes, channels = fields['model.num_classes'], fields['model.width']
  network = models.create(fields['model.name'], num_classes=classes, width=channels)
  largest = macs.of_model(network, fields['resolutions'][0])
  return fields | {'drnet.budget': (budget * largest if budget <= 1 else budget) + predictor_macs}


def differences(saved: Mapping[str, Any], config: ConfigDict) -> list[str]:
  """Returns one line for each field that differs from a saved config, is read by the method, and is not free to.

  Args:
    saved: As `to_json` gave it when the run started.
    config: Of the run that wants to go on.
  """
  old, new = fields_read(from_json(saved), config.method), fields_read(config, config.method)
  lines = []
  for field in sorted(old.keys() | new.keys()):
    free = any(field == name or field.startswith(name + '.') for name in FREE)
    if not free and old.get(field) != new.get(field):
      lines.append(f'config.{field}: {old.get(field)!r} there, {new.get(field)!r} here')
  return lines


def check_same(stored: Mapping[str, Any], config: ConfigDict, where: str) -> None:
  """Refuses to go on with a run that was started with another config.

  Args:
    stored: As of `complete`.
    config: Of the run that wants to go on.
    where: What messages call the stored run.

  Raises:
    ValueError: Fields differ, and all are named; or a newer version wrote it.
  """
  different = differences(to_json(complete(stored, where)), config)
  if different:
    raise ValueError(
      f'{where} holds a run with another config ({"; ".join(different)}): give its config, or another --workdir'
    )
