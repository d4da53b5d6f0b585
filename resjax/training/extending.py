"""A run goes on with another config (`--extend`): from where, and what of its state and its result is kept.

The network, its BatchNorm statistics, the number of the step and the position in the data go on. The schedule of
the new config begins there and reaches over what is left of `config.epochs`; so do DRNet's temperature and a warm-up.
Momentum goes on where the optimiser keeps the same; otherwise it begins anew, which is said.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from resjax import config as configuration
from resjax.data import loader
from resjax.telling import say
from resjax.training.checkpoints import Checkpoints, free
from resjax.training.run import Begin, Run, continued, make_training
from resjax.training.state import TrainState, average_from

# What the end of a run wrote; it is kept beside under the number of its step.
_RESULT = ('results.json', 'accuracy.png', 'gallery.png')


def extend(
  run: Run,
  checkpoints: Checkpoints,
  step: int,
  meta: dict[str, Any],
  workdir: pathlib.Path,
  *,
  other_classes: bool = False,
) -> tuple[Run, TrainState]:
  """Returns the run under its new config, and the state to go on from; says what changes and puts the result aside.

  Args:
    run: Of the new config, as `run.build` made it.
    checkpoints: Of the workdir.
    step: The newest whole one.
    meta: What was saved with it.
    workdir: The run's folder.
    other_classes: The classes may be called otherwise.

  Raises:
    ValueError: The network is another one, its classes are, or `config.epochs` are over.
  """
  where = f'workdir {workdir}'
  old = configuration.complete(meta, where)
  changed = configuration.changed(configuration.to_json(old), run.config)
  configuration.check_extension(changed, where)
  names, here = meta.get('class_names') or [], list(run.train_source.class_names)
  if names and names != here and not other_classes:
    raise ValueError(f'config.data: the classes {", ".join(here)}, expected those of {where}: {", ".join(names)}')
  last = entry(run, old, step, meta)
  run = continued(run, (*meta.get('history', ()), last))
  state, notes = carried(run.fresh_state(), checkpoints.restore(_shapes(run, old), step))
  if jax.process_index() == 0:
    aside = set_aside(workdir, step)
    kept = aside + [f'checkpoints/{step}'] * last['finished']
    notes += [f'kept: {", ".join(kept)}'] if kept else []
    say(f'Extending the run in {workdir}, from step {step} ({last["epochs"]:.4g} epochs) to {run.total_steps}:')
    for line in [*(f'config.{field}: {before!r} -> {after!r}' for field, (before, after) in changed.items()), *notes]:
      say(f'  {line}')
  return run, state


def entry(run: Run, old: ConfigDict, step: int, meta: dict[str, Any]) -> dict[str, Any]:
  """Returns what the history of an extended run says of what came before, as JSON values: a `Begin`, and its config.

  Args:
    run: Of the new config.
    old: The config until now.
    step: That was reached.
    meta: What was saved with it; before there were extensions, without `images` and `epochs`.
  """
  epochs = step / max(1, len(run.train_source) // old.batch_size)
  begin = Begin(step, meta.get('images', step * old.batch_size), meta.get('epochs', epochs))
  return begin._asdict() | {'finished': bool(meta.get('finished')), 'config': configuration.to_json(old)}


def carried(fresh: TrainState, saved: TrainState) -> tuple[TrainState, list[str]]:
  """Returns the state that an extension begins with, and a line on each part that does not simply go on.

  Args:
    fresh: Of the new config, before its first step.
    saved: Of the old one, after its last.
  """
  notes = ['the schedule begins here and reaches over the steps that are added']
  before, after = _inner(saved.opt_state), _inner(fresh.opt_state)
  if _shape_of(before) == _shape_of(after):
    moments = jax.tree.map(lambda new, was: new if _counts(new) else was, after, before, is_leaf=_counts)
    notes.append("the optimiser's averages of gradients go on")
  else:
    moments = after
    notes.append('the optimiser keeps something else than before: its averages of gradients begin anew')
  opt_state = moments
  if isinstance(fresh.opt_state, optax.MultiStepsState):  # its number of updates is what the average's warm-up goes by
    gathered = isinstance(saved.opt_state, optax.MultiStepsState)
    updates = saved.opt_state.gradient_step if gathered else jnp.copy(saved.step)
    opt_state = fresh.opt_state._replace(inner_opt_state=moments, gradient_step=updates)
  ema = fresh.ema if fresh.ema is None else saved.ema
  if fresh.ema is not None and saved.ema is None:
    ema = average_from(saved.params, saved.batch_stats)
    notes.append('the average of the parameters begins with those of now')
  if fresh.ema is None and saved.ema is not None:
    notes.append('the average of the parameters is dropped: the parameters themselves are evaluated')
  return dataclasses.replace(saved, opt_state=opt_state, ema=ema), notes


def set_aside(workdir: pathlib.Path, step: int) -> list[str]:
  """Renames what the end of a run wrote, so that it is kept; returns the new names.

  Args:
    workdir: The run's folder.
    step: Its last one, which becomes part of the names.
  """
  kept = []
  for path in (workdir / name for name in _RESULT):
    if path.exists():
      kept.append(free(path.with_stem(f'{path.stem}-{step}')))
      path.rename(kept[-1])
  return [path.name for path in kept]


def offset_of(run: Run) -> int:
  """Returns what `loader.train_batches` takes: the place of step 0 in the stream, had all batches been as large."""
  return run.begin.images - run.begin.step * run.config.batch_size


def _shapes(run: Run, old: ConfigDict) -> TrainState:
  """The state of the old config, as shapes and places."""
  _, fresh, _ = make_training(old, run.devices, loader.steps_per_epoch(run.train_source, run.config), 1)
  return run.devices.shapes(fresh, jax.random.key(old.seed))


def _inner(opt_state: Any) -> Any:
  """The optimiser's state without the gradients that wait for the next update."""
  return opt_state.inner_opt_state if isinstance(opt_state, optax.MultiStepsState) else opt_state


def _counts(state: Any) -> bool:
  """Whether a part of an optimiser's state is the number of updates that its schedule goes by."""
  return isinstance(state, optax.ScaleByScheduleState)


def _shape_of(tree: Any) -> Any:
  """The structure and the shapes of a tree."""
  return jax.tree.structure(tree), [leaf.shape for leaf in jax.tree.leaves(tree)]
