"""Checkpoints by Orbax: written in the background, the latest and the best kept, each with its config as JSON.

Training writes them through `Checkpoints`; whoever wants a trained network alone reads it with `load_variables`.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from resjax import config as configuration
from resjax.switchable import Variables

_saves = ocp.training.save_decision_policies
_keeps = ocp.training.preservation_policies

# The metric that names the best checkpoint.
BEST = 'eval/top1_mean'


class Checkpoints:
  """The checkpoints of one workdir, in `checkpoints/<step>`; a context manager that waits for the last save.

  A save that was cut short is never the latest: Orbax renames a step into place when it is complete.
  """

  def __init__(self, workdir: str | pathlib.Path, keep: int = 2):
    """Opens the folder, made if it is missing.

    Args:
      workdir: The run's folder.
      keep: How many of the latest steps are kept, besides the best by `eval/top1_mean`.
    """
    self._orbax = ocp.training.Checkpointer(
      pathlib.Path(workdir).absolute() / 'checkpoints',
      cleanup_tmp_directories=True,
      save_decision_policy=_saves.FixedIntervalPolicy(1),
      preservation_policy=_keeps.AnyPreservationPolicy(
        [
          _keeps.LatestN(keep),
          _keeps.BestN(get_metric_fn=lambda metrics: metrics[BEST], n=1, keep_checkpoints_without_metrics=False),
        ]
      ),
    )

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *_: Any) -> None:
    self._orbax.close()

  @property
  def latest(self) -> int | None:
    """The step of the newest complete checkpoint, or None."""
    return None if self._orbax.latest is None else self._orbax.latest.step

  @property
  def steps(self) -> list[int]:
    """The steps that can be restored, oldest first."""
    return sorted(c.step for c in self._orbax.checkpoints)

  def save(self, state: Any, meta: dict[str, Any], metrics: dict[str, float] | None) -> None:
    """Starts to save a state under its step; returns when the arrays are copied.

    Args:
      state: A TrainState; it may be donated afterwards.
      meta: JSON values: the config, the seconds spent in training, whether this is the last step.
      metrics: With `eval/top1_mean`, if the network was just evaluated.
    """
    step = int(state.step)
    if step == self.latest:
      return
    self._orbax.save_checkpointables_async(step, {'state': state, 'meta': meta}, metrics=metrics)

  def wait(self) -> None:
    """Returns when the last save is on disk."""
    self._orbax.wait()

  def meta(self, step: int | None = None) -> dict[str, Any]:
    """Returns what was saved beside the state, of the latest or the given step."""
    step = self.latest if step is None else step
    return self._load(step, {'meta': None})['meta']

  def restore(self, like: Any, step: int | None = None) -> Any:
    """Returns the saved state of the latest or the given step, placed as `like` is.

    Args:
      like: A state of the same structure: arrays, or `jax.ShapeDtypeStruct`s with a sharding.
      step: One of `steps`.
    """
    step = self.latest if step is None else step
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    return self._load(step, {'state': abstract})['state']

  def _load(self, step: int, what: dict[str, Any]) -> dict[str, Any]:
    """What Orbax reads."""
    return _whole(lambda: self._orbax.load_checkpointables(step, what), self._orbax.directory / str(step))


def load_meta(workdir: str | pathlib.Path, *, step: int | None = None) -> dict[str, Any]:
  """Returns what was saved beside the state: `config` as JSON, `train_seconds`, whether the run is `finished`.

  Args:
    workdir: The run's folder; only read, also while the run goes on.
    step: One of those saved; None: the latest.

  Raises:
    FileNotFoundError: There is no such checkpoint.
    ValueError: It is damaged.
  """
  path = _path(workdir, step)
  return _whole(lambda: ocp.load_checkpointables(path, {'meta': None}), path)['meta']


def load_variables(
  workdir: str | pathlib.Path, *, step: int | None = None, sharding: jax.sharding.Sharding | None = None
) -> tuple[Variables, ConfigDict]:
  """Returns the variables that a run's evaluation uses, and the run's config; the optimiser's state is not read.

  Args:
    workdir: The run's folder; only read, also while the run goes on.
    step: One of those saved; None: the latest.
    sharding: Where the arrays stand; None: on this process's first device.

  Returns:
    `params`, the averaged ones where the run keeps them, and `batch_stats`; the config that was saved with them.

  Raises:
    FileNotFoundError: There is no such checkpoint.
    ValueError: It is damaged.
  """
  path = _path(workdir, step)
  sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  shapes = _whole(lambda: ocp.checkpointables_metadata(path), path).metadata['state']
  averaged = 'params' if shapes['ema'] is None else 'ema'
  wanted = {averaged: shapes[averaged], 'batch_stats': shapes['batch_stats']}
  wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), wanted)
  context = ocp.Context()
  context.pytree_options.loading.partial_load = True
  with context:
    loaded = _whole(lambda: ocp.load_checkpointables(path, {'state': wanted, 'meta': None}), path)
  state = loaded['state']
  variables = {'params': state[averaged], 'batch_stats': state['batch_stats']}
  return variables, configuration.from_json(loaded['meta']['config'])


def _path(workdir: str | pathlib.Path, step: int | None) -> pathlib.Path:
  """The folder of a complete step."""
  root = pathlib.Path(workdir).absolute() / 'checkpoints'
  if not root.is_dir():
    raise FileNotFoundError(f'no checkpoints in {workdir}, expected the workdir of a run')
  steps = sorted(int(path.name) for path in root.iterdir() if path.name.isdigit())
  if not steps:
    raise FileNotFoundError(f'no complete checkpoint in {workdir} yet')
  if step is not None and step not in steps:
    raise FileNotFoundError(f'no checkpoint of step {step} in {workdir}, expected one of {", ".join(map(str, steps))}')
  return root / str(steps[-1] if step is None else step)


def _whole(read: Callable[[], Any], path: Any) -> Any:
  """What a read of a checkpoint gives; damage ends in one line that names the folder."""
  try:
    return read()
  except Exception as error:  # Orbax and TensorStore raise many kinds
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    raise ValueError(f'{path}: {reason[:200]}; expected a whole checkpoint that fits the config') from error
