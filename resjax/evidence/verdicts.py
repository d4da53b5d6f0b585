"""What the finished runs of a study say: accuracies of its arms, and a verdict on each of its claims."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from resjax.evidence.definition import Claim, Study, sides
from resjax.evidence.intervals import paired
from resjax.evidence.jobs import Job
from resjax.evidence.records import Record

__all__ = ['NOT_RUN', 'OPEN', 'REFUTED', 'SHOWN', 'findings', 'verdict']

SHOWN, REFUTED, OPEN, NOT_RUN = 'shown', 'refuted', 'open at this scale', 'not run'
SEEDS = 3  # fewer say nothing
LEVEL = 0.95

Runs = Mapping[str, Mapping[int, Record]]  # by arm and seed


def findings(study: Study, jobs: Iterable[Job], kept: Mapping[str, Record]) -> dict[str, Any]:
  """Returns what was found, as JSON can hold it.

  Args:
    study: Its arms and claims.
    jobs: The runs that were asked for.
    kept: Finished runs by key.
  """
  jobs = list(jobs)
  runs: dict[str, dict[int, Record]] = {job.arm: {} for job in jobs}
  for job in jobs:
    if (record := kept.get(job.key)) is not None:
      runs[job.arm][job.seed] = record
  records = [record for arm in runs.values() for record in arm.values()]
  return {
    'title': study.title,
    'about': study.about,
    'scale': study.scale,
    'level': LEVEL,
    'images': sorted({record.about['images'] for record in records}),
    'wanted': len(jobs),
    'finished': len(records),
    'seconds': _seconds(jobs, kept),
    'arms': {name: _arm(study, name, found) for name, found in runs.items()},
    'claims': [judged(claim, runs) for claim in study.claims],
    'machines': sorted({record.about['machine'] for record in records}),
    'versions': _versions(records),
    'dates': sorted({record.about['date'] for record in records}),
  }


def _seconds(jobs: Sequence[Job], kept: Mapping[str, Record]) -> float:
  """The seconds of training of all networks, each counted once, in however many arms it stands."""
  finished = [job for job in jobs if job.key in kept]
  spent = {job.weights: kept[job.key].about['seconds'] for job in finished}
  alone = [member.weights for job in finished for member in job.members if member.weights in spent]
  return sum(spent.values()) - sum(spent[member] for member in alone)


def judged(claim: Claim, runs: Runs) -> dict[str, Any]:
  """Returns a claim with its verdict, and what that stands on."""
  found: dict[str, Any] = {'text': claim.text, 'source': claim.source, 'left': claim.left, 'right': claim.right}
  left, right = _scores(claim.left, runs), _scores(claim.right, runs)
  seeds = sorted(left.keys() & right.keys())
  found |= {'seeds': len(seeds), 'verdict': OPEN, 'difference': None, 'low': None, 'high': None, 'above': 0}
  if not seeds:
    return found | {'verdict': NOT_RUN, 'note': ''}
  here, there = (np.stack([side[seed] for seed in seeds]) for side in (left, right))
  interval = paired(here, there, level=LEVEL)
  found |= interval._asdict() | {'above': int(((here - there).mean(1) > 0).sum())}
  found['left_mean'], found['right_mean'] = float(here.mean()), float(there.mean())
  if len(seeds) < SEEDS:
    counted = f'{len(seeds)} seed{"s" * (len(seeds) > 1)}'
    return found | {'note': f'{counted}, expected {SEEDS} or more for a verdict'}
  return found | {'verdict': verdict(interval.low, interval.high), 'note': ''}


def verdict(low: float, high: float) -> str:
  """Returns what an interval of the claimed difference says: it lies above 0, below 0, or on both sides."""
  return SHOWN if low > 0 else REFUTED if high < 0 else OPEN


def _scores(side: str | tuple[str, ...], runs: Runs) -> dict[int, np.ndarray]:
  """What one side of a claim scores on each image, by seed; seeds that one of its arms lacks are left out."""
  named = sides(side)
  if any(arm not in runs for arm, _ in named):
    return {}
  seeds = set.intersection(*({*runs[arm]} for arm, _ in named))
  found = {}
  for seed in seeds:
    for arm, way in named:
      if way not in runs[arm][seed].ways:
        raise ValueError(f"claims: '{arm}@{way}': expected one of {', '.join(runs[arm][seed].ways)}")
    found[seed] = np.mean([runs[arm][seed].ways[way].right for arm, way in named], axis=0)
  return found


def _arm(study: Study, name: str, found: Mapping[int, Record]) -> dict[str, Any]:
  """An arm's accuracies and costs, mean and deviation over its seeds."""
  records = [found[seed] for seed in sorted(found)]
  ways = list(dict.fromkeys(way for record in records for way in record.ways))
  return {
    'about': study.arms[name].about,
    'fields': {field: _plain(value) for field, value in study.arms[name].fields.items()},
    'seeds': sorted(found),
    'ways': {way: _way([record.ways[way] for record in records if way in record.ways]) for way in ways},
    'seconds': _spread([record.about['seconds'] for record in records]) if records else None,
    'params': records[0].about['params'] if records else None,
    'epochs': records[0].about['epochs'] if records else None,
  }


def _way(ways: Sequence[Any]) -> dict[str, Any]:
  """Accuracy and cost of one way over seeds."""
  return {'top1': _spread([float(way.right.mean()) for way in ways]), 'macs': _spread([way.macs for way in ways])}


def _spread(values: Sequence[float]) -> dict[str, float]:
  """Mean and deviation of the sample, 0 of a single value."""
  return {'mean': float(np.mean(values)), 'sd': float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}


def _versions(records: Sequence[Record]) -> dict[str, list[str]]:
  """The versions that runs were made with, those of all of them by name."""
  names = dict.fromkeys(name for record in records for name in record.about['versions'])
  return {name: sorted({str(record.about['versions'].get(name)) for record in records}) for name in names}


def _plain(value: Any) -> Any:
  return list(value) if isinstance(value, tuple) else value
