"""Whether a run goes on with the data that it had until now."""

import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from resjax.data import identity, sources
from resjax.telling import say
from resjax.training.run import Run


def differs_from_result(results: dict[str, Any], config: ConfigDict, workdir: pathlib.Path, allowed: bool) -> bool:
  """Returns whether a config's data are not those of a result; those that are gone since, or made in memory, are.

  Args:
    results: Of a run with this very config.
    config: Of the run that wants to go on.
    workdir: Its folder.
    allowed: It shall go on all the same.

  Raises:
    ValueError: They are others, and that is not allowed.
  """
  before = results.get('data')
  if before is None or config.data.source in sources.IN_MEMORY:
    return False
  try:
    splits = {'train': config.data.train_split, 'eval': config.data.eval_split}
    now = {name: identity.of(sources.opened(config, split)) for name, split in splits.items()}
  except FileNotFoundError:
    return False
  return bool(identity.check(before, now, workdir, allowed=allowed))


def differences(run: Run, meta: dict[str, Any], workdir: pathlib.Path, allowed: bool) -> list[str]:
  """Returns a line for each split whose data differ from those that a saved run had, and says so.

  Args:
    run: That wants to go on.
    meta: What was saved with the run.
    workdir: Its folder.
    allowed: It shall go on all the same.

  Raises:
    ValueError: Some differ, and that is not allowed.
  """
  before = meta.get('data')
  lines = identity.check(before, run.data, workdir, class_names=meta.get('class_names') or (), allowed=allowed)
  if jax.process_index() == 0:
    if before is None:
      counts = ', '.join(f'{split} {len(one.entries):,}' for split, one in run.data.items())
      say(f'{workdir}: an older version made this run and did not note its data; from now on they are known ({counts})')
    for line in lines:
      say(f'Going on with other data; {line}')
  return lines
