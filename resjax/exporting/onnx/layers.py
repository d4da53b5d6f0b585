"""What ONNX calls JAX's convolutions, pooling windows and matrix products."""

import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from resjax.exporting.onnx.graph import Graph, Tensor, Value, refuse


def conv(graph: Graph, eqn: Any, x: Value, kernel: Value) -> Sequence[Value]:
  """A convolution of any groups, strides and dilations."""
  p = eqn.params
  numbers, padding = p['dimension_numbers'], p['padding']
  if p['batch_group_count'] != 1 or any(d != 1 for d in p['lhs_dilation']) or min(map(min, padding)) < 0:
    refuse('conv_general_dilated that is transposed, cuts, or groups its batch')
  images, weights = (graph.full(arg, _shape(var)) for arg, var in zip((x, kernel), eqn.invars))
  name = graph.node(
    'Conv',
    graph.laid(images, numbers.lhs_spec),
    graph.laid(weights, numbers.rhs_spec),
    group=p['feature_group_count'],
    strides=list(p['window_strides']),
    dilations=list(p['rhs_dilation']),
    pads=[pair[side] for side in (0, 1) for pair in padding],
  )
  axes = tuple(numbers.out_spec.index(i) for i in range(len(numbers.out_spec)))
  return [Tensor(name, axes, _shape(eqn.outvars[0]), np.dtype(eqn.outvars[0].aval.dtype))]


def window(op: str, **attributes: Any) -> Callable[..., Sequence[Value]]:
  """The maximum over windows, or their sum."""

  def operation(graph: Graph, eqn: Any, x: Tensor) -> Sequence[Value]:
    p = eqn.params
    size, padding = p['window_dimensions'], p['padding']
    whole = graph.tensor(graph.full(x, _shape(eqn.invars[0])))
    still = [i for i, n in enumerate(size) if (n, p['window_strides'][i], padding[i]) == (1, 1, (0, 0))]
    dilated = any(d != 1 for d in (*p['base_dilation'], *p['window_dilation']))
    if len(size) < 3 or len(still) < 2 or dilated or min(map(min, padding)) < 0:
      refuse(f'{eqn.primitive.name} over more than the positions of images')
    if any(max(pair) >= n for pair, n in zip(padding, size) if max(pair)):
      refuse(f'{eqn.primitive.name} padded by whole windows')
    moving = [i for i in range(len(size)) if i not in (still[0], still[-1])]
    order = [still[0], still[-1], *moving]  # of [B, H, W, C], and of any other, the outer axes
    name = graph.node(
      op,
      graph.laid(whole, order),
      kernel_shape=[size[i] for i in moving],
      strides=[p['window_strides'][i] for i in moving],
      pads=[padding[i][side] for side in (0, 1) for i in moving],
      **attributes,
    )
    if op == 'AveragePool':
      name = graph.node('Mul', name, graph.constant(np.array(np.prod(size), np.float32)))
    axes = tuple(order.index(i) for i in range(len(order)))
    return [Tensor(name, axes, _shape(eqn.outvars[0]), whole.dtype)]

  return operation


def dot(graph: Graph, eqn: Any, a: Value, b: Value) -> Sequence[Value]:
  """A matrix product: with a constant matrix MatMul, on the side where nothing moves; else Einsum."""
  (contract_a, contract_b), (batch_a, batch_b) = eqn.params['dimension_numbers']
  dtype = np.dtype(eqn.outvars[0].aval.dtype)
  if dtype != a.dtype or dtype != b.dtype:
    refuse(f'dot_general of {a.dtype} and {b.dtype} to {dtype}')
  a, b = (graph.full(arg, _shape(var)) for arg, var in zip((a, b), eqn.invars))
  shape = _shape(eqn.outvars[0])
  if len(contract_a) == 1 and not batch_a:
    if isinstance(b, np.ndarray) and b.ndim == 2 and isinstance(a, Tensor):
      return [_by_matrix(graph, a, contract_a[0], b if contract_b == (0,) else b.T, shape, last=True)]
    if isinstance(a, np.ndarray) and a.ndim == 2 and isinstance(b, Tensor):
      return [_by_matrix(graph, b, contract_b[0], a if contract_a == (0,) else a.T, shape, last=False)]
  letters = iter(string.ascii_letters)
  of_a = [next(letters) for _ in range(len(_shape(eqn.invars[0])))]
  of_b = [next(letters) for _ in range(len(_shape(eqn.invars[1])))]
  for i, j in zip((*contract_a, *batch_a), (*contract_b, *batch_b)):
    of_b[j] = of_a[i]
  free_a = [of_a[i] for i in range(len(of_a)) if i not in (*contract_a, *batch_a)]
  free_b = [of_b[j] for j in range(len(of_b)) if j not in (*contract_b, *batch_b)]
  out = [*(of_a[i] for i in batch_a), *free_a, *free_b]
  a, b = graph.tensor(a), graph.tensor(b)
  inputs = (''.join(of[t.axes.index(i)] for i in range(len(of))) for t, of in ((a, of_a), (b, of_b)))
  name = graph.node('Einsum', a.name, b.name, equation=f'{",".join(inputs)}->{"".join(out)}')
  return [Tensor(name, tuple(range(len(out))), shape, dtype)]


def _by_matrix(graph: Graph, x: Tensor, axis: int, matrix: np.ndarray, shape: tuple[Any, ...], last: bool) -> Tensor:
  """A tensor's axis through a constant matrix `[n, m]`; JAX has the new axis last, or first."""
  rank = len(x.axes)
  if x.axes[axis] not in (rank - 1, rank - 2):
    order = [0, 3, 1, 2] if rank == 4 and axis in (1, 2) else [*(i for i in range(rank) if i != axis), axis]
    axes = tuple(order.index(i) for i in range(rank))
    x = Tensor(graph.laid(x, order), axes, tuple(x.sizes), x.dtype)
  if x.axes[axis] == rank - 1:
    name = graph.node('MatMul', x.name, graph.constant(matrix))
  else:
    name = graph.node('MatMul', graph.constant(matrix.T), x.name)
  rest = tuple(place for i, place in enumerate(x.axes) if i != axis)
  axes = (*rest, x.axes[axis]) if last else (x.axes[axis], *rest)
  return Tensor(name, axes, shape, x.dtype)


def _shape(var: Any) -> tuple[Any, ...]:
  """The shape of a variable of JAX."""
  return tuple(var.aval.shape)
