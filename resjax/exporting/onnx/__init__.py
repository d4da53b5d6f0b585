"""A network as files of ONNX: uint8 crops in, logits out, for one resolution or for all over the same weights."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

from resjax import resize
from resjax.exporting.names import PREDICTOR, WEIGHTS, file_of
from resjax.exporting.onnx.fold import fold
from resjax.exporting.onnx.graph import INPUT, IR_VERSION, OPSET, Graph, Takes, Tensor, Weights, refuse
from resjax.exporting.onnx.trace import trace
from resjax.network import Network
from resjax.resolution import Resolution, sides


def of_function(
  function: Callable[[Any, jax.Array], jax.Array], variables: Any, shape: Sequence[int], weights: Takes | None = None
) -> ModelProto:
  """Returns a function of JAX as a model of ONNX, of uint8 crops `[b, H, W, 3]` for any b to what it gives.

  Args:
    function: `function(variables, crops)`, which returns float32 `[b, K]`.
    variables: Any tree of arrays.
    shape: Of a crop, (H, W, 3).
    weights: As of `of_network`.

  Raises:
    ValueError: See `trace.trace`.
  """
  graph = Graph()
  result = trace(graph, function, variables, graph.crops(shape))
  return _model(graph, result, [tuple(shape)], weights=weights)


def of_network(
  network: Network, resolution: Resolution, *, softmax: bool = False, weights: Takes | None = None
) -> ModelProto:
  """Returns a network at one of its resolutions as a model of ONNX.

  It takes `crops`, uint8 `[b, S, S, 3]` of the network's largest resolution S, which it resizes, or `[b, R, R, 3]` of
  its own; for any b. It gives `logits`, float32 `[b, K]`.

  Args:
    network: Computing in float32.
    resolution: One of its own.
    softmax: It gives `probabilities` instead.
    weights: Takes the weights, to be shared with other resolutions; None: they stand in the model, BatchNorm folded.

  Raises:
    ValueError: The network has no such resolution, computes in bfloat16, or see `trace.trace`.
  """
  graph, sizes = Graph(), [sides(network.resolutions[0]), sides(resolution)]
  pixels = _pixels(graph, sizes[0], sizes[1], network.preprocessing.interpolation)
  result = trace(graph, network.forward(resolution, softmax=softmax), network.view(resolution), pixels)
  return _model(graph, result, [(*size, 3) for size in sizes], 'probabilities' if softmax else 'logits', weights)


def of_predictor(network: Network, *, weights: Takes | None = None) -> ModelProto:
  """Returns a network's predictor: `crops`, uint8 `[b, S, S, 3]` of the largest resolution, to `scores` `[b, R]`.

  Raises:
    ValueError: The network has none; or as of `of_network`.
  """
  scoring = network.scoring()
  graph, size = Graph(), sides(network.resolutions[0])
  result = trace(graph, scoring.forward, scoring.variables, graph.crops((*size, 3)))
  return _model(graph, result, [(*size, 3)], 'scores', weights)


def write(network: Network, out: pathlib.Path, *, softmax: bool = False, ranges: np.ndarray | None = None) -> None:
  """Writes a network of one resolution as the file `out`, one of several as a folder: a file each, their weights once.

  Args:
    network: As of `of_network`.
    out: A new file or folder; its parent is there.
    softmax: As of `of_network`.
    ranges: As of `files`.

  Raises:
    ValueError: As of `of_network`.
    OSError: It can't be written.
  """
  if len(network.resolutions) == 1 and network.predictor is None:
    model = of_network(network, network.resolutions[0], softmax=softmax)
    out.write_bytes((model if ranges is None else _in_int8(model, ranges)).SerializeToString())
    return
  out.mkdir()
  for name, content in files(network, softmax=softmax, ranges=ranges).items():
    (out / name).write_bytes(content)


def files(network: Network, *, softmax: bool = False, ranges: np.ndarray | None = None) -> dict[str, bytes]:
  """Returns the files of a folder by name: a model for each resolution, the predictor's if any, and their weights.

  Args:
    network: As of `of_network`.
    softmax: As of `of_network`.
    ranges: Crops of the largest resolution, uint8 `[N, S, S, 3]`, for a network in int8, whose ranges are set on them
      (`int8.quantised`); the predictor stays as it is. None: float32.
  """
  weights = Weights(WEIGHTS)
  if ranges is None:
    models = [of_network(network, resolution, softmax=softmax, weights=weights) for resolution in network.resolutions]
  else:
    from resjax.exporting.onnx.int8 import Shared

    take = Shared(weights).take
    models = [take(_in_int8(of_network(network, r, softmax=softmax), ranges)) for r in network.resolutions]
  found = {file_of(resolution): model.SerializeToString() for resolution, model in zip(network.resolutions, models)}
  if network.predictor is not None:
    found[PREDICTOR] = of_predictor(network, weights=weights).SerializeToString()
  return found | {WEIGHTS: weights.to_bytes()}


def _in_int8(model: ModelProto, ranges: np.ndarray) -> ModelProto:
  """A model in int8, by ONNX Runtime, which what is written in float32 does not need."""
  from resjax.exporting.onnx.int8 import quantised

  return quantised(model, ranges)


def _pixels(graph: Graph, largest: tuple[int, int], size: tuple[int, int], interpolation: str) -> Tensor:
  """The crops as float32 pixels of a size, resized where they are of the largest."""

  def as_they_are(crops: jax.Array) -> jax.Array:
    return crops.astype(jnp.float32)

  def resized(crops: jax.Array) -> jax.Array:
    return resize.resize(crops, size, interpolation)

  def branch(name: str, function: Callable[[jax.Array], jax.Array], of: tuple[int, int]) -> onnx.GraphProto:
    inner = Graph(prefix=name)
    result = trace(inner, lambda _, crops: function(crops).transpose(0, 3, 1, 2), (), inner.crops((*of, 3)))
    fold(inner, result.name, into_weights=True)
    return inner.to_proto([], [helper.make_tensor_value_info(result.name, TensorProto.FLOAT, ('batch', 3, *size))])

  if size == largest:
    return trace(graph, lambda _, crops: as_they_are(crops), (), graph.crops((*size, 3)))
  axis = 1 if size[0] != largest[0] else 2
  length = graph.node('Gather', graph.node('Shape', INPUT), graph.constant(np.array(axis)))
  name = graph.node(
    'If',
    graph.node('Equal', length, graph.constant(np.array(size[axis - 1]))),
    then_branch=branch('a', as_they_are, size),
    else_branch=branch('b', resized, largest),
  )
  return Tensor(name, (0, 2, 3, 1), (graph.batch, *size, 3), np.dtype(np.float32))


def _model(
  graph: Graph, result: Tensor, shapes: Sequence[tuple[int, ...]], output: str = 'logits', weights: Takes | None = None
) -> ModelProto:
  """A graph as a model, checked."""
  if result.dtype != np.float32:
    refuse(f'a result of type {result.dtype}')
  fold(graph, result.name, into_weights=weights is None)
  graph.rename(result.name, output)
  crop: list[Any] = [sizes[0] if len(set(sizes)) == 1 else name for name, sizes in zip('hwc', zip(*shapes))]
  inputs = [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ('batch', *crop))]
  outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ('batch', *result.sizes[1:]))]
  proto = graph.to_proto(inputs, outputs, weights)
  model = helper.make_model(
    proto, opset_imports=[helper.make_opsetid('', OPSET)], ir_version=IR_VERSION, producer_name='resjax'
  )
  try:
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    if weights is None:
      onnx.checker.check_model(model)
  except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
    refuse(f'what is no model of ONNX ({str(error).splitlines()[0]})')
  return model
