"""What is compiled, before any runtime is chosen: crops in, logits out, at one resolution."""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resjax.exporting import functions
from resjax.exporting.bundle import Bundle, OnnxFile
from resjax.network import Network, digest_of
from resjax.resolution import Resolution, sides

_ADDRESS = re.compile(r' at 0x[0-9a-f]+')


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
  """A network at one resolution, as a pure function of its variables and any number of crops.

  Attributes:
    forward: `forward(variables, crops) -> logits`: uint8 `[b, H, W, 3]` to float32 `[b, K]`. It holds the resizing from
      the crop's size, the normalisation, and the network in inference mode.
    variables: Its ordinary variables; programs of one network share the arrays that the resolutions share.
    resolution: At which the network runs, in pixels, of a square, or (height, width).
    shape: Of a crop, (H, W, 3).
    num_classes: K.
    description: What is computed, whatever the weights are: programs of one description take the same time.
    dtype: Of the computation.
  """

  forward: functions.Forward
  variables: Any
  resolution: Resolution
  shape: tuple[int, int, int]
  num_classes: int
  description: str
  dtype: str

  @functools.cached_property
  def digest(self) -> str:
    """A digest of what is computed and of all weights: programs of one digest give the same logits."""
    return digest_of(self.variables, f'{self.description} {self.resolution} {self.shape}')


def of_network(network: Network | Bundle) -> tuple[Program, ...]:
  """Returns the programs of a network, one for each of its resolutions, from crops of the first."""
  if isinstance(network, Bundle):
    shape = (*sides(network.resolutions[0]), 3)
    return tuple(
      _of_file(network.file(resolution), resolution, shape, network.num_classes, network.digest)
      for resolution in network.resolutions
    )
  normalize, interpolation = network.preprocessing.normalize, network.preprocessing.interpolation
  shape = (*sides(network.resolutions[0]), 3)
  described = _description(network.model, network.view(network.resolutions[0]), network.apply, shape)
  return tuple(
    Program(
      forward=functions.at(network, resolution),
      variables=network.view(resolution),
      resolution=resolution,
      shape=shape,
      num_classes=network.num_classes,
      description=f'{described}, {normalize}, {interpolation}',
      dtype=str(getattr(network.model, 'dtype', 'float32')),
    )
    for resolution in network.resolutions
  )


def of_predictor(network: Network | Bundle) -> tuple[Program]:
  """Returns the program of a network's predictor, from the same crops: its logits are the scores `[b, R]`.

  Raises:
    ValueError: The network has none.
  """
  if network.predictor is None:
    raise ValueError('network: it has no predictor, expected one')
  if isinstance(network, Bundle):
    shape, size = (*sides(network.resolutions[0]), 3), network.predictor.size
    return (_of_file(network.scorer, size, shape, len(network.resolutions), network.digest),)
  predictor = network.predictor
  normalize, model = network.preprocessing.normalize, predictor.model
  shape = (*sides(network.resolutions[0]), 3)

  scores = functions.scores(network)
  described = _description(model, network.predictor_variables, scores, shape)
  program = Program(
    forward=scores,
    variables=network.predictor_variables,
    resolution=predictor.size,
    shape=shape,
    num_classes=len(network.resolutions),
    description=f'{described}, {normalize}, bilinear',
    dtype=str(getattr(model, 'dtype', 'float32')),
  )
  return (program,)


def _of_file(
  file: OnnxFile, resolution: Resolution, shape: tuple[int, int, int], num_classes: int, digest: str
) -> Program:
  """A program that is a file."""
  return Program(file, {}, resolution, shape, num_classes, f'{file.path.name} of {digest}', 'float32')


def _description(model: Any, variables: Any, apply: functions.Forward, shape: tuple[int, ...]) -> str:
  """What a model is, the same in every process: its attributes, and its number of parameters.

  Where a function is among them, as in a model that is one, its name says too little, or an address that no other
  process has; what is computed of an image of this shape is said too.
  """
  named = _ADDRESS.sub('', repr(model))
  if named != repr(model) or '<lambda>' in named:
    traced = jax.make_jaxpr(apply)(variables, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    named += f' {digest_of(traced.consts, _ADDRESS.sub("", str(traced.jaxpr)))[:16]}'
  return f'{named} with {sum(map(np.size, jax.tree.leaves(variables))):,} values'
