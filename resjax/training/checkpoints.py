"""Checkpoints by Orbax: written in the background, the latest and the best kept, each with its config as JSON."""

import contextlib
import dataclasses
import itertools
import logging
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from resjax import checkpoint, checksums, paths
from resjax.checkpoint import ocp

_saves = ocp.training.save_decision_policies
_keeps = ocp.training.preservation_policies

# Of a step, what is read when the folder of all is opened.
_READ_AT_ONCE = ('_CHECKPOINT_METADATA', 'metrics/')

# The metric that names the best checkpoint.
BEST = 'eval/top1_mean'


class Checkpoints:
  """The checkpoints of one workdir, in `checkpoints/<step>`; a context manager that waits for the last save.

  A save that was cut short is never the latest: Orbax renames a step into place when it is complete. On several hosts
  all call the same methods, in a folder that all of them see.
  """

  def __init__(self, workdir: str | pathlib.Path, keep: int = 2):
    """Opens the folder, made if it is missing.

    Args:
      workdir: The run's folder.
      keep: How many of the latest steps are kept, besides the best by `eval/top1_mean`.

    Raises:
      OSError: The folder can't be made, read or written to.
      ValueError: There are steps, and what is read of them here is damaged in all.
    """
    self._root = pathlib.Path(workdir).absolute() / 'checkpoints'
    if jax.process_index() == 0:
      _put_aside_unopenable(self._root)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices('checkpoints can be opened')
    self._named: set[int] = set()
    self._unread = False
    self._unsealed: int | None = None  # a step that is being saved
    self._sealing = threading.Lock()
    best = _keeps.BestN(get_metric_fn=lambda metrics: metrics[BEST], n=1, keep_checkpoints_without_metrics=False)
    with _writing(self._root):
      self._orbax = ocp.training.Checkpointer(
        paths.literal(self._root),
        cleanup_tmp_directories=True,
        save_decision_policy=_saves.FixedIntervalPolicy(1),
        preservation_policy=_keeps.AnyPreservationPolicy([_keeps.LatestN(keep), best, _Named(self._named)]),
      )
      self._unread = self.latest is None

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
    if kind is None or jax.process_count() == 1:  # after an error the other hosts may never come to the end of a save
      with _writing(self._root):
        self._orbax.close()
        self._seal()

  def preserve(self, step: int) -> None:
    """Keeps a step as long as this object saves, whatever comes after it."""
    self._named.add(step)

  @property
  def latest(self) -> int | None:
    """The step of the newest complete checkpoint, or None."""
    return None if self._orbax.latest is None else self._orbax.latest.step

  @property
  def steps(self) -> list[int]:
    """The steps that can be restored, oldest first."""
    return sorted(c.step for c in self._orbax.checkpoints)

  def newest_whole(self) -> int | None:
    """Returns the newest step that can be read, all of it, or None where nothing was saved.

    Newer ones that are damaged are logged and moved to the workdir's folder `damaged`, never deleted.

    Raises:
      ValueError: There are steps, and none is whole; they stay where they are.
      OSError: The disk does not let a step be read: that is no damage, and all stay where they are.
      FileNotFoundError: This host does not see the step that the first host sees.
    """
    step = self._settle() if jax.process_index() == 0 else None
    if jax.process_count() > 1:
      step = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if step is None else step)))
      step = None if step < 0 else step
    self._orbax.reload()
    if step is not None and step not in self.steps:
      me = jax.process_index()
      raise FileNotFoundError(
        f'{self._root}/{step}: seen by host 0, not by host {me}; expected a folder that all share'
      )
    return step

  def _settle(self) -> int | None:
    """The first host's part of `newest_whole`."""
    damaged, read = {}, _reader()
    for step in reversed(self.steps):
      try:
        read(self._root / str(step))
      except ValueError as error:
        damaged[step] = error
        continue
      _put_aside(self._root, damaged, step)
      return step
    if damaged:
      raise _none_whole(damaged)
    return None

  def save(self, state: Any, meta: dict[str, Any], metrics: dict[str, float] | None) -> None:
    """Starts to save a state under its step; returns when the arrays are copied.

    Args:
      state: A TrainState; it may be donated afterwards.
      meta: JSON values: the config, the seconds spent in training, whether this is the last step.
      metrics: With `eval/top1_mean`, if the network was just evaluated.

    The first save of a workdir is waited for and read back.

    Raises:
      OSError: This save, or the one before it, could not be written; or the first one can't be read.
    """
    step = int(state.step)
    if step == self.latest:
      return
    with _writing(self._root):
      saving = self._orbax.save_checkpointables_async(step, {'state': state, 'meta': meta}, metrics=metrics)
      self._seal()  # the one before, which is on disk by now
    if saving is not None and jax.process_index() == 0:
      self._unsealed = step
      saving.on_complete(self._sealed_soon)
    if self._unread:
      self._unread = False
      self._read_back(step)

  def _read_back(self, step: int) -> None:
    """Waits for a run's first save and reads it: a run that could not go on from its saves ends here."""
    self.wait()
    if jax.process_index() > 0:
      return
    try:
      _reader()(self._root / str(step))
    except (ValueError, OSError) as error:
      raise OSError(f'the first save can not be read back, so the run ends: {error}') from error

  def wait(self) -> None:
    """Returns when the last save is on disk.

    Raises:
      OSError: It could not be written.
    """
    with _writing(self._root):
      self._orbax.wait()
      self._seal()

  def meta(self, step: int | None = None) -> dict[str, Any]:
    """Returns what was saved beside the state, of the latest or the given step; errors as of `checkpoint.checked`."""
    step = self.latest if step is None else step
    return checkpoint.checked(self._load(step, {'meta': None})['meta'], self._root / str(step))

  def restore(self, like: Any, step: int | None = None) -> Any:
    """Returns the saved state of the latest or the given step, placed as `like` is.

    An average of parameters alone, as version 0.1 kept it, gets the running statistics of that step.

    Args:
      like: A state of the same structure: arrays, or `jax.ShapeDtypeStruct`s with a sharding.
      step: One of `steps`.
    """
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    if like.ema is None or checkpoint.averages_statistics(self._root / str(self.latest if step is None else step)):
      return self._load(step, {'state': abstract})['state']
    state = self._load(step, {'state': dataclasses.replace(abstract, ema=abstract.ema['params'])})['state']
    statistics = jax.tree.map(jnp.array, state.batch_stats)
    return dataclasses.replace(state, ema={'params': state.ema, 'batch_stats': statistics})

  def _seal(self) -> None:
    """Writes the checksums of the last save beside it, if it is on disk and has none."""
    with self._sealing:
      if self._unsealed is not None and (folder := self._root / str(self._unsealed)).is_dir():
        checksums.seal(folder)
        self._unsealed = None

  def _sealed_soon(self, _: bool) -> None:
    """The same, in the background; what fails there is told of when the save is waited for."""
    with contextlib.suppress(OSError):
      self._seal()

  def _load(self, step: int | None, what: dict[str, Any]) -> dict[str, Any]:
    """What Orbax reads of a step, by default of the latest."""
    step = self.latest if step is None else step
    return checkpoint.whole(lambda: self._orbax.load_checkpointables(step, what), self._root / str(step))


@dataclasses.dataclass
class _Named:
  """Orbax's policy that keeps some steps; more of them may become known later."""

  steps: set[int]

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
    """Returns whether to keep each checkpoint."""
    return [checkpoint.step in self.steps for checkpoint in checkpoints]


def _reader() -> Callable[[pathlib.Path], None]:
  """What reads a step whole: of several hosts the first, in a process of its own."""
  return checkpoint.read_all if jax.process_count() == 1 else checkpoint.read_apart


def _put_aside_unopenable(root: pathlib.Path) -> None:
  """Puts steps aside in which a file is damaged that Orbax reads already when it opens their folder."""
  steps = sorted(int(path.name) for path in (root.iterdir() if root.is_dir() else ()) if path.name.isdecimal())
  damaged = {}
  for step in steps:
    folder = root / str(step)
    try:
      checkpoint.whole(lambda folder=folder: checksums.verify(folder, _READ_AT_ONCE), folder)  # type: ignore[misc]
    except ValueError as error:
      damaged[step] = error
  if damaged and len(damaged) == len(steps):
    raise _none_whole(damaged)
  _put_aside(root, damaged, max(set(steps) - set(damaged), default=0))


def _put_aside(root: pathlib.Path, damaged: Mapping[int, ValueError], step: int) -> None:
  """Moves damaged steps to the workdir's folder `damaged`, and says to which step that goes back."""
  for other, reason in damaged.items():
    place = free(root.parent / 'damaged' / str(other))
    place.parent.mkdir(exist_ok=True)
    (root / str(other)).rename(place)
    logging.getLogger(__name__).warning('%s: moved to %s, going back to step %d', reason, place, step)


def _none_whole(damaged: Mapping[int, ValueError]) -> ValueError:
  """What is raised where all steps are damaged."""
  reasons = '; '.join(map(str, damaged.values()))
  return ValueError(f'no checkpoint is whole: {reasons}; give another --workdir to begin anew')


def free(path: pathlib.Path) -> pathlib.Path:
  """Returns the path, or the first of `path.2`, `path.3`, ... that does not exist."""
  names = itertools.chain([path], (path.with_name(f'{path.name}.{n}') for n in itertools.count(2)))
  return next(name for name in names if not name.exists())


@contextlib.contextmanager
def _writing(root: pathlib.Path) -> Iterator[None]:
  """What fails in writing below the folder ends in one line."""
  try:
    yield
  except Exception as error:  # Orbax and TensorStore raise many kinds
    raise OSError(f'{root}: {checkpoint.reason(error)}; expected a folder with room for a checkpoint') from error
