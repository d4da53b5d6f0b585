"""A network as functions of its variables and crops: what is written to files."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from resjax import preprocess
from resjax.apply import run
from resjax.network import Network
from resjax.resolution import Resolution

Forward = Callable[[Any, jax.Array], jax.Array]


def at(network: Network, resolution: Resolution, *, softmax: bool = False) -> Forward:
  """Returns `forward(variables, crops)`, which gives float32 `[b, K]`.

  Args:
    network: What is run.
    resolution: At which; crops of another size are resized to it. They are `[b, H, W, 3]`, of values 0 to 255.
    softmax: It gives probabilities, not logits.
  """
  preprocessing = network.preprocessing

  def forward(variables: Any, crops: jax.Array) -> jax.Array:
    (inputs,) = preprocess.prepare(
      (crops,), (resolution,), preprocessing.normalize, interpolation=preprocessing.interpolation
    )
    logits = run(network.model, variables, inputs, train=False)[0].astype(jnp.float32)
    return jax.nn.softmax(logits) if softmax else logits

  return forward


def scores(network: Network) -> Forward:
  """Returns `forward(variables, crops)` of a network's predictor, which gives float32 `[b, R]`.

  Raises:
    ValueError: The network has none.
  """
  predictor, normalize = network.predictor, network.preprocessing.normalize
  if predictor is None:
    raise ValueError('network: it has no predictor, expected one')

  def forward(variables: Any, crops: jax.Array) -> jax.Array:
    (inputs,) = preprocess.prepare((crops,), (predictor.size,), normalize)
    found: Any = predictor.model.apply(variables, inputs, train=False)
    return found.astype(jnp.float32)

  return forward
