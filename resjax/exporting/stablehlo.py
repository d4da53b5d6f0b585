"""A network as StableHLO: one file for CPUs, GPUs and TPUs, which JAX and flatbuffers alone run."""

import importlib.util
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from resjax.network import Forward, Network
from resjax.resolution import sides

PLATFORMS = ('cpu', 'cuda', 'tpu')

# What a folder's files are called.
NETWORK = 'network.stablehlo'
PREDICTOR = 'predictor.stablehlo'


def of_network(network: Network, *, softmax: bool = False) -> bytes:
  """Returns a network at all its resolutions: `call(place, crops)`, float32 `[b, K]` for any b.

  `place`, int32, is the resolution's place, 0 for the highest. `crops` are uint8 `[b, S, S, 3]` of the highest, which
  are resized. A network of one resolution is `call(crops)`.

  Args:
    network: Any that JAX runs.
    softmax: It gives probabilities, not logits.

  Raises:
    ValueError: flatbuffers is not installed.
  """
  branches = [
    _closed(network.forward(resolution, softmax=softmax), network.view(resolution))
    for resolution in network.resolutions
  ]
  if len(branches) == 1:
    return _exported(network, branches[0])
  place = jax.ShapeDtypeStruct((), jnp.int32)
  return _exported(network, lambda place, crops: jax.lax.switch(place, branches, crops), place)


def of_predictor(network: Network) -> bytes:
  """Returns a network's predictor: `call(crops)`, of crops of the highest resolution, float32 `[b, R]`.

  Raises:
    ValueError: The network has none; or as of `of_network`.
  """
  scoring = network.scoring()
  return _exported(network, _closed(scoring.forward, scoring.variables))


def write(network: Network, out: pathlib.Path, *, softmax: bool = False) -> None:
  """Writes a network as the file `out`; one with a predictor as a folder with `NETWORK` and `PREDICTOR`.

  Args:
    network: As of `of_network`.
    out: A new file or folder; its parent is there.
    softmax: As of `of_network`.

  Raises:
    ValueError: As of `of_network`.
    OSError: It can't be written.
  """
  if network.predictor is None:
    out.write_bytes(of_network(network, softmax=softmax))
    return
  out.mkdir()
  for name, content in files(network, softmax=softmax).items():
    (out / name).write_bytes(content)


def files(network: Network, *, softmax: bool = False) -> dict[str, bytes]:
  """Returns the files of a folder by name, `NETWORK`, and with a predictor `PREDICTOR`; as of `of_network`."""
  predictor = {} if network.predictor is None else {PREDICTOR: of_predictor(network)}
  return {NETWORK: of_network(network, softmax=softmax)} | predictor


def _closed(function: Forward, variables: Any) -> Callable[[jax.Array], jax.Array]:
  """A function of crops alone."""
  return lambda crops: function(variables, crops)


def _exported(network: Network, function: Callable[..., jax.Array], *before: Any) -> bytes:
  """A function as a file; its last argument are crops of the highest resolution."""
  if importlib.util.find_spec('flatbuffers') is None:
    raise ValueError('format: got stablehlo, which needs flatbuffers: pip install flatbuffers')
  (batch,) = export.symbolic_shape('batch')
  crops = jax.ShapeDtypeStruct((batch, *sides(network.resolutions[0]), 3), jnp.uint8)
  exported = export.export(jax.jit(function), platforms=PLATFORMS)(*before, crops)
  return bytes(exported.serialize())
