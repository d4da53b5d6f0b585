"""The runs of a study: the config of each arm and seed, and the key by which a finished one is found again."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from resjax import config as configuration
from resjax import macs, models, pruning, recipes, rsnet
from resjax.config.extension import among
from resjax.evidence.definition import Arm, Study
from resjax.fields import near, of_kind
from resjax.resolution import at_widths
from resjax.telling import shown

__all__ = ['Job', 'key_of', 'of_study', 'work']

# Fields that a run may go on without, and that its result depends on all the same.
_SCORED = ('eval.pyramid', 'eval.calibration_split', 'eval.interpolation', 'eval.crop_fraction')
# Fields that came after the first records: at these values they do not count, so that a run keeps its folder. A new
# field of the default config belongs here.
_LATER = {'distillation_weight': 1.0, 'sandwich': 0, 'drnet.statistics': 'sent'}
_APART = 1_000  # what is added to the seed of an arm that stands together with itself
_STARTS = {'drnet': 'drnet.checkpoint', 'rsnet': 'init.checkpoint'}  # by method


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """One run.

  Attributes:
    arm: Its name.
    seed: Of the run.
    config: Its own; a start that is another job's network has no place in it yet.
    start: That other job, or None.
    prune: The share of that one's channels that go first.
    members: The jobs whose networks it is together; its config is the first one's.
    sizes: That it is scored at besides.
    fractions: That it is scored with besides.
    recalibrated: It is scored with statistics of training images.
  """

  arm: str
  seed: int
  config: ConfigDict
  start: 'Job | None' = None
  prune: float = 0.0
  members: tuple['Job', ...] = ()
  sizes: tuple[int, ...] = ()
  fractions: tuple[float, ...] = ()
  recalibrated: bool = False

  @property
  def key(self) -> str:
    """Tells its result from all others'."""
    start, members = self.start.weights if self.start else None, [each.config for each in self.members]
    return key_of(self.config, start, self.sizes, self.fractions, self.prune, members, self.recalibrated)

  @property
  def weights(self) -> str:
    """Tells its network from all others', however that is scored."""
    start = self.start.weights if self.start else None
    return key_of(self.config, start, prune=self.prune, members=[each.config for each in self.members])

  def config_from(self, place: str) -> ConfigDict:
    """Returns the config with the place of the start's network in it."""
    config = self.config.copy_and_resolve_references()
    if self.start is not None:
      config.update_from_flattened_dict({_STARTS[config.method]: place})
      if config.method == 'drnet':
        config.drnet.start = 'checkpoint'
    return config


def key_of(
  config: ConfigDict,
  start: str | None,
  sizes: Sequence[int] = (),
  fractions: Sequence[float] = (),
  prune: float = 0.0,
  members: Sequence[ConfigDict] = (),
  recalibrated: bool = False,
) -> str:
  """Returns a digest of what a result depends on, its data apart.

  Args:
    config: Of the run; of the fields that may change when a run goes on, those that evaluation reads count alone.
    start: The key of the network that it starts from.
    sizes: See `Job`.
    fractions: See `Job`.
    prune: See `Job`.
    members: Their configs.
    recalibrated: See `Job`.
  """
  fields = configuration.fields_read(config, config.method)
  kept = {name: v for name, v in fields.items() if name in _SCORED or not among(name, configuration.FREE)}
  kept = {name: v for name, v in kept.items() if name not in _LATER or v != _LATER[name]}
  later = [*([prune] if prune else []), *([[key_of(each, None) for each in members]] if members else [])]
  later += ['recalibrated'] if recalibrated else []
  text = json.dumps([kept, start, list(sizes), list(fractions), *later], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def of_study(
  study: Study,
  seeds: Sequence[int],
  names: Sequence[str] | None = None,
  fields: Sequence[str] = (),
  data: Mapping[str, Any] | None = None,
) -> list[Job]:
  """Returns the runs of a study: all arms of the first seed, then of the second one.

  Args:
    study: See `definition`.
    seeds: Of the runs.
    names: Of the arms; None: all. What these start from comes along.
    fields: As `--config.FIELD=VALUE`, on top of the study's own, below the arms'.
    data: Fields by dotted name on top of all others: where the images are.

  Raises:
    ValueError: There is no such arm, or an arm's config can't be run; names the arm.
  """
  for name in names or ():
    if name not in study.arms:
      raise ValueError(f'--arms: got {shown(name)}, expected some of {", ".join(study.arms)}{near(name, study.arms)}')
  wanted = {*(names or study.arms)}
  wanted |= {origin for name in wanted for origin in study.origins(name)}
  found: list[Job] = []
  for seed in seeds:
    made: dict[str, Job] = {}
    for name in sorted((n for n in study.arms if n in wanted), key=lambda n: len(study.origins(n))):
      arm = study.arms[name]
      config, start = _config(study, name, arm, fields, data or {}, seed), made.get(arm.start)
      config.model.inner = _inner(name, arm, start) or config.model.inner
      apart = [(member, seed + _APART * arm.together[:k].count(member)) for k, member in enumerate(arm.together)]
      members = tuple(Job(m, s, _config(study, m, study.arms[m], fields, data or {}, s)) for m, s in apart)
      config = members[0].config if members else config
      scored = tuple(arm.sizes), tuple(arm.fractions), arm.recalibrated
      made[name] = Job(name, seed, config, start, arm.prune, members, *scored)
      if seed == seeds[0]:
        _check(made[name])
    found += made.values()
  return found


def _check(job: Job) -> None:
  """Raises ValueError, naming the arm, where its config can't be run."""
  try:
    configuration.validate(job.config_from('START'))
  except ValueError as error:
    raise ValueError(f'arm {shown(job.arm)}: {error}') from None
  if job.recalibrated and (private := rsnet.private(job.config)) not in ('all', 'statistics'):
    raise ValueError(f"arm {shown(job.arm)}: recalibrated with private={private!r}, expected 'all' or 'statistics'")


def _inner(name: str, arm: Arm, start: Job | None) -> tuple[tuple[int, ...], ...]:
  """The channels inside the blocks of what an arm starts from; () where none were taken out."""
  if start is None or not arm.prune:
    return start.config.model.inner if start else ()
  try:
    return pruning.inner_of(models.from_config(start.config), arm.prune)
  except ValueError as error:
    raise ValueError(f'arm {shown(name)}: {error}') from None


def work(config: ConfigDict) -> float:
  """Returns the multiply-adds of one image at all resolutions, times the epochs."""
  model = models.from_config(config)
  return config.epochs * sum(macs.of_model(model, resolution) for resolution in at_widths(config))


def _config(study: Study, name: str, arm: Arm, fields: Sequence[str], data: Mapping[str, Any], seed: int) -> ConfigDict:
  """The config of one run."""
  config = recipes.make(arm.recipe or study.recipe)
  where = f'arm {shown(name)}'
  _set(config, study.fields, 'study')
  recipes.with_fields(config, fields)
  _set(config, arm.fields, where)
  _set(config, data, '--data.dir')
  if not (isinstance(arm.times, int | float) and arm.times > 0 and math.isfinite(arm.times)):
    raise ValueError(f'{where}: got times {shown(arm.times)}, expected a number above 0')
  config.epochs = config.epochs * arm.times
  config.seed = seed
  return config


def _set(config: ConfigDict, fields: Mapping[str, Any], where: str) -> None:
  """Sets fields by dotted name, in the types that they have."""
  known = configuration.flatten(config)
  for field, value in fields.items():
    if field not in known:
      raise ValueError(f'{where}: config.{field}: no such field{near(field, known, "config.")}')
    if expected := of_kind(value, known[field]):
      raise ValueError(f'{where}: config.{field}: got {shown(value)}, expected {expected}')
  config.update_from_flattened_dict(
    {name: float(v) if isinstance(known[name], float) else v for name, v in fields.items()}
  )
