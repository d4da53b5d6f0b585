"""One run from a config to its result: train, save, evaluate, resume."""

import contextlib
import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from resjax import checkpoint, formats, lock, macs, packing, preprocess, report, telling
from resjax import config as configuration
from resjax.data import identity, loader
from resjax.paths import local
from resjax.resolution import parse
from resjax.training import backbone, evaluate, extending, judge, optimizer, same_data, teaching, tracking
from resjax.training.checkpoints import Checkpoints
from resjax.training.metrics import MetricWriter, Progress
from resjax.training.preemption import Notice, Preempted
from resjax.training.run import METHODS, Run, build, continued
from resjax.training.state import TrainState
from resjax.training.window import Stopwatch, Window


def train_and_evaluate(
  config: ConfigDict, workdir: str | pathlib.Path, *, extend: bool = False, other_data: bool = False
) -> dict[str, Any]:
  """Trains to the end, from the latest checkpoint in `workdir` where there is one, and returns the result.

  Writes `checkpoints/`, `metrics.jsonl`, `tensorboard/`, `accuracy.png` and `results.json` to `workdir` and prints the
  table. Where the method wants a network that was trained before, that run comes first, in the folder `pretraining` of
  `workdir`, and its seconds count. A run that is finished is not run again: its result is shown. On several hosts all
  call it, with a `workdir` that all of them see; the first one alone prints and writes results.

  Args:
    config: As in resjax/recipes/default.py; what it leaves to its start is settled first, see `config.started`.
    workdir: The run's folder, made if it is missing.
    extend: Go on with a run that has another config, finished or not, see `extending`. `config.epochs` are those of the
      whole run. Where the workdir's run has this config already, it goes on as ever.
    other_data: Go on also where the data are not those that the workdir's run had until now: other images, sizes of
      files or names of classes; its result is kept beside.

  Returns:
    What results.json holds.

  Raises:
    ValueError: The config is wrong, or the workdir holds a run with another one, or on other data; with `extend`, of
      another network; or another process trains in it.
    FileNotFoundError: The data are not there.
    OSError: A file can't be read or written; checkpoints saved before are good.
    FloatingPointError: A loss is not finite.
    Preempted: SIGTERM came; in training, the last step is saved.
  """
  configuration.validate(config)
  workdir = local(workdir, 'workdir')
  config = configuration.settled(config, workdir)
  if jax.process_index() == 0:
    tracking.check(config)
  if (results := finished(config, workdir, extend, other_data)) is not None:
    return results
  with Notice() as notice:
    run, method = build(config), METHODS[config.method]
    identity.agree(run.data)
    notes = [optimizer.average_note(config, run.total_steps), run.devices.alone_note(config)]
    for note in filter(None, [*notes, preprocess.alike_note(config)] if jax.process_index() == 0 else ()):
      print(note)
    with lock.alone(workdir, wanted=jax.process_index() == 0):
      with checkpoint.news_only(), Checkpoints(workdir, config.checkpoint.keep) as checkpoints:
        step = checkpoints.newest_whole()
        if step is None:
          before, folder = method.pretraining(config), workdir / 'pretraining'
          seconds = train_and_evaluate(before, folder, other_data=other_data)['train_seconds'] if before else 0.0
          begin, names = method.backbone(config, folder), run.train_source.class_names
          state = backbone.start(run.fresh_state, config, begin, run.devices, names)
        else:
          run, state, seconds = resume(run, checkpoints, step, workdir, extend, other_data)
        if jax.process_index() == 0:
          identity.write(workdir, run.data)
        if int(state.step) < run.total_steps:
          state, seconds, (summary, table) = train(run, state, seconds, checkpoints, workdir, notice)
        else:
          summary, table = evaluate.evaluate(run, state.variables, workdir)
      return conclude(run, state, seconds, summary, table, workdir)


def finished(
  config: ConfigDict, workdir: pathlib.Path, extend: bool = False, other_data: bool = False
) -> dict[str, Any] | None:
  """Returns the result of this run where it is in the workdir, and shows it; None where the run is to go on.

  Raises:
    ValueError: The workdir holds the result of another config or other data, or there is no run to extend.
  """
  where = f'workdir {workdir}'
  if extend and not (workdir / 'checkpoints').is_dir():
    raise ValueError(f'{where} holds no run, expected one to extend')
  results = report.read(workdir)
  if results is None:
    return None
  before = configuration.to_json(configuration.complete(results, where))
  changed = configuration.changed(before, config)
  if extend and changed:
    configuration.check_extension(changed, where)
    return None
  configuration.check_same(results, config, where)
  if configuration.changed(before, config, free=()) or same_data.differs_from_result(
    results, config, workdir, other_data
  ):
    return None  # it is evaluated otherwise
  if jax.process_index() == 0:
    telling.say(f'{workdir} holds this run, finished. Its result:')
    report.show(results)
  return results


def resume(
  run: Run,
  checkpoints: Checkpoints,
  step: int,
  workdir: pathlib.Path,
  extend: bool = False,
  other_data: bool = False,
) -> tuple[Run, TrainState, float]:
  """Returns the run as it goes on, the state of a saved step and the seconds of training before it.

  Raises:
    ValueError: It was made with another config, or on other data; with `extend`, of another network.
  """
  meta = checkpoints.meta(step)
  if meta.get('origin'):
    raise ValueError(
      f'workdir {workdir} holds an imported network, expected another --workdir to train in, and '
      f'--config.init.checkpoint={workdir} to start from it'
    )
  where = f'workdir {workdir}'
  teaching.check_same(meta, run.config, run.teacher, where)
  changed = configuration.changed(configuration.to_json(configuration.complete(meta, where)), run.config)
  if not extend:
    configuration.check_same(meta, run.config, where)
  meant = other_data or (extend and any(field.startswith('data.') for field in changed))
  lines = same_data.differences(run, meta, workdir, meant)
  if extend and changed:
    run, state = extending.extend(run, checkpoints, step, meta, workdir, other_classes=other_data)
  else:
    if lines and jax.process_index() == 0 and (kept := extending.set_aside(workdir, step)):
      telling.say(f'kept: {", ".join(kept)}')
    run = continued(run, tuple(meta.get('history', ())))
    state = checkpoints.restore(run.state_shapes(), step)
    if jax.process_index() == 0:
      telling.say(f'Going on from step {step} of {run.total_steps}, saved in {workdir}')
  for before in run.history:
    if before['finished']:
      checkpoints.preserve(before['step'])
  return run, state, meta.get('train_seconds', 0.0)


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
    with telling.naming(workdir / 'accuracy.png'):
      report.accuracy_against_macs(results, workdir / 'accuracy.png')
    report.write(results, workdir)  # the last: where it stands, the run is finished
    report.show(results)
    telling.say(f'In {workdir}: results.json, accuracy.png, metrics.jsonl, tensorboard/, checkpoints/')
  return results


def collect(run: Run, state: TrainState, summary: dict[str, Any], seconds: float) -> dict[str, Any]:
  """Returns what results.json holds: the last evaluation with costs, sizes, versions and the config."""
  resolutions = {
    key: {'macs': macs.of_model(run.model, parse(key)), **row} for key, row in summary['resolutions'].items()
  }
  return (
    {
      'format': formats.FORMAT,
      'method': run.config.method,
      **summary,
      'resolutions': resolutions,
      'params': sum(leaf.size for leaf in jax.tree.leaves(state.params)),
      'train_seconds': seconds,
      'versions': report.versions(),
      **({'truth': 'teacher'} if teaching.is_judge(run.config) else {}),
      'data': identity.stored(run.data),
      'config': configuration.to_json(run.config),
    }
    | packed(run, state)
    | ({'history': list(run.history)} if run.history else {})
  )


def packed(run: Run, state: TrainState) -> dict[str, Any]:
  """Returns what results.json says of a quantised network's size, see `packing.size`; empty of another."""
  if not run.config.model.quantise:
    return {}
  found = packing.size({'params': state.params, 'batch_stats': state.batch_stats})
  return {'size': found._asdict() | {'quantise': run.config.model.quantise}}


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
  config, total, start, begin = run.config, run.total_steps, int(state.step), run.begin.step
  saving = max(1, round(config.checkpoint.every_epochs * run.steps_per_epoch))
  evaluating = round(config.eval.every_epochs * run.steps_per_epoch) or total
  first, watch = jax.process_index() == 0, Stopwatch(seconds)
  tracker = tracking.Tracker(config, workdir) if first and config.wandb.project else None
  evaluated: tuple[dict[str, Any], evaluate.Table] = ({}, {})
  with (
    notice.patient(),
    contextlib.closing(_batches(run, start)) as made,
    MetricWriter(workdir, enabled=first, resume_step=start or None, tracker=tracker) as writer,
    _progress(run, start, first) as progress,
  ):
    window = Window(writer, progress, config.log_steps)
    for step, batch in notice.until_told(zip(range(start + 1, total + 1), made, strict=False), start):
      if batch is not None:
        state, metrics = run.train_step(state, run.devices.put(batch))
        window.add(step, metrics)
      due, save = ((step - begin) % every == 0 or step == total for every in (evaluating, saving))
      stop = batch is None or notice.reached()
      if due or save or stop:
        window.flush(last=stop or step == total)
      scores = None
      meta = _meta(run, watch.seconds, step)
      try:
        if stop:
          raise Preempted
        if due:
          with notice.patient(False), progress.pause('evaluating'), watch.pause():
            evaluated = evaluate.evaluate(run, state.variables, workdir)
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


def _batches(run: Run, start: int) -> loader.Batches:
  """The training batches after a step."""
  return loader.train_batches(run.train_source, run.config, start, offset=extending.offset_of(run))


def _progress(run: Run, start: int, enabled: bool) -> Progress:
  """The bar of a run that goes on after a step."""
  begin = (run.begin.step, run.begin.epochs)
  size, per_epoch = run.config.batch_size, run.steps_per_epoch
  return Progress(run.total_steps, per_epoch, size, start_step=start, begin=begin, enabled=enabled)


def _meta(run: Run, seconds: float, step: int) -> dict[str, Any]:
  """What stands beside a state in its checkpoint, as JSON values."""
  reached = run.reached(step)
  return {
    'format': formats.FORMAT,
    'config': configuration.to_json(run.config),
    'class_names': list(run.train_source.class_names),
    'train_seconds': seconds,
    'finished': step == run.total_steps,
    'images': reached.images,
    'epochs': reached.epochs,
    'history': list(run.history),
    'data': identity.stored(run.data),
    'teacher': run.teacher and run.teacher.digest,
  }
