"""Checks of a config before a run begins: every field, and what fields say of each other."""

import itertools
import math
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from resjax import losses, models, preprocess, resize, switchable
from resjax.apply import REMAT
from resjax.config import of_drnet, started
from resjax.config.stored import flatten
from resjax.fields import near, of_kind
from resjax.models import quantised
from resjax.models.predictor import PREDICTORS
from resjax.recipes import default
from resjax.resolution import MOST
from resjax.telling import shown

_CHOICES = {
  'method': ('rsnet', 'drnet'),
  'distillation': losses.DISTILLATIONS,
  'private': switchable.PRIVATE,
  'drnet.start': ('scratch', 'pretrain', 'checkpoint'),
  'drnet.estimator': ('dense', 'routed', 'supervised'),
  'drnet.statistics': ('sent', 'all'),
  'drnet.predictor.name': tuple(PREDICTORS),
  'model.dtype': ('float32', 'bfloat16'),
  'init.what': ('all', 'network', 'shared'),
  'data.crop': ('random_resized', 'full'),
  'data.crops': ('same', 'different'),
  'data.pyramid': ('device', 'host'),
  'data.flip': preprocess.FLIPS,
  'data.augment': ('none', 'trivialaugment', 'randaugment'),
  'eval.pyramid': ('device', 'host'),
  'eval.interpolation': tuple(resize.KERNELS),
  'optimizer.name': ('sgd', 'adamw'),
  'optimizer.schedule': ('cosine', 'step', 'constant'),
  'optimizer.decay': ('kernels', 'all'),
  'optimizer.statistics': ('batch', 'kept'),
  'parallel': ('shard_map', 'pmap'),
  'memory': ('joint', 'two_pass'),
  'remat': REMAT,
}

_Check = tuple[Callable[[Any], bool], str]
_POSITIVE: _Check = (lambda v: v > 0, 'more than 0')
_NOT_NEGATIVE: _Check = (lambda v: v >= 0, '0 or more')
_SHARE: _Check = (lambda v: 0 <= v < 1, '0 or more and less than 1')
_EPOCHS: _Check = (lambda v: 0 < v <= 1_000_000, 'more than 0, at most 1,000,000')
_IMAGES: _Check = (lambda v: 0 < v <= 2**20, f'more than 0, at most {2**20:,}')  # of a batch
_WIDTH: _Check = (lambda v: 0 < v <= 1_000, 'more than 0, at most 1,000')
_SIZE: _Check = (lambda v: 0 <= v <= MOST, f'0 or more, at most {MOST:,}')
_RANGES: dict[str, _Check] = {
  'batch_size': _IMAGES,
  'eval.batch_size': _IMAGES,
  'epochs': _EPOCHS,
  'seed': (lambda v: 0 <= v < 2**32, '0 or more and less than 2**32'),
  'distillation_weight': _NOT_NEGATIVE,
  'sandwich': _NOT_NEGATIVE,
  'label_smoothing': _SHARE,
  'drnet.pretrain.epochs': _EPOCHS,
  'drnet.pretrain.learning_rate': _POSITIVE,
  'drnet.pretrain.step_epochs': _POSITIVE,
  'drnet.pretrain.warmup_epochs': _NOT_NEGATIVE,
  'drnet.budget': _POSITIVE,
  'drnet.eta': _NOT_NEGATIVE,
  'drnet.tau': _POSITIVE,
  'drnet.tau_end': _POSITIVE,
  'drnet.margin': (lambda v: v >= 1, '1 or more'),
  'drnet.learning_rate_factor': _POSITIVE,
  'drnet.predictor.size': _SIZE,
  'drnet.predictor.width': _WIDTH,
  'model.num_classes': (lambda v: 1 < v <= 2**24, f'2 or more, at most {2**24:,}'),
  'model.width': _WIDTH,
  'teacher.resolution': _SIZE,
  'teacher.weight': _POSITIVE,
  'teacher.temperature': _POSITIVE,
  'data.size': _NOT_NEGATIVE,
  'data.workers': (lambda v: -1 <= v <= 4096, '0 or more, at most 4,096, or -1 to choose by the processors'),
  'data.threads': (lambda v: 0 < v <= 4096, 'more than 0, at most 4,096'),
  'data.max_bad_images': _NOT_NEGATIVE,
  'data.max_pixels': _POSITIVE,
  'data.crop_area': (lambda v: len(v) == 2 and 0 < v[0] <= v[1] <= 1, '0 < lowest <= highest <= 1'),
  'data.crop_ratio': (lambda v: len(v) == 2 and 0 < v[0] <= v[1], '0 < lowest <= highest'),
  'data.randaugment': (
    lambda v: len(v) == 2 and v[0] == int(v[0]) > 0 and 0 <= v[1] <= 30,
    'how many operations, 1 or more, and their strength, 0 to 30',
  ),
  'data.erase': (lambda v: 0 <= v <= 1, '0 to 1'),
  'data.mixup': _NOT_NEGATIVE,
  'data.cutmix': _NOT_NEGATIVE,
  'eval.every_epochs': _NOT_NEGATIVE,
  'eval.mistakes': _NOT_NEGATIVE,
  'eval.crop_fraction': (lambda v: 0 < v <= 1, 'more than 0, at most 1'),
  'optimizer.learning_rate': _POSITIVE,
  'optimizer.step_epochs': _POSITIVE,
  'optimizer.step_factor': _POSITIVE,
  'optimizer.step_at': (
    lambda v: all(a < b for a, b in itertools.pairwise((0, *v))),
    'epochs above 0, each later than the one before',
  ),
  'optimizer.warmup_epochs': _NOT_NEGATIVE,
  'optimizer.momentum': _SHARE,
  'optimizer.weight_decay': _NOT_NEGATIVE,
  'optimizer.layer_decay': (lambda v: 0 < v <= 1, 'more than 0, at most 1'),
  'optimizer.accumulate': _POSITIVE,
  'optimizer.ema_decay': _SHARE,
  'log_steps': _POSITIVE,
  'checkpoint.every_epochs': _POSITIVE,
  'checkpoint.keep': _POSITIVE,
}

# Integers are below 2**31, but for these.
_MOST = {'seed': 2**63, 'data.max_pixels': 2**63}


def validate(config: ConfigDict, *, settled: bool = False) -> None:
  """Raises ValueError, in one line that names the field, its value and what was expected, if a run can't start so.

  Args:
    config: As in resjax/recipes/default.py.
    settled: Nothing may be left to the network that the run starts from, see `started`.
  """
  _validate_kinds(flatten(config), flatten(default.get_config()))
  config = config if settled else started.filled(config)
  flat = flatten(config)
  for field, choices in _CHOICES.items():
    if flat[field] not in choices:
      raise ValueError(f'config.{field}: got {shown(flat[field])}, expected one of {", ".join(choices)}')
  for field, (ok, expected) in _RANGES.items():
    if not _finite(flat[field]) or not ok(flat[field]):
      raise ValueError(f'config.{field}: got {shown(flat[field])}, expected {expected}')
  resolutions = tuple(config.resolutions)
  try:
    models.check_name(config.model.name)
    bits, _ = models.bits_of(config.model), models.inner_of(config.model)
    preprocess.mean_and_std(config.data.normalize, 'data.normalize')
  except ValueError as error:
    raise ValueError(f'config.{error}') from None
  squares = all(isinstance(r, int) and not isinstance(r, bool) and r > 0 for r in resolutions)
  if not resolutions or not squares:
    raise ValueError(f'config.resolutions: got {shown(resolutions)}, expected one or more positive integers')
  if max(resolutions) > MOST:
    raise ValueError(f'config.resolutions: got {shown(resolutions)}, expected at most {MOST} pixels')
  if list(resolutions) != sorted(resolutions, reverse=True):
    raise ValueError(f'config.resolutions: got {resolutions}, expected the highest first')
  if config.shared_batch_norm and config.private not in ('all', 'none'):
    raise ValueError(
      f"config.private: got {config.private!r} with shared_batch_norm=True, expected 'none', or shared_batch_norm=False"
    )
  _validate_distillation(config)
  _validate_widths(config)
  if config.data.crops == 'different' and config.data.pyramid != 'host':
    raise ValueError(
      "config.data.pyramid: got 'device' with data.crops='different', expected 'host' "
      '(the device makes the lower resolutions from one crop)'
    )
  if config.memory == 'two_pass':
    if config.parallel != 'shard_map':
      raise ValueError("config.memory: got 'two_pass' with parallel='pmap', expected parallel='shard_map'")
    if config.method == 'drnet' and config.drnet.frozen:
      raise ValueError("config.memory: got 'two_pass' with drnet.frozen=True, expected 'joint': nothing is kept there")
    if bits != quantised.Bits():
      raise ValueError(
        f"config.memory: got 'two_pass' with model.quantise={config.model.quantise!r}, expected 'joint' (each "
        'size reads the bases that the one before it left)'
      )
  _validate_rates(config.optimizer.rates)
  for pattern in config.optimizer.freeze:
    if not isinstance(pattern, str):
      raise ValueError(f"config.optimizer.freeze: got {pattern!r}, expected patterns of parameters such as 'stage1_*'")
  _validate_classes(config)
  _validate_class_weights(config)
  _validate_teacher(config)
  if config.method == 'drnet':
    of_drnet.validate(config)


def _validate_distillation(config: ConfigDict) -> None:
  """Raises ValueError where nobody teaches, with a weight."""
  if config.distillation == 'none' and config.distillation_weight != 1:
    weight = config.distillation_weight
    raise ValueError(f"config.distillation_weight: got {weight} with distillation='none', expected 1.0: nobody teaches")


def _validate_widths(config: ConfigDict) -> None:
  """Raises ValueError unless widths are shares, the highest first; which a network can have it says itself."""
  widths = tuple(config.widths)
  if not _finite(widths) or widths[:1] != (1.0,) or not all(0.001 <= b < a for a, b in itertools.pairwise(widths)):
    raise ValueError(f'config.widths: got {shown(widths)}, expected 1.0 and, falling, others such as (1.0, 0.5, 0.25)')
  for field, expected in (('shared_batch_norm', False), ('private', 'all'), ('model.quantise', '')):
    if len(widths) > 1 and (got := flatten(config)[field]) != expected:
      raise ValueError(f'config.{field}: got {got!r} with widths={widths}, expected {expected!r}')
  _validate_sandwich(config)


def _validate_sandwich(config: ConfigDict) -> None:
  """Raises ValueError unless there are more branches between the largest and the smallest than are drawn of them."""
  drawn, between = config.sandwich, len(config.resolutions) * len(config.widths) - 2
  if not drawn:
    return
  if config.method != 'rsnet':
    raise ValueError(
      f"config.sandwich: got {drawn} with method={config.method!r}, expected 0 (train the network with method='rsnet' "
      'first, and start from it: drnet.checkpoint)'
    )
  if drawn >= between:
    raise ValueError(
      f'config.sandwich: got {drawn} with resolutions={tuple(config.resolutions)} and widths={tuple(config.widths)}, '
      f'expected fewer than the {max(0, between)} between the largest and the smallest; 0 trains all'
    )


def _validate_kinds(flat: dict[str, Any], known: dict[str, Any]) -> None:
  """Raises ValueError unless these are the fields of the default, each of its type and of a size that can be meant."""
  for field in flat.keys() ^ known.keys():
    if field in flat and (hint := near(field, known, 'config.')):
      raise ValueError(f'config.{field}: no such field{hint}')
    reason = 'no such field, expected one' if field in flat else 'missing, expected every field'
    raise ValueError(f'config.{field}: {reason} of resjax/recipes/default.py')
  for field, value in flat.items():
    if field != 'data.normalize' and (expected := of_kind(value, known[field])):  # which may be numbers, too
      raise ValueError(f'config.{field}: got {shown(value)}, expected {expected}')
    if isinstance(value, int) and value >= _MOST.get(field, 2**31):
      raise ValueError(f'config.{field}: got {shown(value)}, expected less than {_MOST.get(field, 2**31):,}')
    if isinstance(value, str) and '\0' in value:
      raise ValueError(f'config.{field}: got {shown(value)}, expected text without null characters')


def _finite(value: Any) -> bool:
  """Whether a field is a finite number, or a tuple of them."""
  values = value if isinstance(value, tuple | list) else (value,)
  try:
    return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)
  except OverflowError:  # an integer beyond all floats
    return False


def _validate_rates(rates: Any) -> None:
  """Raises ValueError unless these are pairs of a pattern and a factor."""
  for pair in rates:
    ok = isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)
    if not ok or not _finite(pair[1]) or pair[1] < 0:
      raise ValueError(f"config.optimizer.rates: got {pair!r}, expected pairs such as ('stage1_*', 0.1), 0 or more")


def _validate_classes(config: ConfigDict) -> None:
  """Raises ValueError unless these are names of classes, of a source that has such."""
  classes, source = config.data.classes, config.data.source
  if wrong := [name for name in classes if not isinstance(name, str) or not name]:
    raise ValueError(f'config.data.classes: got {shown(wrong[0])}, expected names of classes, or a file of them, *.txt')
  if classes and source not in ('tfds', 'folder', 'scaled_digits'):
    raise ValueError(
      f"config.data.classes: got {shown(classes)} with data.source={source!r}, expected () (it is for 'tfds', 'folder' "
      "and 'scaled_digits')"
    )


def _validate_class_weights(config: ConfigDict) -> None:
  """Raises ValueError unless these are none, 'balanced', or one for each class."""
  weights, classes = config.class_weights, config.model.num_classes
  numbers = len(weights) == classes and _finite(weights) and min(weights) >= 0
  if weights and tuple(weights) != ('balanced',) and not numbers:
    raise ValueError(
      f"config.class_weights: got {weights!r}, expected (), ('balanced',), or {classes} numbers, 0 or more, one for "
      'each of model.num_classes'
    )


def _validate_teacher(config: ConfigDict) -> None:
  """Raises ValueError if fields of the teacher, and of images without labels, contradict each other."""
  teacher, unlabelled = config.teacher, config.data.source == 'images'
  if teacher.checkpoint and config.method != 'rsnet':
    raise ValueError(
      f"config.teacher.checkpoint: got {teacher.checkpoint!r} with method={config.method!r}, expected method='rsnet'"
    )
  if teacher.checkpoint == 'init' and not config.init.checkpoint:
    raise ValueError("config.init.checkpoint: got '', expected a workdir with teacher.checkpoint='init'")
  if not teacher.checkpoint and not teacher.labels:
    raise ValueError('config.teacher.labels: got False without a teacher, expected a teacher.checkpoint')
  for field, off in (('label_smoothing', 0.0), ('class_weights', ())):
    if not teacher.labels and config[field] != off:
      raise ValueError(f'config.{field}: got {config[field]!r}, expected {off!r} with teacher.labels=False')
  if unlabelled and not (teacher.checkpoint and not teacher.labels):
    raise ValueError(
      f"config.teacher: got checkpoint={teacher.checkpoint!r}, labels={teacher.labels} with data.source='images', "
      'expected a workdir and labels=False: these images have no labels'
    )
  if config.data.eval_dir and not unlabelled:
    raise ValueError(
      f"config.data.eval_dir: got {config.data.eval_dir!r} with data.source={config.data.source!r}, expected '' (it is "
      "for 'images')"
    )
