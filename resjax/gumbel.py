"""A choice that can be drawn and still be learned: Gumbel-max forward, the softmax at a temperature backward.

Jang et al., "Categorical Reparameterization with Gumbel-Softmax", and Maddison et al., "The Concrete Distribution"
(both ICLR 2017).
"""

import jax
import jax.numpy as jnp
from jax import Array

from resjax import preprocess

# Sets the noise apart from the other draws that are made with an example's key.
_STREAM = 1


def draw(key: Array, index: Array, count: int) -> Array:
  """Returns standard Gumbel noise, float32 `[B, count]`, that depends on the step and the example alone.

  Args:
    key: The step's typed PRNG key.
    index: int `[B]`, the examples' numbers in their source.
    count: How many there are to choose from.
  """
  keys = preprocess.per_example_keys(jax.random.fold_in(key, _STREAM), index)
  return jax.vmap(lambda k: jax.random.gumbel(k, (count,), jnp.float32))(keys)


@jax.custom_vjp
def straight_through(hard: Array, soft: Array) -> Array:
  """Returns `hard` exactly; what is differentiated with respect to the result flows to `soft` unchanged."""
  del soft
  return hard


straight_through.defvjp(lambda hard, soft: (hard, None), lambda _, g: (jnp.zeros_like(g), g))


def choose(scores: Array, noise: Array, tau: Array | float) -> Array:
  """Returns a one-hot choice `[B, R]`, drawn with the probabilities `softmax(scores)`.

  Forward `one_hot(argmax(scores + noise))`, backward the Jacobian of `softmax((scores + noise) / tau)`.

  Args:
    scores: `[B, R]`.
    noise: As from `draw`, `[B, R]`.
    tau: The temperature, above 0: a lower one has sharper and noisier gradients. The choice does not depend on it.
  """
  perturbed = scores + noise
  hard = jax.nn.one_hot(perturbed.argmax(-1), scores.shape[-1], dtype=scores.dtype)
  return straight_through(hard, jax.nn.softmax(perturbed / tau))


def temperature(progress: Array | float, start: float, end: float) -> Array:
  """Returns the temperature: it falls from `start` to `end` by the same factor in each part of the run.

  Args:
    progress: Share of the run that is over, 0 to 1.
    start: Of the first step.
    end: Of the last step, at most `start`.
  """
  return start * (end / start) ** jnp.asarray(progress, jnp.float32)
