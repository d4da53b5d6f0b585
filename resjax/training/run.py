"""The parts of a run, made from its config: what is trained, on what, where."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from resjax import drnet, models, rsnet, sandwich
from resjax.data import identity, labels, loader, sources
from resjax.resolution import at_widths
from resjax.training import freezing, optimizer, replayed, state, step, teaching, two_pass
from resjax.training.devices import Devices
from resjax.training.given import Given, Step, make_given

# The module of each method: init, terms, make_loss_fn and make_eval_fn; pretraining, backbone and rates, what training
# asks it.
METHODS = {'rsnet': rsnet, 'drnet': drnet}

# What makes a step of one resolution at a time, for each method.
_TWO_PASS: dict[str, Any] = {'rsnet': two_pass, 'drnet': replayed}


class Begin(NamedTuple):
  """Where schedules begin: at the start of a run, or where it was extended the last time."""

  step: int = 0  # that was reached
  images: int = 0  # of the endless stream of training images, seen before by all hosts
  epochs: float = 0.0  # that were over


@dataclasses.dataclass(frozen=True)
class Run:
  """Everything that does not change while a run goes on.

  Attributes:
    config: As in resjax/recipes/default.py.
    devices: Where steps run.
    model: The plain network.
    train_source: The split that is trained on.
    eval_source: The split that is scored.
    fresh_state: Returns the state before the first step, on the devices.
    state_shapes: Returns its shapes, types and places, without its arrays.
    train_step: `train_step(state, batch) -> state, metrics`; the old state is gone afterwards.
    eval_step: `eval_step(variables, batch)`: what the method's eval_fn says of this host's images.
    steps_per_epoch: Whole batches in the training split.
    total_steps: Batches in the run; those after `begin` are a multiple of `config.optimizer.accumulate`.
    history: What came before where the run was extended, oldest first, see `extending.entry`.
    teacher: The frozen network whose answers are learned, or None.
    data: What the splits 'train' and 'eval' are.
  """

  config: ConfigDict
  devices: Devices
  model: nn.Module
  train_source: Any
  eval_source: Any
  fresh_state: Callable[[], state.TrainState]
  state_shapes: Callable[[], state.TrainState]
  train_step: Callable[..., Any]
  eval_step: Callable[..., Any]
  steps_per_epoch: int
  total_steps: int
  history: tuple[dict[str, Any], ...] = ()
  teacher: teaching.Teacher | None = None
  data: Mapping[str, identity.Identity] = dataclasses.field(default_factory=dict)

  @property
  def begin(self) -> Begin:
    """Where the schedules of this config begin."""
    return Begin(*(self.history[-1][field] for field in Begin._fields)) if self.history else Begin()

  def reached(self, step: int) -> Begin:
    """Returns what was seen when a step is over."""
    taken = step - self.begin.step
    images = self.begin.images + taken * self.config.batch_size
    return Begin(step, images, self.begin.epochs + taken / self.steps_per_epoch)


def build(config: ConfigDict) -> Run:
  """Returns the parts of a run that was not extended; nothing is compiled yet.

  Raises:
    ValueError: A field of the config does not fit the data, the model or the devices.
    FileNotFoundError: The data are not there.
  """
  devices = Devices(config.parallel)
  train_source = sources.create(config, config.data.train_split)
  eval_source = sources.create(config, config.data.eval_split)
  steps_per_epoch = loader.steps_per_epoch(train_source, config)
  total_steps = _updates(config, config.epochs * steps_per_epoch)
  weights = labels.class_weights(config, train_source)
  model, fresh, train_step = make_training(config, devices, steps_per_epoch, total_steps, weights)
  teacher = teaching.load(config, devices)
  return Run(
    config=config,
    devices=devices,
    model=model,
    train_source=train_source,
    eval_source=eval_source,
    fresh_state=lambda: devices.create(fresh, jax.random.key(config.seed)),
    state_shapes=lambda: devices.shapes(fresh, jax.random.key(config.seed)),
    train_step=teaching.taught(train_step, teacher, config, devices),
    eval_step=teaching.judging(
      devices.eval(METHODS[config.method].make_eval_fn(model, config)), teacher, config, devices
    ),
    steps_per_epoch=steps_per_epoch,
    total_steps=total_steps,
    teacher=teacher,
    data={'train': identity.of(train_source), 'eval': identity.of(eval_source)},
  )


def continued(run: Run, history: tuple[dict[str, Any], ...]) -> Run:
  """Returns a run whose schedules begin where its history ends; the same run where there is none.

  `config.epochs` are those of the whole run, so that what was before counts.

  Raises:
    ValueError: That many epochs are over.
  """
  if not history:
    return run
  run, config = dataclasses.replace(run, history=history), run.config
  try:
    begin = run.begin
    left = (config.epochs - begin.epochs) * run.steps_per_epoch
  except (KeyError, TypeError) as error:
    raise ValueError(f'history: damaged in the checkpoint ({error!r}), expected what came before') from None
  if left < 0.5:
    raise ValueError(f'config.epochs: got {config.epochs:g}, expected more than the {begin.epochs:.4g} that are over')
  added = _updates(config, left)
  weights = labels.class_weights(config, run.train_source)
  _, fresh, train_step = make_training(config, run.devices, run.steps_per_epoch, added, weights, first=begin.step)
  return dataclasses.replace(
    run,
    fresh_state=lambda: run.devices.create(fresh, jax.random.key(config.seed)),
    state_shapes=lambda: run.devices.shapes(fresh, jax.random.key(config.seed)),
    train_step=teaching.taught(train_step, run.teacher, config, run.devices),
    total_steps=begin.step + added,
  )


def _updates(config: ConfigDict, steps: float) -> int:
  """Whole updates, in steps, at least one.

  Raises:
    ValueError: The run has fewer batches than an update takes, or too long to be counted.
  """
  accumulate = config.optimizer.accumulate
  batches = max(1, round(steps))
  if accumulate > batches:
    raise ValueError(
      f'config.optimizer.accumulate: got {accumulate}, expected at most the {batches} batches of the run'
    )
  if batches + accumulate >= 2**31:
    raise ValueError(f'config.epochs: got {config.epochs:g}, expected fewer: that is {batches:,} batches')
  return accumulate * max(1, round(steps / accumulate))


def make_training(
  config: ConfigDict,
  devices: Devices,
  steps_per_epoch: int,
  total_steps: int,
  class_weights: Sequence[float] = (),
  *,
  first: int = 0,
) -> tuple[nn.Module, Callable[[jax.Array], state.TrainState], Callable[..., Any]]:
  """Returns the network, `fresh(key)`, the state before the first step, and the training step; needs no data.

  With a teacher, the step's batch has an entry `teacher`, see `teaching.taught`.

  Args:
    config: As in resjax/recipes/default.py.
    devices: Where the step runs.
    steps_per_epoch: Whole batches in the training split.
    total_steps: Batches in the run, those before `first` left out.
    class_weights: What `config.class_weights` comes to on the training split; of no consequence for what a step costs.
    first: The step at which its schedules begin.

  Raises:
    ValueError: A field of the config does not fit the model or the devices.
  """
  config = config.copy_and_resolve_references()
  config.class_weights = tuple(class_weights)
  model = models.from_config(config, axis_name=step.AXIS if config.sync_batch_norm else None)
  method = METHODS[config.method]
  rates = freezing.pairs(config.optimizer)
  trained = freezing.frozen(model, rates, config.optimizer.statistics)
  depths = freezing.depths(model, config.resolutions[0]) if config.optimizer.layer_decay < 1 else None

  def rule(given: Given | None = None) -> optax.GradientTransformation:
    numbers = None if given is None else given.optimizer
    tx = optimizer.create(config, steps_per_epoch, total_steps, method.rates(config), depths, numbers)
    return sandwich.standing(tx, at_widths(config), None if given is None else given.terms.get('drawn'))

  def fresh(key: jax.Array) -> state.TrainState:
    return state.create(method.init(model, config, key), rule(), ema=config.optimizer.ema_decay > 0)

  rate = optimizer.schedule(config, steps_per_epoch, total_steps)
  by_group = optimizer.rates_of(config, rate, method.rates(config))
  given_of = make_given(config, devices, by_group, method.terms(model, config, total_steps), first)
  if config.memory == 'two_pass':
    return model, fresh, _TWO_PASS[config.method].make_train_step(trained, config, rule, devices, given_of)
  loss_fn = method.make_loss_fn(trained, config, total_steps=total_steps, axis_name=step.AXIS)
  loss_fn = freezing.holding(loss_fn, rates)

  def train_step(state: state.TrainState, batch: Any, given: Given) -> Any:
    # Made while it is traced, from numbers that are arguments.
    take = step.make_train_step(
      loss_fn, rule(given), seed=given.key, ema_decay=given.ema_decay, parallel=devices.parallel, first=given.first
    )
    return take(state, batch | given.terms)

  return model, fresh, Step(devices.train(train_step, given=1), given_of)
