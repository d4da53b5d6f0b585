"""The body of one training step and one evaluation step, as a single device runs it on the mesh axis 'data'."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from resjax.training.state import TrainState

AXIS = 'data'


def make_train_step(
  loss_fn: Callable[..., Any],
  tx: optax.GradientTransformation,
  *,
  seed: int | Array,
  ema_decay: float | Array = 0.0,
  parallel: str = 'shard_map',
  first: int | Array = 0,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, Array]]]:
  """Returns `train_step(state, batch) -> state, metrics`, to be run under the axis 'data'.

  The mean over devices is taken of the loss inside the differentiated function. The gradients are then summed over the
  devices once: under shard_map by JAX, as the transpose of `pcast`; under pmap, which does not track what differs
  between devices, their mean is taken here. Of running statistics the change is averaged, so that those that no device
  changed stay as they are, bit for bit; also those that loss_fn does not return.

  Args:
    loss_fn: `loss_fn(params, batch_stats, batch, key) -> loss, (batch_stats, metrics)`; the batch gets an entry `step`,
      int32 `[]`, counted from `first`.
    tx: The optimiser.
    seed: Of all random draws: the step's key is `fold_in(key(seed), step)`. Or that key, as data.
    ema_decay: Of `state.ema`, where there is one, which follows parameters and statistics, see `update`.
    parallel: What the step is run under, 'shard_map' or 'pmap'.
    first: The step at which schedules begin.
  """
  tracked = parallel == 'shard_map'

  def train_step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Array]]:
    key = key_of(seed, state.step)

    def mean_loss(params: Any) -> Any:
      if tracked:
        params = jax.lax.pcast(params, AXIS, to='varying')
      loss, aux = loss_fn(params, state.batch_stats, batch | {'step': state.step - first}, key)
      return jax.lax.pmean(loss, AXIS), aux

    (_, aux), grads = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
    statistics, metrics = aux
    metrics = jax.lax.pmean(metrics, AXIS)
    if not tracked:
      grads = jax.lax.pmean(grads, AXIS)
    metrics['gradient_norm'] = optax.tree.norm(grads)
    state = dataclasses.replace(state, batch_stats=averaged(statistics, state.batch_stats))
    return update(state, grads, tx, ema_decay), metrics

  return train_step


def key_of(seed: int | Array, step: Array) -> Array:
  """Returns the typed key of a step's random draws; arguments as of `make_train_step`."""
  return jax.random.fold_in(jax.random.key(seed), step) if isinstance(seed, int) else jax.random.wrap_key_data(seed)


def averaged(statistics: Any, old: Any) -> Any:
  """Returns the running statistics after a step: the mean over devices, and those that nobody changed as they were.

  Args:
    statistics: On each device its own: some of the entries of `old`.
    old: Before the step, the same on every device.
  """
  before = {name: old[name] for name in statistics}
  change = jax.lax.pmean(jax.tree.map(jnp.subtract, statistics, before), AXIS)
  return old | jax.tree.map(jnp.add, before, change)


def update(state: TrainState, grads: Any, tx: optax.GradientTransformation, ema_decay: float | Array) -> TrainState:
  """Returns the state after one step with these gradients, which are the same on every device.

  The average keeps `min(ema_decay, (1 + n) / (10 + n))` of itself at the update after n others, so that it leaves the
  random weights it began with behind. BatchNorm's statistics are averaged with the parameters: those of the last step
  belong to other weights.
  """
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  ema = state.ema
  if ema is not None:
    several = isinstance(opt_state, optax.MultiStepsState)
    updated, before = (opt_state.mini_step == 0, opt_state.gradient_step - 1) if several else (True, state.step)
    decay = jnp.minimum(ema_decay, (1.0 + before) / (10.0 + before))
    now = {'params': params, 'batch_stats': state.batch_stats}
    moved = optax.incremental_update(now, ema, jnp.where(updated, 1 - decay, 0.0))
    ema = jax.tree.map(lambda n, e, m: jnp.where(n == e, e, m), now, ema, moved)
  return TrainState(state.step + 1, params, state.batch_stats, opt_state, ema)
