"""Graphs made smaller: BatchNorm goes into the convolution before it, and what nothing uses goes altogether."""

from collections import Counter

import numpy as np

from resjax.exporting.onnx.graph import Graph, Node


def fold(graph: Graph, result: str, *, into_weights: bool) -> None:
  """Makes one scale and one shift of all those that follow a convolution, and drops what nothing uses.

  Args:
    graph: Is changed.
    result: The name of its result.
    into_weights: Scale and shift become part of the convolution. False: its weights stay as they are, to be shared with
      other graphs, and a BatchNormalization follows, which runtimes fold where they like.
  """
  uses = Counter(name for node in graph.nodes for name in node.inputs)
  uses[result] += 1
  by_input = {name: node for node in graph.nodes for name in node.inputs}
  instead: dict[str, list[Node]] = {}
  for conv in graph.nodes:
    weights = graph.constants.get(conv.inputs[1]) if conv.op == 'Conv' else None
    if weights is None:
      continue
    scale, shift, last = np.ones(len(weights)), np.zeros(len(weights)), conv.output
    while uses[last] == 1 and last in by_input:
      found = _affine(graph, by_input[last], last, weights)
      if found is None:
        break
      instead[by_input[last].output] = []
      scale, shift, last = scale * found[0], shift * found[0] + found[1], by_input[last].output
    if last != conv.output:
      instead[conv.output] = _scaled(graph, conv, last, scale, shift, into_weights)
  graph.nodes[:] = [new for node in graph.nodes for new in instead.get(node.output, [node])]
  _drop(graph, result)


def _affine(graph: Graph, node: Node, of: str, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
  """Scale and shift of each channel, where a node does no more to its one input that is not constant."""
  if node.op not in ('Add', 'Sub', 'Mul', 'Div') or (node.op == 'Div' and node.inputs[0] != of):
    return None
  other = graph.constants.get(node.inputs[1] if node.inputs[0] == of else node.inputs[0])
  channels = len(weights)
  if other is None or not (other.size == 1 or other.shape == (1, channels, *[1] * (weights.ndim - 2))):
    return None
  values = np.broadcast_to(other.reshape(-1).astype(float), channels)
  zeros, ones = np.zeros(channels), np.ones(channels)
  if node.op in ('Mul', 'Div'):
    return (values if node.op == 'Mul' else 1 / values), zeros
  if node.op == 'Add':
    return ones, values
  return (ones, -values) if node.inputs[0] == of else (-ones, values)


def _scaled(
  graph: Graph, conv: Node, output: str, scale: np.ndarray, shift: np.ndarray, into_weights: bool
) -> list[Node]:
  """A convolution with the scale and shift of each of its channels."""
  weights = graph.constants[conv.inputs[1]]

  def constant(values: np.ndarray) -> str:
    return graph.constant(values.astype(weights.dtype))

  if into_weights:
    scaled = weights * scale.reshape(-1, *[1] * (weights.ndim - 1))
    return [Node('Conv', (conv.inputs[0], constant(scaled), constant(shift)), output, conv.attributes)]
  zeros, ones = np.zeros_like(scale), np.ones_like(scale)
  inputs = (conv.output, *map(constant, (scale, shift, zeros, ones)))
  return [conv, Node('BatchNormalization', inputs, output, {'epsilon': 0.0})]


def _drop(graph: Graph, result: str) -> None:
  """Drops the nodes and constants that the result does not need."""
  needed = {result}
  for node in reversed(graph.nodes):
    if node.output in needed:
      needed |= set(node.inputs)
  graph.nodes[:] = [node for node in graph.nodes if node.output in needed]
  graph.constants = {name: array for name, array in graph.constants.items() if name in needed}
