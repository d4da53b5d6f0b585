"""How long the runs of a study will take, by those that are finished."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from resjax.evidence.jobs import Job, work
from resjax.evidence.records import Record

__all__ = ['Row', 'estimates']


class Row(NamedTuple):
  """An arm's runs."""

  arm: str
  epochs: float
  finished: int
  missing: int
  seconds: float | None  # of one run, evaluation included; None: nothing is known
  measured: bool  # of this arm; else by others: their multiply-adds, or what it takes to score once more


def estimates(jobs: Sequence[Job], kept: Mapping[str, Record]) -> list[Row]:
  """Returns a row for each arm.

  Args:
    jobs: Of all arms and seeds.
    kept: Finished runs by key.
  """
  arms: dict[str, list[Job]] = {}
  for job in jobs:
    arms.setdefault(job.arm, []).append(job)
  taken = {arm: [_seconds(kept[job.key]) for job in own if job.key in kept] for arm, own in arms.items()}
  loads = {arm: _load(own[0]) for arm, own in arms.items()}
  rates = {arm: float(np.mean(seconds)) / loads[arm] for arm, seconds in taken.items() if seconds}
  found = []
  for arm, own in arms.items():
    alike = [rate for other, rate in rates.items() if arms[other][0].recalibrated == own[0].recalibrated]
    seconds = float(np.mean(taken[arm])) if taken[arm] else float(np.median(alike)) * loads[arm] if alike else None
    finished = len(taken[arm])
    found.append(Row(arm, own[0].config.epochs, finished, len(own) - finished, seconds, bool(taken[arm])))
  return found


def _load(job: Job) -> float:
  """What a run's time goes by: multiply-adds; what is scored once more is not trained, and takes as long as others."""
  return 1.0 if job.recalibrated else sum(work(each.config) for each in job.members or (job,))


def _seconds(record: Record) -> float:
  """The seconds of a run, of all its lives; where its network is another run's, too, those of its own."""
  if record.about.get('recalibrated'):
    return float(record.about['wall_seconds'])
  return max(record.about['seconds'], record.about.get('wall_seconds', 0))
