"""Metrics also to Weights & Biases, where `config.wandb.project` names a project; its failures never end a training.

One run there is one workdir here: its id stands in the workdir, so a run that goes on here goes on there, too. All else
is W&B's own to set: WANDB_MODE=offline, WANDB_ENTITY, WANDB_NAME and so on.
"""

import importlib.util
import logging
import pathlib
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from resjax import config as configuration

# Seconds that the end of a run waits for what is still on its way, and one that an error or a signal ends.
_PATIENCE = {True: 60.0, False: 5.0}


def check(config: ConfigDict) -> None:
  """Raises ValueError where W&B is wanted and not installed."""
  if config.wandb.project and importlib.util.find_spec('wandb') is None:
    raise ValueError(
      f"config.wandb.project: got {config.wandb.project!r}, which needs wandb: pip install 'resjax[wandb]'"
    )


class Tracker:
  """One run of W&B; after its first failure, which is logged, it does nothing."""

  def __init__(self, config: ConfigDict, workdir: pathlib.Path):
    """Begins, or goes on with, the run that belongs to a workdir.

    Args:
      config: Of the run; read: `wandb`.
      workdir: Its folder.
    """
    self._run: Any = None
    self._try(lambda: self._begin(config, workdir))

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Sends numbers by name.

    Args:
      step: Training steps taken so far. W&B drops those of steps that it has: a life that died after them.
      values: By metric.
    """
    if self._run is not None:
      self._try(lambda: self._run.log(dict(values), step=step))

  def close(self, whole: bool = True) -> None:
    """Ends the run; waits for what is on its way, but not for ever.

    Args:
      whole: False where an error or a signal ends it: then it waits less.
    """
    if self._run is None:
      return
    run, self._run = self._run, None
    end = threading.Thread(target=lambda: self._try(lambda: run.finish(exit_code=0 if whole else 1)), daemon=True)
    end.start()
    end.join(_PATIENCE[whole])
    if end.is_alive():
      _warn('still sending; `wandb sync` sends later what lies in the folder wandb of the workdir')

  def _begin(self, config: ConfigDict, workdir: pathlib.Path) -> None:
    import wandb

    workdir.mkdir(parents=True, exist_ok=True)
    place = workdir / 'wandb_id'
    if not place.exists():
      place.write_text(uuid.uuid4().hex[:8] + '\n', encoding='utf-8')
    self._run = wandb.init(
      project=config.wandb.project,
      id=place.read_text(encoding='utf-8').strip(),
      resume='allow',
      dir=str(workdir),
      config=configuration.flatten(configuration.to_json(config)),
      settings=wandb.Settings(console='off'),
    )

  def _try(self, act: Callable[[], Any]) -> None:
    """Does something; where it fails, that is logged, and it was the last."""
    try:
      act()
    except Exception as error:  # whatever it is, training goes on
      self._run = None
      _warn(f'{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}; training goes on without it')


def _warn(reason: str) -> None:
  logging.getLogger(__name__).warning('W&B: %s', reason)
