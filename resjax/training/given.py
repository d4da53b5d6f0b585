"""The numbers that a compiled training step is given beside its state and batch: the seed, the rate, weights of terms.

As arguments they are no part of the program, so that runs which differ in them alone share one: the second finds it in
the compilation cache. What changes from step to step, such as the schedule, is a tiny program of its own.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax import Array
from ml_collections import ConfigDict

from resjax.training import optimizer
from resjax.training.devices import Devices
from resjax.training.state import TrainState
from resjax.training.step import key_of


class Given(NamedTuple):
  """The numbers of one step, scalars but for the key.

  Attributes:
    key: The data of the step's key.
    first: The step at which schedules begin, int32.
    optimizer: What `optimizer.create` takes as `numbers`.
    ema_decay: As of `step.make_train_step`.
    terms: Of the method's loss, see its `terms`; they become entries of the batch.
  """

  key: Array
  first: Array | int
  optimizer: dict[str, Any]
  ema_decay: Array
  terms: dict[str, Array]


def make_given(
  config: ConfigDict,
  devices: Devices,
  rates: Mapping[str, Callable[[Array], Any]],
  terms: Callable[[Array], Any],
  first: int = 0,
) -> Callable[[TrainState], Given]:
  """Returns `given(state)`, what the next step is given, on all devices.

  Args:
    config: Reads `seed` and `optimizer`.
    devices: Where it stands.
    rates: As of `optimizer.rates_of`.
    terms: The numbers of the method's loss by the step.
    first: The step at which schedules begin.
  """

  def given(step: Array, updates: Array) -> Given:
    o = config.optimizer
    now = {name: rate(updates) for name, rate in rates.items()}
    numbers = {'rates': now, 'weight_decay': o.weight_decay, 'momentum': o.momentum}
    key = jax.random.key_data(key_of(config.seed, step))
    return Given(key, first, numbers, o.ema_decay, terms(step - first))

  compiled = jax.jit(given, out_shardings=devices.replicated)
  return lambda state: compiled(state.step, optimizer.updates_of(state.opt_state))


@dataclasses.dataclass(frozen=True)
class Step:
  """`train_step(state, batch) -> state, metrics` as one program; the old state is gone afterwards.

  Attributes:
    program: `(state, batch, given) -> state, metrics`.
    given: `(state) -> Given`.
  """

  program: Callable[..., Any]
  given: Callable[[TrainState], Any]

  def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Array]]:
    """Takes one step."""
    return self.program(state, batch, self.given(state))

  def compiled(self, state: TrainState, batch: Any) -> 'Step':
    """Returns the step compiled for these arguments, ahead of its first call."""
    program: Any = self.program
    return dataclasses.replace(self, program=program.lower(state, batch, self.given(state)).compile())
