"""What ONNX calls JAX's operations: a function for each kind, in `OPERATIONS` by the primitive's name."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import helper

from resjax.exporting.onnx import layers
from resjax.exporting.onnx.graph import Graph, Tensor, Value, refuse

# Of a graph, an equation of JAX and its arguments, one or more of them no constant, its results.
Operation = Callable[..., Sequence[Value]]


def elementwise(graph: Graph, args: Sequence[Value], make: Callable[..., str], dtype: Any) -> Tensor:
  """Returns an operation on entries that belong together, in the layout of its first tensor of most entries.

  Args:
    graph: Gets the nodes.
    args: Arrays of one rank, one entry for all along some axes; or numbers.
    make: Of the names of tensors, which ONNX spreads over each other, the name of the result.
    dtype: Of the result.
  """
  leading = max((arg for arg in args if isinstance(arg, Tensor)), key=lambda arg: sum(map(_many, arg.sizes)))
  order = [leading.axes.index(i) for i in range(len(leading.axes))]
  names = [graph.laid(arg, order) if _sizes(arg) else graph.laid(arg, ()) for arg in args]
  each = zip(*(_sizes(arg) for arg in args if _sizes(arg)))
  sizes = tuple(next(filter(_many, along), 1) for along in each)
  return Tensor(make(*names), leading.axes, sizes, np.dtype(dtype))


def _sizes(value: Value) -> tuple[Any, ...]:
  """The sizes of an array as they are kept."""
  return value.sizes if isinstance(value, Tensor) else value.shape


def _many(size: Any) -> bool:
  """Whether a size is none of one entry for all."""
  return not (isinstance(size, int) and size == 1)


def _shape(var: Any) -> tuple[Any, ...]:
  """The shape of a variable of JAX."""
  return tuple(var.aval.shape)


def _simple(op: str, **attributes: Any) -> Operation:
  """The operation that ONNX has too."""

  def operation(graph: Graph, eqn: Any, *args: Value) -> Sequence[Value]:
    make = functools.partial(graph.node, op, **attributes)
    return [elementwise(graph, args, make, eqn.outvars[0].aval.dtype)]

  return operation


def _made_of(make: Callable[..., str]) -> Operation:
  """An operation on entries that ONNX has not: `make(graph, number, *names)`, `number` the name of a constant."""

  def operation(graph: Graph, eqn: Any, *args: Value) -> Sequence[Value]:
    dtype = np.dtype(eqn.outvars[0].aval.dtype)

    def number(value: float) -> str:
      return graph.constant(np.array(value, dtype))

    return [elementwise(graph, args, functools.partial(make, graph, number), dtype)]

  return operation


def _max(graph: Graph, eqn: Any, *args: Value) -> Sequence[Value]:
  """The larger; than 0, what ONNX's runtimes know best."""
  for one, other in (args, args[::-1]):
    if isinstance(one, Tensor) and isinstance(other, np.ndarray) and one.dtype == np.float32 and not other.any():
      return _simple('Relu')(graph, eqn, one)
  return _simple('Max')(graph, eqn, *args)


def _min(graph: Graph, eqn: Any, *args: Value) -> Sequence[Value]:
  """The smaller; than a number, of what is not below 0, in one."""
  for one, other in (args, args[::-1]):
    relu = graph.made_by(one.name, 'Relu') if isinstance(one, Tensor) else None
    if relu and isinstance(other, np.ndarray) and other.size == 1 and other.item() >= 0:
      limits = (graph.constant(np.array(limit, np.float32)) for limit in (0, other.item()))
      clipped = graph.node('Clip', relu.inputs[0], *limits)
      return [Tensor(clipped, one.axes, one.sizes, one.dtype)]  # type: ignore[union-attr]
  return _simple('Min')(graph, eqn, *args)


def _integer_pow(graph: Graph, eqn: Any, x: Tensor) -> Sequence[Value]:
  exponent = np.array(eqn.params['y'], x.dtype)
  return _simple('Pow')(graph, eqn, x, exponent)


def _cast(graph: Graph, eqn: Any, x: Tensor) -> Sequence[Value]:
  dtype = np.dtype(eqn.params['new_dtype'])
  if dtype == x.dtype:
    return [x]
  return _simple('Cast', to=helper.np_dtype_to_tensor_dtype(dtype))(graph, eqn, x)


def _select(graph: Graph, eqn: Any, which: Value, *cases: Value) -> Sequence[Value]:
  if len(cases) != 2 or which.dtype != bool or cases[0].dtype == bool:
    refuse(f'select_n of {len(cases)} cases of type {cases[0].dtype}')
  return _simple('Where')(graph, eqn, which, cases[1], cases[0])


def _transpose(graph: Graph, eqn: Any, x: Tensor) -> Sequence[Value]:
  """Axes change their names, no number moves."""
  perm = eqn.params['permutation']
  return [Tensor(x.name, tuple(x.axes[p] for p in perm), tuple(x.sizes[p] for p in perm), x.dtype)]


def _reshape(graph: Graph, eqn: Any, x: Tensor) -> Sequence[Value]:
  if eqn.params.get('dimensions') is not None:
    refuse('reshape with dimensions')
  old, new = _shape(eqn.invars[0]), _shape(eqn.outvars[0])
  whole = graph.full(x, old)
  return [_reshaped(graph, graph.laid(whole, range(len(old))), new, x.dtype)]


def _reshaped(graph: Graph, name: str, shape: tuple[Any, ...], dtype: np.dtype) -> Tensor:
  """A tensor of another shape, in JAX's order."""
  if sum(not isinstance(size, int) for size in shape) > 1:
    refuse(f'reshape to {shape}')
  sizes = graph.integers([size if isinstance(size, int) else -1 for size in shape])
  return Tensor(graph.node('Reshape', name, sizes), tuple(range(len(shape))), shape, dtype)


def _broadcast(graph: Graph, eqn: Any, x: Value, *_: Any) -> Sequence[Value]:
  """One entry stays one for all until all are needed."""
  shape, where = _shape(eqn.outvars[0]), eqn.params['broadcast_dimensions']
  kept = [1] * len(shape)
  for axis, size in zip(where, _sizes(x)):
    kept[axis] = size
  if isinstance(x, np.ndarray):
    return [x.reshape(kept)]
  if len(where) == len(shape):
    return [x]
  return [_reshaped(graph, graph.laid(x, range(len(where))), tuple(kept), x.dtype)]


def _squeeze(graph: Graph, eqn: Any, x: Tensor) -> Sequence[Value]:
  return [_squeezed(graph, x, eqn.params['dimensions'])]


def _squeezed(graph: Graph, x: Tensor, gone: Sequence[int]) -> Tensor:
  """A tensor without some of JAX's axes, of one entry."""
  name = graph.node('Squeeze', x.name, graph.integers(sorted(x.axes[axis] for axis in gone)))
  return _without(x, gone, name)


def _without(x: Tensor, gone: Sequence[int], name: str, dtype: Any = None) -> Tensor:
  """A tensor that has lost some of JAX's axes, the others in the order in which they were."""
  left = [axis for axis in range(len(x.axes)) if axis not in gone]
  order = sorted(x.axes[axis] for axis in left)
  sizes = tuple(x.sizes[axis] for axis in left)
  return Tensor(name, tuple(order.index(x.axes[axis]) for axis in left), sizes, np.dtype(dtype or x.dtype))


def _reduce(op: str) -> Operation:
  def operation(graph: Graph, eqn: Any, x: Tensor) -> Sequence[Value]:
    axes = eqn.params['axes']
    whole = graph.tensor(graph.full(x, _shape(eqn.invars[0])))
    if not axes:  # ONNX takes none for all
      return [whole]
    name = graph.node(op, whole.name, graph.integers(sorted(whole.axes[axis] for axis in axes)), keepdims=0)
    return [_without(whole, axes, name)]

  return operation


def _concatenate(graph: Graph, eqn: Any, *args: Value) -> Sequence[Value]:
  whole = [graph.tensor(graph.full(arg, _shape(var))) for arg, var in zip(args, eqn.invars)]
  axes = next(tensor.axes for tensor, arg in zip(whole, args) if isinstance(arg, Tensor))
  order = [axes.index(i) for i in range(len(axes))]
  names = [graph.laid(tensor, order) for tensor in whole]
  name = graph.node('Concat', *names, axis=axes[eqn.params['dimension']])
  return [Tensor(name, axes, _shape(eqn.outvars[0]), whole[0].dtype)]


def _sliced(graph: Graph, x: Tensor, starts: Any, limits: Any, strides: Any, shape: tuple[Any, ...]) -> Tensor:
  """A part of a whole tensor."""
  cut = [i for i, size in enumerate(x.sizes) if (starts[i], limits[i], strides[i]) != (0, size, 1)]
  if not cut:
    return x
  if not all(isinstance(number, int) for i in cut for number in (starts[i], limits[i])):
    refuse('slice of an axis whose size is not known')
  parts = (graph.integers([of[i] for i in cut]) for of in (starts, limits, x.axes, strides))
  return Tensor(graph.node('Slice', x.name, *parts), x.axes, shape, x.dtype)


def _slice(graph: Graph, eqn: Any, x: Tensor) -> Sequence[Value]:
  whole = graph.tensor(graph.full(x, _shape(eqn.invars[0])))
  strides = eqn.params['strides'] or [1] * len(whole.axes)
  starts, limits = eqn.params['start_indices'], eqn.params['limit_indices']
  return [_sliced(graph, whole, starts, limits, strides, _shape(eqn.outvars[0]))]


def _split(graph: Graph, eqn: Any, x: Tensor) -> Sequence[Value]:
  whole = graph.tensor(graph.full(x, _shape(eqn.invars[0])))
  axis, begin, found = eqn.params['axis'], 0, []
  for var, size in zip(eqn.outvars, map(int, eqn.params['sizes'])):
    starts, limits = [0] * len(whole.axes), list(whole.sizes)
    starts[axis], limits[axis] = begin, begin + size
    found.append(_sliced(graph, whole, starts, limits, [1] * len(limits), _shape(var)))
    begin += size
  return found


def _gather(graph: Graph, eqn: Any, x: Value, where: Value) -> Sequence[Value]:
  """What `x[:, 0]` becomes: one part, of which some axes go."""
  numbers, sizes = eqn.params['dimension_numbers'], eqn.params['slice_sizes']
  if isinstance(where, Tensor) or where.ndim != 1 or numbers.operand_batching_dims:
    refuse('gather, other than of one part at a known place')
  whole = graph.tensor(graph.full(x, _shape(eqn.invars[0])))
  starts, limits = [0] * len(sizes), list(sizes)
  for axis, start in zip(numbers.start_index_map, where.tolist()):
    starts[axis], limits[axis] = start, start + int(sizes[axis])
    if not 0 <= start <= whole.sizes[axis] - sizes[axis]:
      refuse('gather beyond the end')
  part = _sliced(graph, whole, starts, limits, [1] * len(sizes), tuple(sizes))
  gone = numbers.collapsed_slice_dims
  return [_squeezed(graph, part, gone)] if gone else [part]


def _pad(graph: Graph, eqn: Any, x: Value, filling: Value) -> Sequence[Value]:
  config = eqn.params['padding_config']
  if any(low < 0 or high < 0 or inner for low, high, inner in config) or isinstance(filling, Tensor):
    refuse('pad that cuts or spreads')
  whole = graph.tensor(graph.full(x, _shape(eqn.invars[0])))
  order = [whole.axes.index(i) for i in range(len(whole.axes))]
  pads = [config[axis][side] for side in (0, 1) for axis in order]
  name = graph.node('Pad', whole.name, graph.integers(pads), graph.constant(filling))
  return [Tensor(name, whole.axes, _shape(eqn.outvars[0]), whole.dtype)]


def _same(graph: Graph, eqn: Any, *args: Value) -> Sequence[Value]:
  return args


OPERATIONS: dict[str, Operation] = {
  **{
    name: _simple(op)
    for name, op in {
      'add': 'Add', 'add_any': 'Add', 'sub': 'Sub', 'mul': 'Mul', 'div': 'Div', 'pow': 'Pow', 'neg': 'Neg',
      'abs': 'Abs', 'exp': 'Exp', 'log': 'Log', 'sqrt': 'Sqrt', 'tanh': 'Tanh', 'logistic': 'Sigmoid', 'erf': 'Erf',
      'sin': 'Sin', 'cos': 'Cos', 'sign': 'Sign', 'floor': 'Floor', 'ceil': 'Ceil', 'eq': 'Equal', 'lt': 'Less',
      'gt': 'Greater',
      'le': 'LessOrEqual', 'ge': 'GreaterOrEqual', 'and': 'And', 'or': 'Or', 'not': 'Not',
    }.items()
  },
  'max': _max,
  'min': _min,
  'square': _made_of(lambda graph, number, x: graph.node('Mul', x, x)),
  'rsqrt': _made_of(lambda graph, number, x: graph.node('Reciprocal', graph.node('Sqrt', x))),
  'erfc': _made_of(lambda graph, number, x: graph.node('Sub', number(1), graph.node('Erf', x))),
  'expm1': _made_of(lambda graph, number, x: graph.node('Sub', graph.node('Exp', x), number(1))),
  'log1p': _made_of(lambda graph, number, x: graph.node('Log', graph.node('Add', x, number(1)))),
  'ne': _made_of(lambda graph, number, x, y: graph.node('Not', graph.node('Equal', x, y))),
  'clamp': _made_of(lambda graph, number, low, x, high: graph.node('Min', graph.node('Max', x, low), high)),
  'integer_pow': _integer_pow,
  'convert_element_type': _cast,
  'select_n': _select,
  'transpose': _transpose,
  'reshape': _reshape,
  'squeeze': _squeeze,
  'broadcast_in_dim': _broadcast,
  'reduce_sum': _reduce('ReduceSum'),
  'reduce_max': _reduce('ReduceMax'),
  'reduce_min': _reduce('ReduceMin'),
  'concatenate': _concatenate,
  'slice': _slice,
  'split': _split,
  'gather': _gather,
  'pad': _pad,
  'conv_general_dilated': layers.conv,
  'reduce_window_max': layers.window('MaxPool'),
  'reduce_window_sum': layers.window('AveragePool', count_include_pad=1),
  'dot_general': layers.dot,
  **{name: _same for name in ('copy', 'copy_p', 'name', 'optimization_barrier', 'pvary', 'stop_gradient')},
}  # fmt: skip
