"""All that changes during training, as one pytree of arrays."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from resjax.switchable import Variables


@flax.struct.dataclass
class TrainState:
  """Pure data: no functions, no keys (those follow from the seed and the step).

  Attributes:
    step: int32 `[]`, batches seen; also the position in the data.
    params: The trained parameters.
    batch_stats: BatchNorm's running statistics.
    opt_state: The optimiser's.
    ema: A running average of `params` and of `batch_stats`, or None where none is kept.
  """

  step: Array
  params: Any
  batch_stats: Any
  opt_state: Any
  ema: Any = None

  @property
  def variables(self) -> Variables:
    """What evaluation uses: the averages where they are kept, which belong together; else what is trained."""
    return {'params': self.params, 'batch_stats': self.batch_stats} if self.ema is None else self.ema


def create(variables: Variables, tx: optax.GradientTransformation, *, ema: bool = False) -> TrainState:
  """Returns the state before the first step. Call it inside `jax.jit`: no two of its arrays may share a buffer."""
  params = variables['params']
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=variables['batch_stats'],
    opt_state=tx.init(params),
    ema=average_from(params, variables['batch_stats']) if ema else None,
  )


def average_from(params: Any, batch_stats: Any) -> Variables:
  """Returns the average that begins at these parameters and statistics, in memory of its own."""
  return jax.tree.map(jnp.array, {'params': params, 'batch_stats': batch_stats})
