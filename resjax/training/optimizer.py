"""The optimiser and its learning rate, from the config."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import optax
from jax import Array
from ml_collections import ConfigDict

from resjax.training import freezing


def schedule(config: ConfigDict, steps_per_epoch: int, total_steps: int) -> optax.Schedule:
  """Returns the learning rate as a function of the number of updates made.

  Args:
    config: Reads `optimizer`.
    steps_per_epoch: Batches in an epoch.
    total_steps: Batches in the run.
  """
  o = config.optimizer
  per_epoch = steps_per_epoch / o.accumulate
  total = max(1, round(total_steps / o.accumulate))
  warmup = min(round(o.warmup_epochs * per_epoch), total - 1)
  rate = o.learning_rate
  if o.schedule == 'cosine':
    after = optax.cosine_decay_schedule(rate, total - warmup)
  elif o.schedule == 'step':
    epochs = o.step_at or [k * o.step_epochs for k in range(1, int(total / (o.step_epochs * per_epoch)) + 1)]
    falls: dict[int, float] = {}
    for update in (round(epoch * per_epoch) for epoch in epochs):
      if update > warmup:
        falls[update - warmup] = falls.get(update - warmup, 1.0) * o.step_factor
    after = optax.piecewise_constant_schedule(rate, falls)
  else:
    after = optax.constant_schedule(rate)
  if not warmup:
    return after
  return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), after], [warmup])


def average_note(config: ConfigDict, total_steps: int) -> str | None:
  """Returns a line for the user where the average of the parameters spans more updates than the run has; else None.

  Args:
    config: Reads `optimizer`.
    total_steps: Batches in the run.
  """
  decay, updates = config.optimizer.ema_decay, total_steps // config.optimizer.accumulate
  if not decay or updates * (1 - decay) >= 1:
    return None
  return (
    f'config.optimizer.ema_decay: {decay:g} averages over about {1 / (1 - decay):,.0f} updates, and this run has '
    f'{updates:,}: it is warmed up to {min(decay, updates / (9 + updates)):.4f} at the end'
  )


def decayed(params: Any, which: str) -> Any:
  """Returns a pytree of bools like `params`: the leaves that weight decay shrinks.

  'kernels': the shared convolutions and the classifier's matrix, told by their place and name, never by their rank.
  'all': every leaf, BatchNorm, biases and alpha too (the paper's recipe).
  """

  def choose(path: Any, _: Any) -> bool:
    names = [getattr(entry, 'key', None) for entry in path]
    return which == 'all' or (names[0] != 'private' and names[-1] == 'kernel')

  return jax.tree_util.tree_map_with_path(choose, params)


def create(
  config: ConfigDict,
  steps_per_epoch: int,
  total_steps: int,
  rates: Mapping[str, float] | None = None,
  depths: Mapping[str, int] | None = None,
  numbers: Mapping[str, Any] | None = None,
) -> optax.GradientTransformation:
  """Returns the optax transformation that the config describes.

  SGD is torch's: `g += wd p; buf = m buf + g; p -= lr buf`.

  Args:
    config: Reads `optimizer`.
    steps_per_epoch: Batches in an epoch.
    total_steps: Batches in the run.
    rates: Factors of the learning rate for entries of the parameters, as the method's `rates` gives them: 0 leaves an
      entry as it is; `network` stands for all entries that are not named. None, or empty: the rate is the same for all.
    depths: Of the network's modules, as of `freezing.depths`: their rate is `layer_decay` to this power, besides.
    numbers: `rates`, of the next update as of `rates_of`, `weight_decay` and `momentum`: arrays in place of the
      schedule and of what the config says, so that they are no constants of a compiled step. The state is the same.
  """
  o, factors = config.optimizer, _factors(config, rates)
  if numbers is None:
    numbers = {'weight_decay': o.weight_decay, 'momentum': o.momentum}
    by_count = rates_of(config, schedule(config, steps_per_epoch, total_steps), rates)
  else:
    by_count = {name: functools.partial(_now, rate) for name, rate in numbers['rates'].items()}
  rules = {name: _rule(o, by_count[name], numbers) if name in by_count else optax.set_to_zero() for name in factors}
  if freezing.pairs(o):
    tx = optax.partition(rules, lambda params: freezing.labels(params, o))
  elif rates:
    tx = optax.partition(rules, lambda params: {name: name if name in rates else 'network' for name in params})
  else:
    tx = rules['network']
  if depths:
    tx = optax.chain(tx, _scale_by_depth(o.layer_decay, depths))
  if o.accumulate > 1:
    tx = optax.MultiSteps(tx, o.accumulate).gradient_transformation()
  return tx


def updates_of(opt_state: Any) -> Array:
  """Returns the number of updates that an optimiser's schedule goes by, int32 `[]`."""
  found = jax.tree.leaves(opt_state, is_leaf=lambda part: isinstance(part, optax.ScaleByScheduleState))
  return next(part.count for part in found if isinstance(part, optax.ScaleByScheduleState))


def _now(rate: Array, count: Array) -> Array:
  """The learning rate, whatever the count."""
  del count
  return rate


def rates_of(
  config: ConfigDict, rate: optax.Schedule, rates: Mapping[str, float] | None = None
) -> dict[str, optax.Schedule]:
  """Returns the learning rate of each group of parameters; those that stay have none.

  Args:
    config: Reads `optimizer`.
    rate: As of `schedule`.
    rates: As of `create`.
  """
  return {name: _scaled(rate, factor) for name, factor in _factors(config, rates).items() if factor}


def _factors(config: ConfigDict, rates: Mapping[str, float] | None) -> Mapping[str, float]:
  """The factor of each group's learning rate, by its name."""
  if pairs := freezing.pairs(config.optimizer):
    return {freezing.label(factor): factor for _, factor in (*pairs, ('', 1.0))}
  return rates or {'network': 1.0}


def _scale_by_depth(decay: float, depths: Mapping[str, int]) -> optax.GradientTransformation:
  """Multiplies the updates of the network's modules by `decay ** depth`; those of alpha and a predictor pass."""

  def scale(path: Any, update: Any) -> Any:
    names = [str(getattr(entry, 'key', entry)) for entry in path]
    if names[0] not in ('shared', 'private'):
      return update
    return update * decay ** depths[freezing.plain_path(path).split('/')[0]]

  return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates))


def _scaled(rate: optax.Schedule, factor: float) -> optax.Schedule:
  """A schedule times a factor."""
  return lambda count: factor * rate(count)


def _rule(o: ConfigDict, rate: optax.Schedule, numbers: Mapping[str, Any]) -> optax.GradientTransformation:
  """The update of parameters that share a learning rate."""
  decay = optax.add_decayed_weights(numbers['weight_decay'], mask=lambda params: decayed(params, o.decay))
  if o.name == 'sgd':
    parts = [decay, optax.trace(numbers['momentum'], nesterov=o.nesterov)]
  else:
    parts = [optax.scale_by_adam(), decay]
  return optax.chain(*parts, optax.scale_by_learning_rate(rate))
