"""The runs of a study, one after the other: finished ones are kept, those that others have are passed over."""

import contextlib
import dataclasses
import datetime
import io
import pathlib
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ml_collections import ConfigDict

from resjax import config as configuration
from resjax import ending, lock, pruning, report, trained
from resjax.data import identity, sources
from resjax.evidence import records, scoring
from resjax.evidence.jobs import Job
from resjax.evidence.records import Record
from resjax.inference.runtime import processor, processors
from resjax.training.loop import train_and_evaluate
from resjax.training.run import build

__all__ = ['Kept', 'Outcome', 'check_data', 'run_all']

Say = Callable[[str], None]


class Kept:
  """The records in a folder, by key; those that other processes write are found as they come."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self._found: dict[str, Record] = {}
    self._read: set[str] = set()

  def find(self, key: str) -> Record | None:
    """Returns a record, or None where there is none; errors as of `records.read`."""
    return self._found.get(key) or self.all().get(key)

  def all(self) -> dict[str, Record]:
    """Returns all records; errors as of `records.read`."""
    for path in sorted(self.folder.glob('*.json')):
      if path.name not in self._read:
        record = records.read(path)
        self._found[record.key] = record
        self._read.add(path.name)
    return self._found


@dataclasses.dataclass
class Outcome:
  """What became of the runs.

  Attributes:
    failed: The runs that ended in an error, and what that says.
    taken: Those that another process has, or whose start it has.
  """

  failed: list[tuple[Job, str]] = dataclasses.field(default_factory=list)
  taken: list[Job] = dataclasses.field(default_factory=list)


def run_all(jobs: Sequence[Job], workdir: pathlib.Path, kept: Kept, say: Say = print) -> Outcome:
  """Does all runs that are not finished, and keeps what they found.

  A run that fails is told of, and the next one begins; what is no error of input or disk is shown whole. A run that
  another process has is passed over, and looked for again at the end.

  Args:
    jobs: In their order.
    workdir: Of all of them: `runs/KEY/run` is the workdir of one.
    kept: Where records are read and written.
    say: Gets a line for each run.

  Raises:
    Preempted: SIGTERM came.
  """
  outcome, pending = Outcome(), list(jobs)
  for _ in range(2):
    left = []
    for job in pending:
      if kept.find(job.key) is not None:
        continue
      try:
        if not _do(job, workdir, kept, say):
          left.append(job)
      except Exception as error:
        if ending.interrupted():
          raise
        line = ending.line_of(error)
        if line is None:
          traceback.print_exc(file=sys.stderr)
          line = f'{type(error).__name__}: {next(iter(str(error).splitlines()), "")[:300]}'
        outcome.failed.append((job, line))
        say(f'{name_of(job)}: failed: {line}')
    pending = left
  outcome.taken = [job for job in pending if kept.find(job.key) is None]
  return outcome


def check_data(jobs: Iterable[Job], kept: Kept) -> None:
  """Refuses to put runs beside those on other data.

  Args:
    jobs: Of one source.
    kept: The records that there are.

  Raises:
    ValueError: The data are others.
    FileNotFoundError: They are not there.
  """
  before = next((record for record in kept.all().values()), None)
  job = next((job for job in jobs if kept.find(job.key) is None), None)
  if before is None or job is None:
    return
  for split, name in (('train', job.config.data.train_split), ('eval', job.config.data.eval_split)):
    now, there = identity.of(sources.create(job.config, name)), before.about['data'].get(split, {})
    if there.get('digest') != now.digest:
      raise ValueError(
        f'--records: {kept.folder} holds runs on other data ({split}: {there.get("entries", 0):,} entries there, '
        f'{len(now.entries):,} here, or others); expected the same, or another folder'
      )


def name_of(job: Job) -> str:
  """Returns what messages call a run."""
  return f'{job.arm}, seed {job.seed}'


def _do(job: Job, workdir: pathlib.Path, kept: Kept, say: Say) -> bool:
  """Does one run and keeps what it found; False where it or its start is another process's."""
  began = time.monotonic()
  with contextlib.ExitStack() as held:
    before = job.members or (job.start,)
    if not all(_ready(held, each, workdir) for each in before) or not _take(held, job, workdir):
      return False
    if kept.find(job.key) is not None:  # another process came first
      return True
    if job.members:
      results, config = _summed([_train(each, workdir)[0] for each in job.members]), job.config
      source = sources.create(config, config.data.eval_split)
      ways = scoring.together(source, [_place(each, workdir) for each in job.members])
    else:
      results, config = _train(job, workdir)
      ways = scoring.ways_of(build(config), _place(job, workdir), job.sizes, job.fractions, job.recalibrated)
    records.write(_file(job, kept.folder), ways, _about(job, results, ways, time.monotonic() - began))
  found = ', '.join(f'{name} {100 * top1:.1f}' for name, top1 in scoring.accuracies(ways).items())
  say(f'{name_of(job)}: {found}; {results["train_seconds"]:.0f} s of training, in {job.weights}')
  return True


def _ready(held: contextlib.ExitStack, job: Job | None, workdir: pathlib.Path) -> bool:
  """Trains what a run starts from, and what that one does, where it is not there; False where another process does."""
  if job is None or _is_trained(job, workdir):
    return True
  if not _ready(held, job.start, workdir) or not _take(held, job, workdir):
    return False
  _train(job, workdir)
  return True


def _take(held: contextlib.ExitStack, job: Job, workdir: pathlib.Path) -> bool:
  """Whether no other process has a run; it is this one's as long as the stack lasts."""
  try:
    held.enter_context(lock.alone(_place(job, workdir).parent))
  except ValueError:  # who has it
    return False
  return True


def _train(job: Job, workdir: pathlib.Path) -> tuple[dict[str, Any], Any]:
  """Trains to the end, from where the run stands; returns its result and its config, which leaves nothing open."""
  place = _place(job, workdir)
  config = job.config_from(_start(job, workdir))
  config = configuration.settled(config, place)
  with contextlib.redirect_stdout(io.StringIO()):  # its table, and where its files are
    return train_and_evaluate(config, place), config


def _summed(results: list[dict[str, Any]]) -> dict[str, Any]:
  """The results of several runs as those of one."""
  return results[0] | {name: sum(each[name] for each in results) for name in ('train_seconds', 'params')}


def _start(job: Job, workdir: pathlib.Path) -> str:
  """The workdir of the network that a run starts from, made where it is a pruned one; '' where there is none."""
  if job.start is None:
    return ''
  if not job.prune:
    return str(_place(job.start, workdir))
  place = _place(job, workdir).with_name('pruned')
  shutil.rmtree(place, ignore_errors=True)  # also what a run that was killed left of it
  found = trained.read(_place(job.start, workdir), fixed=False)
  network, config = pruning.pruned(found.network, job.prune), found.config.copy_and_resolve_references()
  config.model.inner = job.config.model.inner
  trained.save(dataclasses.replace(found, network=network, config=config), place)
  return str(place)


def _is_trained(job: Job, workdir: pathlib.Path) -> bool:
  return (_place(job, workdir) / report.results.NAME).exists()


def _changed(member: Job, job: Job) -> dict[str, Any]:
  """What a member's config has otherwise than its job's."""
  here, there = (configuration.flatten(_anywhere(each.config)) for each in (member, job))
  return {name: value for name, value in here.items() if value != there[name]}


def _chain(job: Job | None) -> list[Job]:
  """A run, what it starts from, what that one does, and so on."""
  return [] if job is None else [job, *_chain(job.start)]


def _place(job: Job, workdir: pathlib.Path) -> pathlib.Path:
  """The workdir of a run; its lock is beside, since training has one of its own."""
  return workdir / 'runs' / job.weights / 'run'


def _file(job: Job, folder: pathlib.Path) -> pathlib.Path:
  """The file of its record."""
  return folder / f'{re.sub("[^a-z0-9]+", "-", job.arm.lower()).strip("-")}-{job.seed}-{job.key}.json'


def _about(job: Job, results: dict[str, Any], ways: dict[str, records.Way], seconds: float) -> dict[str, Any]:
  """What a record has besides what was right."""
  return {
    'arm': job.arm,
    'seed': job.seed,
    'config': _anywhere(job.config),
    'start': job.start and _anywhere(job.start.config),
    'earlier': [_anywhere(each.config) for each in _chain(job)[2:]],
    'prunes': [each.prune for each in _chain(job)],
    'members': [_changed(each, job) for each in job.members],
    'sizes': list(job.sizes),
    'fractions': list(job.fractions),
    'recalibrated': job.recalibrated,
    'images': len(next(iter(ways.values())).right),
    'seconds': round(results['train_seconds'], 1),
    'wall_seconds': round(seconds, 1),
    'epochs': job.config.epochs,
    'params': results['params'],
    'data': results['data'],
    'versions': results['versions'],
    'machine': f'{processors()} × {processor()}',
    'date': datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%d'),
  }


def _anywhere(config: ConfigDict) -> dict[str, Any]:
  """A config as JSON without this machine's folders, on which no result depends."""
  config = config.copy_and_resolve_references()
  config.data.dir = config.data.cache = ''
  return configuration.to_json(config)
