"""Checkpoints by Orbax: written in the background, the latest and the best kept, each with its config as JSON."""

import pathlib
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from resjax.training.state import TrainState

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

  def save(self, state: TrainState, meta: dict[str, Any], metrics: dict[str, float] | None) -> None:
    """Starts to save a state under its step; returns when the arrays are copied.

    Args:
      state: What to save; it may be donated afterwards.
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

  def restore(self, like: TrainState, step: int | None = None) -> TrainState:
    """Returns the saved state of the latest or the given step, placed as `like` is.

    Args:
      like: A state of the same structure: arrays, or `jax.ShapeDtypeStruct`s with a sharding.
      step: One of `steps`.
    """
    step = self.latest if step is None else step
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    return self._load(step, {'state': abstract})['state']

  def _load(self, step: int, what: dict[str, Any]) -> dict[str, Any]:
    """What Orbax reads; damage names the folder and the steps that could be had instead."""
    try:
      return self._orbax.load_checkpointables(step, what)
    except Exception as error:  # Orbax and TensorStore raise many kinds
      reason = next(iter(str(error).splitlines()), type(error).__name__)
      raise ValueError(
        f'{self._orbax.directory}/{step}: {reason[:200]}; expected a whole checkpoint that fits the config '
        f'(steps here: {", ".join(map(str, self.steps))}; remove its folder to go on from the one before)'
      ) from error
