"""A frozen network whose answers are learned: what it says of a batch is found before the step, which gets it as data.

It is no part of the state: it is not trained, saved or given away, and a run that goes on reads it again.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from jax import Array
from ml_collections import ConfigDict

from resjax import config as configuration
from resjax import preprocess, rsnet, trained
from resjax.apply import Apply, run
from resjax.network import digest_of
from resjax.resolution import Resolution, at_widths, sides
from resjax.switchable import Variables
from resjax.telling import distinct, say
from resjax.training import step
from resjax.training.devices import Devices


@dataclasses.dataclass(frozen=True)
class Teacher:
  """A network at one resolution.

  Attributes:
    model: The plain network.
    variables: Its ordinary ones, on the devices.
    resolution: Of its input, in pixels.
    normalize: As of `preprocess.Preprocessing`, its own.
    digest: Of the variables and the resolution.
  """

  model: nn.Module | Apply
  variables: Variables
  resolution: Resolution
  normalize: preprocess.Normalize
  digest: str


def load(config: ConfigDict, devices: Devices) -> Teacher | None:
  """Returns the teacher that a config names, and says which it is; None where it names none.

  Args:
    config: Reads `teacher`, `init.checkpoint`, `model.num_classes` and `resolutions`.
    devices: Where its arrays stand.

  Raises:
    FileNotFoundError: There is no checkpoint.
    ValueError: It has other classes.
  """
  options = config.teacher
  if not options.checkpoint:
    return None
  workdir = config.init.checkpoint if options.checkpoint == 'init' else options.checkpoint
  try:
    network = trained.read(workdir, sharding=devices.replicated).network
  except FileNotFoundError as error:
    raise FileNotFoundError(f'config.teacher.checkpoint: {error}') from None
  if network.num_classes != config.model.num_classes:
    raise ValueError(
      f'config.teacher.checkpoint: {workdir} has {network.num_classes} classes, expected {config.model.num_classes}, '
      'those of config.model.num_classes'
    )
  if options.checkpoint != 'init' and config.init.checkpoint:
    _check_names(network.class_names, workdir, config.init.checkpoint)
  resolution = options.resolution or network.resolutions[0]
  if resolution > config.resolutions[0] and (not options.resolution or config.data.pyramid != 'device'):
    raise ValueError(
      f'config.teacher.resolution: got {options.resolution}, and {workdir} is of {network.resolutions[0]} px; expected '
      f"at most {config.resolutions[0]}, or more, named, with data.pyramid='device': crops are then made as large"
    )
  alone, note = network.at(resolution)
  if jax.process_index() == 0:
    say(f'Teacher: {workdir}; {note}')
  variables = jax.device_put(alone.view(resolution), devices.replicated)
  digest = digest_of(variables, str(resolution))
  return Teacher(network.model, variables, resolution, network.preprocessing.normalize, digest)


def _check_names(names: tuple[str, ...], workdir: str, start: str) -> None:
  """Refuses a teacher that has the classes of the start network in another order."""
  ours = trained.load(start).class_names
  if names != ours and sorted(names) == sorted(ours):
    place = next(i for i, (a, b) in enumerate(zip(names, ours)) if a != b)
    raise ValueError(
      f'config.teacher.checkpoint: class {place} of {workdir} is {distinct(names[place], ours)}, expected '
      f'{distinct(ours[place], names)} as in {start}'
    )


def check_same(meta: dict[str, Any], config: ConfigDict, teacher: Teacher | None, where: str) -> None:
  """Raises ValueError where a saved run had another teacher by the same name.

  Args:
    meta: What was saved beside its state.
    config: Of the run that goes on; where it names another teacher, that is told of elsewhere.
    teacher: Its teacher.
    where: What messages call the saved run.
  """
  same = configuration.complete(meta, where).teacher == config.teacher
  if same and meta.get('teacher') != (teacher and teacher.digest):
    raise ValueError(
      f'config.teacher.checkpoint: holds another network than the one that taught the run in {where} so far, '
      'expected the same'
    )


def taught(
  train_step: Callable[..., Any], teacher: Teacher | None, config: ConfigDict, devices: Devices
) -> Callable[..., Any]:
  """Returns a training step that first adds the teacher's logits, `teacher` `[B, K]`, to its batch.

  Args:
    train_step: `train_step(state, batch) -> state, metrics`.
    teacher: Whose answers they are; None: the step is returned as it is.
    config: As of `make_answer_fn`.
    devices: Where it runs.
  """
  if teacher is None:
    return train_step
  answers = devices.answer(make_answer_fn(teacher, config))
  key_of = jax.jit(
    lambda number: jax.random.key_data(step.key_of(config.seed, number)), out_shardings=devices.replicated
  )

  def step_with_answers(state: Any, batch: Any) -> Any:
    return train_step(state, batch | {'teacher': answers((teacher.variables, key_of(state.step)), batch)})

  return step_with_answers


def make_answer_fn(teacher: Teacher, config: ConfigDict) -> Callable[..., Array]:
  """Returns `answer((variables, key), batch)`, logits `[B, K]`: of all that our largest resolution sees.

  The key is the step's, as data.

  Args:
    teacher: Whose model, resolution and normalisation are used.
    config: Reads what `rsnet.train_images` does.
  """
  seen = config.copy_and_resolve_references()
  with seen.ignore_type():
    seen.resolutions = (teacher.resolution, *(sides(r)[0] for r in at_widths(config)[1:]))
    seen.widths = (1.0,)
    seen.data.normalize = teacher.normalize

  def answer(fixed: tuple[Variables, Array], batch: Any) -> Array:
    variables, key = fixed
    largest = batch | {'images': batch['images'][:1]}
    (images,) = rsnet.train_images(seen, largest, jax.random.wrap_key_data(key), slice(1))
    return run(teacher.model, variables, images, train=False)[0]

  return answer


def is_judge(config: ConfigDict) -> bool:
  """Whether what the teacher says counts as right in evaluation: where no images that are scored have labels."""
  return config.data.source == 'images' and not config.data.eval_dir


def judging(
  eval_step: Callable[..., Any], teacher: Teacher | None, config: ConfigDict, devices: Devices
) -> Callable[..., Any]:
  """Returns an evaluation step that takes the teacher's answers for labels where `is_judge`, and says that it does.

  Args:
    eval_step: `eval_step(variables, batch)`.
    teacher: Whose answers they are.
    config: Reads `data.eval_dir`, `data.source` and `eval.interpolation`.
    devices: Where it runs.
  """
  if teacher is None or not is_judge(config):
    return eval_step

  def answer(variables: Variables, batch: Any) -> Array:
    images = preprocess.prepare(
      batch['images'][:1], (teacher.resolution,), teacher.normalize, interpolation=config.eval.interpolation
    )
    return run(teacher.model, variables, images[0], train=False)[0].argmax(-1)

  if jax.process_index() == 0:
    print('No labels to score on: right is what the teacher says, of some of the images (config.data.eval_dir)')
  answers = devices.answer(answer)
  return lambda variables, batch: eval_step(variables, batch | {'label': answers(teacher.variables, batch)})
