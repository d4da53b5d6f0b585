"""One run from a config to its result: train, save, evaluate, resume."""

import contextlib
import math
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from resjax import config as configuration
from resjax import formats, macs, report
from resjax.data import loader
from resjax.paths import local
from resjax.training import backbone, evaluate, judge, optimizer
from resjax.training.checkpoints import Checkpoints
from resjax.training.metrics import MetricWriter, Progress
from resjax.training.preemption import Notice, Preempted
from resjax.training.run import METHODS, Run, build
from resjax.training.state import TrainState


def train_and_evaluate(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
  """Trains to the end, from the latest checkpoint in `workdir` where there is one, and returns the result.

  Writes `checkpoints/`, `metrics.jsonl`, `tensorboard/`, `accuracy.png` and `results.json` to `workdir` and prints the
  table. Where the method wants a network that was trained before, that run comes first, in the folder `pretraining` of
  `workdir`, and its seconds count. A run that is finished is not run again: its result is shown. On several hosts all
  call it, with a `workdir` that all of them see; the first one alone prints and writes results.

  Args:
    config: As in resjax/recipes/default.py.
    workdir: The run's folder, made if it is missing.

  Returns:
    What results.json holds.

  Raises:
    ValueError: The config is wrong, or the workdir holds a run with another one.
    FileNotFoundError: The data are not there.
    OSError: A file can't be read or written; checkpoints saved before are good.
    FloatingPointError: A loss is not finite.
    Preempted: SIGTERM came; in training, the last step is saved.
  """
  configuration.validate(config)
  workdir = local(workdir, 'workdir')
  if (results := finished(config, workdir)) is not None:
    return results
  with Notice() as notice:
    run, method = build(config), METHODS[config.method]
    if (note := optimizer.average_note(config, run.total_steps)) and jax.process_index() == 0:
      print(note)
    with Checkpoints(workdir, config.checkpoint.keep) as checkpoints:
      step = checkpoints.newest_whole()
      if step is None:
        before, folder = method.pretraining(config), workdir / 'pretraining'
        seconds = train_and_evaluate(before, folder)['train_seconds'] if before else 0.0
        state = backbone.start(run.fresh_state, config, method.backbone(config, folder), run.devices)
      else:
        state, seconds = resume(run, checkpoints, step, workdir)
      if int(state.step) < run.total_steps:
        state, seconds, (summary, table) = train(run, state, seconds, checkpoints, workdir, notice)
      else:
        summary, table = evaluate.evaluate(run, state.variables)
    return conclude(run, state, seconds, summary, table, workdir)


def finished(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any] | None:
  """Returns the result of this run where it is in the workdir, and shows it; None where the run is to go on.

  Raises:
    ValueError: The workdir holds the result of another config.
  """
  results = report.read(workdir)
  if results is None:
    return None
  where = f'workdir {workdir}'
  configuration.check_same(results, config, where)
  before, method = configuration.complete(results, where), config.method
  if configuration.fields_read(before, method) != configuration.fields_read(config, method):
    return None  # it is evaluated otherwise
  if jax.process_index() == 0:
    print(f'{workdir} holds this run, finished. Its result:')
    report.show(results)
  return results


def resume(run: Run, checkpoints: Checkpoints, step: int, workdir: pathlib.Path) -> tuple[TrainState, float]:
  """Returns the state of a saved step and the seconds of training before it.

  Raises:
    ValueError: It was made with another config.
  """
  meta = checkpoints.meta(step)
  if meta.get('origin'):
    raise ValueError(f'workdir {workdir} holds an imported network, expected another --workdir to train in')
  configuration.check_same(meta, run.config, f'workdir {workdir}')
  if jax.process_index() == 0:
    print(f'Going on from step {step} of {run.total_steps}, saved in {workdir}')
  return checkpoints.restore(run.state_shapes(), step), meta.get('train_seconds', 0.0)


def conclude(
  run: Run, state: TrainState, seconds: float, summary: dict[str, Any], table: evaluate.Table, workdir: pathlib.Path
) -> dict[str, Any]:
  """Returns what results.json holds, and writes, draws and prints it.

  Args:
    run: That reached its end.
    state: After the last step.
    seconds: Of training.
    summary: Of the last evaluation.
    table: What it found.
    workdir: The run's folder.
  """
  results = collect(run, state, summary, seconds)
  if 'scores' in table:
    results |= judge.judge(run, state.variables, table, workdir)
  if jax.process_index() == 0:
    report.write(results, workdir)
    report.accuracy_against_macs(results, workdir / 'accuracy.png')
    report.show(results)
    print(f'In {workdir}: results.json, accuracy.png, metrics.jsonl, tensorboard/, checkpoints/')
  return results


def collect(run: Run, state: TrainState, summary: dict[str, Any], seconds: float) -> dict[str, Any]:
  """Returns what results.json holds: the last evaluation with costs, sizes, versions and the config."""
  resolutions = {
    key: {'macs': macs.of_model(run.model, int(key)), **row} for key, row in summary['resolutions'].items()
  }
  return {
    'format': formats.FORMAT,
    'method': run.config.method,
    **summary,
    'resolutions': resolutions,
    'params': sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    'train_seconds': seconds,
    'versions': report.versions(),
    'config': configuration.to_json(run.config),
  }


def train(
  run: Run, state: TrainState, seconds: float, checkpoints: Checkpoints, workdir: pathlib.Path, notice: Notice
) -> tuple[TrainState, float, tuple[dict[str, Any], evaluate.Table]]:
  """Takes the remaining steps, saving and evaluating on the way and at the end.

  Args:
    run: What is trained.
    state: To start from; its memory is reused.
    seconds: Of training before it.
    checkpoints: Where states are saved.
    workdir: Where metrics are written.
    notice: Says when to stop.

  Returns:
    The last state; the seconds of training in all lives, evaluation left out; what the last evaluation gave.

  Raises:
    FloatingPointError: A metric is not finite.
    Preempted: SIGTERM came, and the state is saved.
  """
  config, total, start = run.config, run.total_steps, int(state.step)
  saving = max(1, round(config.checkpoint.every_epochs * run.steps_per_epoch))
  evaluating = round(config.eval.every_epochs * run.steps_per_epoch) or total
  first = jax.process_index() == 0
  watch = Stopwatch(seconds)
  evaluated: tuple[dict[str, Any], evaluate.Table] = ({}, {})
  with (
    notice.patient(),
    contextlib.closing(loader.train_batches(run.train_source, config, start)) as batches,
    MetricWriter(workdir, enabled=first, resume_step=start or None) as writer,
    Progress(total, run.steps_per_epoch, config.batch_size, start_step=start, enabled=first) as progress,
  ):
    window = Window(writer, progress, config.log_steps)
    for step, batch in zip(range(start + 1, total + 1), batches, strict=False):
      state, metrics = run.train_step(state, run.devices.put(batch))
      window.add(step, metrics)
      due, save = (step % every == 0 or step == total for every in (evaluating, saving))
      stop = notice.reached()
      if due or save or stop:
        window.flush(last=stop or step == total)
      scores = None
      meta = _meta(run, watch.seconds, step)
      try:
        if stop:
          raise Preempted
        if due:
          with notice.patient(False), progress.pause('evaluating'), watch.pause():
            evaluated = evaluate.evaluate(run, state.variables)
          scores = evaluate.metrics(evaluated[0])
          writer.scalars(step, scores)
      except BaseException as error:  # what ends the run here does not cost the training before it
        if isinstance(error, Preempted) or (save and jax.process_count() == 1):  # of many, the others may have gone on
          checkpoints.save(state, meta, scores)
          checkpoints.wait()
        raise
      if save:
        checkpoints.save(state, meta, scores)
    checkpoints.wait()  # as long as a signal waits too
    return state, watch.seconds, evaluated


def _meta(run: Run, seconds: float, step: int) -> dict[str, Any]:
  """What stands beside a state in its checkpoint, as JSON values."""
  return {
    'format': formats.FORMAT,
    'config': configuration.to_json(run.config),
    'class_names': list(run.train_source.class_names),
    'train_seconds': seconds,
    'finished': step == run.total_steps,
  }


class Window:
  """The metrics since the last line: read one step behind the device, checked, averaged, written.

  Args:
    writer: Gets the mean of each metric every `log_steps` steps.
    progress: Gets every step.
    log_steps: Steps between two lines.
  """

  def __init__(self, writer: MetricWriter, progress: Progress, log_steps: int):
    self._writer, self._progress, self._log_steps = writer, progress, log_steps
    self._pending: tuple[int, dict[str, Any]] | None = None
    self._rows: list[dict[str, float]] = []

  def add(self, step: int, metrics: dict[str, Any]) -> None:
    """Takes a step's metrics as they are on the device, and reads those of the step before.

    Raises:
      FloatingPointError: They are not finite.
    """
    self.flush()
    self._pending = (step, metrics)

  def flush(self, last: bool = False) -> None:
    """Waits for the step that is on its way and reads its metrics.

    Args:
      last: Write what has come since the last line.

    Raises:
      FloatingPointError: They are not finite: names the step and each term, with its resolution.
    """
    if self._pending is None:
      return
    step, values = self._pending[0], jax.device_get(self._pending[1])
    self._pending = None
    bad = {name: float(v) for name, v in values.items() if not math.isfinite(v)}
    if bad:
      terms = ', '.join(f'{name} = {value}' for name, value in sorted(bad.items()))
      raise FloatingPointError(
        f'step {step}: {terms}, expected finite numbers; the checkpoints saved before are good '
        '(try a lower config.optimizer.learning_rate or a warm-up)'
      )
    self._rows.append(values)
    self._progress.update(step, f'loss {float(values["loss"]):.3f}')
    if last or step % self._log_steps == 0:
      line = {f'train/{name}': sum(float(row[name]) for row in self._rows) / len(self._rows) for name in values}
      if self._progress.images_per_second is not None:
        line['train/images_per_second'] = self._progress.images_per_second
      self._writer.scalars(step, line)
      self._rows = []


class Stopwatch:
  """Seconds since it was made, pauses left out, on top of those of earlier lives."""

  def __init__(self, seconds: float):
    self._start = time.monotonic() - seconds

  @property
  def seconds(self) -> float:
    """The seconds so far."""
    return time.monotonic() - self._start

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """What runs inside does not count."""
    begin = time.monotonic()
    yield
    self._start += time.monotonic() - begin
