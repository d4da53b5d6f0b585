"""A graph of ONNX as it is built: tensors whose axes stand in the order that suits ONNX, constants, nodes."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import numpy as np
from jax import export
from onnx import GraphProto, TensorProto, helper

OPSET = 18
INPUT = 'crops'
IR_VERSION = 9  # of files: what ONNX Runtime reads since 1.15

# Constants of fewer bytes stand in the graph itself, also where the others have a file of their own.
SMALL = 1024

# A matrix that is so much larger than what is not zero in it is written as its band: those that resize are.
_BAND = 4


@dataclasses.dataclass(frozen=True)
class Tensor:
  """An array of JAX as the graph has it.

  Attributes:
    name: Of ONNX's tensor.
    axes: Axis i of JAX's array is axis `axes[i]` of the tensor.
    sizes: Of the array, in JAX's order; 1 where the tensor has one entry for all.
    dtype: NumPy's.
  """

  name: str
  axes: tuple[int, ...]
  sizes: tuple[Any, ...]
  dtype: np.dtype


# An array of JAX; of a constant, some axes may have one entry for all, too.
Value = Tensor | np.ndarray


@dataclasses.dataclass(frozen=True)
class Node:
  """One operation.

  Attributes:
    op: ONNX's name of it.
    inputs: Names of tensors.
    output: Name of its one result.
    attributes: Of the operation.
  """

  op: str
  inputs: tuple[str, ...]
  output: str
  attributes: dict[str, Any]


class Graph:
  """Nodes and constants, in the order in which they are run.

  Attributes:
    batch: What stands for the number of images in JAX's shapes.
    nodes: So far.
    constants: Arrays by name.
  """

  def __init__(self, prefix: str = ''):
    """Begins with nothing.

    Args:
      prefix: Of all names, where it is a branch in another graph.
    """
    (self.batch,) = export.symbolic_shape('batch')
    self.prefix = prefix
    self.nodes: list[Node] = []
    self.constants: dict[str, np.ndarray] = {}
    self._made: dict[Any, str] = {}
    self._names = 0

  def name(self) -> str:
    """Returns a new name."""
    self._names += 1
    return f'{self.prefix}{self._names}'

  def made_by(self, name: str, op: str) -> Node | None:
    """Returns the node that made a tensor, where it is of this operation."""
    return next((node for node in reversed(self.nodes) if node.output == name and node.op == op), None)

  def node(self, op: str, *inputs: str, **attributes: Any) -> str:
    """Returns the name of an operation's result; the same operation of the same inputs is there once."""
    key = (op, inputs, repr(sorted(attributes.items())))
    if key not in self._made:
      self._made[key] = self.name()
      self.nodes.append(Node(op, inputs, self._made[key], attributes))
    return self._made[key]

  def constant(self, array: Any) -> str:
    """Returns the name of a constant; equal ones are there once."""
    array = np.ascontiguousarray(array).reshape(np.shape(array))
    key = digest(array)
    if key not in self._made:
      band = _band(array)
      if band is not None:
        zeros = self.node('ConstantOfShape', self.integers(array.shape))
        indices, values = band
        self._made[key] = self.node('ScatterElements', zeros, self.constant(indices), self.constant(values), axis=1)
      else:
        self._made[key] = self.name()
        self.constants[self._made[key]] = array
    return self._made[key]

  def integers(self, values: Sequence[int]) -> str:
    """Returns the name of a list of integers: shapes, axes and the like."""
    return self.constant(np.array(values, np.int64))

  def crops(self, shape: Sequence[int], dtype: Any = np.uint8) -> Tensor:
    """Returns the input, any number of arrays of one shape; of images, the channels before the pixels.

    They are moved as bytes, and what normalises or resizes them runs along rows: where the innermost axis is three
    channels, ONNX Runtime takes half a millisecond longer for an image of 224 px.
    """
    order = (0, 3, 1, 2) if len(shape) == 3 else tuple(range(len(shape) + 1))
    whole = Tensor(INPUT, tuple(range(len(shape) + 1)), (self.batch, *shape), np.dtype(dtype))
    return dataclasses.replace(whole, name=self.laid(whole, order), axes=tuple(map(order.index, whole.axes)))

  def shape(self, shape: Sequence[Any], what: str) -> str:
    """Returns the name of a shape as a tensor, its batch as it is when the graph is run.

    Args:
      shape: In the tensor's order.
      what: Needs it; the message's beginning.

    Raises:
      ValueError: A number in it is neither known nor the batch's.
    """
    parts = []
    for size in shape:
      if isinstance(size, int):
        parts.append(self.integers([size]))
      elif size == self.batch:
        sizes = self.node('Shape', INPUT)
        parts.append(self.node('Gather', sizes, self.integers([0])))
      else:
        refuse(f'{what} to {size} entries')
    return self.node('Concat', *parts, axis=0)

  def full(self, value: Value, shape: tuple[Any, ...]) -> Value:
    """Returns an array with all its entries, where it may have one for all.

    Args:
      value: As it is kept.
      shape: Of JAX's array.
    """
    if isinstance(value, np.ndarray):
      if value.shape == shape:
        return value
      if all(isinstance(size, int) for size in shape):
        return np.broadcast_to(value, shape)
      value = self.tensor(value)
    if value.sizes == shape:
      return value
    wanted = [shape[value.axes.index(i)] for i in range(len(shape))]
    name = self.node('Expand', value.name, self.shape(wanted, 'an array that is spread'))
    return dataclasses.replace(value, name=name, sizes=shape)

  def tensor(self, value: Value) -> Tensor:
    """Returns a tensor, of a constant too."""
    if isinstance(value, Tensor):
      return value
    return Tensor(self.constant(value), tuple(range(value.ndim)), value.shape, value.dtype)

  def laid(self, value: Value, order: Sequence[int]) -> str:
    """Returns the name of a tensor whose k-th axis is axis `order[k]` of JAX's array."""
    if isinstance(value, np.ndarray):
      return self.constant(value.transpose(order))
    perm = [value.axes[axis] for axis in order]
    return value.name if perm == sorted(perm) else self.node('Transpose', value.name, perm=perm)

  def rename(self, old: str, new: str) -> None:
    """Gives a tensor that a node makes another name."""

    def named(name: str) -> str:
      return new if name == old else name

    self.nodes = [
      dataclasses.replace(node, inputs=tuple(map(named, node.inputs)), output=named(node.output)) for node in self.nodes
    ]

  def to_proto(self, inputs: Sequence[Any], outputs: Sequence[Any], weights: 'Takes | None' = None) -> GraphProto:
    """Returns ONNX's graph.

    Args:
      inputs: ONNX's descriptions of them.
      outputs: The same.
      weights: Takes the constants that are not small; None: they stand in the graph.
    """
    nodes = [helper.make_node(node.op, node.inputs, [node.output], **node.attributes) for node in self.nodes]
    constants = []
    for name, array in self.constants.items():
      proto = TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
      if weights is None or array.nbytes < SMALL:
        proto.raw_data = array.tobytes()
      else:
        weights.refer(proto, array)
      constants.append(proto)
    return helper.make_graph(nodes, 'resjax', inputs, outputs, constants)


class Takes(Protocol):
  """What takes weights, so that several graphs have them once."""

  def refer(self, proto: TensorProto, array: np.ndarray) -> None:
    """Takes a constant, and makes its description say where its values are."""


class Weights:
  """Constants of several graphs, each once, as one file has them.

  Attributes:
    location: The file's name, beside the graphs.
  """

  _ALIGNED = 64  # bytes

  def __init__(self, location: str):
    """Begins with none."""
    self.location = location
    self._parts: list[bytes] = []
    self._size = 0
    self._offsets: dict[Any, int] = {}

  def refer(self, proto: TensorProto, array: np.ndarray) -> None:
    """Makes a tensor's description say where its values stand in the file."""
    key = digest(array)
    if key not in self._offsets:
      self._offsets[key] = self._size
      data = array.tobytes()
      self._parts.append(data + bytes(-len(data) % self._ALIGNED))
      self._size += len(self._parts[-1])
    elsewhere(proto, self.location, self._offsets[key], array.nbytes)

  def to_bytes(self) -> bytes:
    """Returns the file."""
    return b''.join(self._parts)


def digest(array: np.ndarray) -> Any:
  """Returns what is equal for equal constants."""
  return str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).digest()


def elsewhere(proto: TensorProto, location: str, offset: int, length: int) -> None:
  """Makes a constant's description say that its values are in a file, and where."""
  proto.data_location = TensorProto.EXTERNAL
  for field, value in (('location', location), ('offset', offset), ('length', length)):
    proto.external_data.add(key=field, value=str(value))


def refuse(what: str) -> NoReturn:
  """Raises ValueError: a network does what ONNX's writer does not know."""
  raise ValueError(
    f'model: has {what}, expected operations that the ONNX writer knows; StableHLO takes any network of JAX '
    '(resjax export --format=stablehlo, resjax.exporting.stablehlo)'
  )


def _band(array: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
  """Column numbers and values `[rows, n]` of a matrix that is zero elsewhere; None where that is not far less."""
  if array.ndim != 2 or array.dtype != np.float32 or array.nbytes < SMALL:
    return None
  present = array != 0
  taps = int(present.sum(1).max())
  first = np.minimum(present.argmax(1), array.shape[1] - taps)
  indices = first[:, None] + np.arange(taps)
  values = np.take_along_axis(array, indices, 1)
  if _BAND * 3 * values.nbytes > array.nbytes or np.count_nonzero(values) != np.count_nonzero(array):
    return None
  return indices.astype(np.int64), values
