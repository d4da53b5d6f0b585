"""Several runs of one recipe with different seeds: the mean of every number, and how far it scatters."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Spread(NamedTuple):
  """A number over several runs."""

  mean: float
  sd: float  # of the sample; 0 for a single run


def spread(runs: Sequence[dict[str, Any]]) -> dict[str, Spread]:
  """Returns mean and standard deviation of every number that all runs have, by its dotted name.

  Args:
    runs: Results as `results.read` returns them; `format`, `config` and `versions` are left out.

  Returns:
    For example `{'routers.predictor.top1': Spread(0.981, 0.001), ...}`.

  Raises:
    ValueError: There are no runs.
  """
  if not runs:
    raise ValueError('runs: got none, expected at least one')
  tables = [dict(_numbers(run)) for run in runs]
  names = [name for name in tables[0] if all(name in table for table in tables)]
  columns = {name: [table[name] for table in tables] for name in names}
  return {
    name: Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(runs) > 1 else 0.0)
    for name, values in columns.items()
  }


def _numbers(node: dict[str, Any], prefix: str = ''):
  """The numbers of nested dicts and their dotted names."""
  for name, value in node.items():
    if not prefix and name in ('format', 'config', 'versions'):
      continue
    if isinstance(value, dict):
      yield from _numbers(value, f'{prefix}{name}.')
    elif isinstance(value, int | float) and not isinstance(value, bool):
      yield prefix + name, value
