"""A function of JAX as nodes of ONNX: traced for any number of images, constants folded, equation by equation."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from resjax.exporting.onnx.graph import Graph, Tensor, Value, refuse
from resjax.exporting.onnx.ops import OPERATIONS

# Operations that are functions of JAX, and what holds those: what is inside counts.
_INSIDE = {
  'jit': 'jaxpr',
  'pjit': 'jaxpr',
  'closed_call': 'call_jaxpr',
  'core_call': 'call_jaxpr',
  'custom_jvp_call': 'call_jaxpr',
  'custom_vjp_call': 'call_jaxpr',
  'custom_vjp_call_jaxpr': 'fun_jaxpr',
  'checkpoint': 'jaxpr',
  'remat2': 'jaxpr',
}

# The kinds of numbers that ONNX has an operation for, where it is not for all that is known here.
_KINDS = {
  **dict.fromkeys(('and', 'or', 'not'), 'b'),
  **dict.fromkeys(('conv_general_dilated', 'reduce_window_max', 'reduce_window_sum'), 'f'),
  **dict.fromkeys(('reduce_max', 'reduce_min', 'lt', 'gt', 'le', 'ge'), 'fiu'),
}

# Operations that take constants as they are kept.
_OF_CONSTANTS = ('broadcast_in_dim',)


def trace(graph: Graph, function: Callable[..., Any], variables: Any, batch: Tensor) -> Tensor:
  """Returns what a function gives of a batch, its nodes in the graph, its axes in JAX's order.

  Where a function does otherwise on some platforms (`jax.lax.platform_dependent`), its default is taken.

  Args:
    graph: Gets the nodes.
    function: `function(variables, batch)`, which returns one array.
    variables: Any tree of arrays; they become constants.
    batch: A tensor of the graph; the first axis is the batch.

  Raises:
    ValueError: The function has an operation that `ops.OPERATIONS` does not know, which is named, or depends on
      the batch's size.
  """
  images = jax.ShapeDtypeStruct(batch.sizes, batch.dtype)
  shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), variables)
  try:
    closed = jax.jit(function).trace(shapes, images).jaxpr
  except Exception as error:  # whatever its author's code does with a size that is no number
    refuse(f'what depends on the number of images ({str(error).splitlines()[0]})')
  leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(variables)]
  try:
    with jax.default_device(jax.local_devices(backend='cpu')[0]):
      (result,) = _run(graph, closed, [*leaves, batch])
  except jax.errors.InconclusiveDimensionOperation as error:
    refuse(f'what depends on the number of images ({str(error).splitlines()[0]})')
  shape = tuple(closed.jaxpr.outvars[0].aval.shape)
  whole = graph.tensor(graph.full(result, shape))
  return Tensor(graph.laid(whole, range(len(shape))), tuple(range(len(shape))), shape, whole.dtype)


def _run(graph: Graph, closed: Any, args: Sequence[Value]) -> list[Value]:
  """The results of a function of JAX, its equations done one after the other."""
  jaxpr, consts = (closed.jaxpr, closed.consts) if isinstance(closed, ClosedJaxpr) else (closed, ())
  known: dict[Any, Value] = dict(zip(jaxpr.constvars, map(np.asarray, consts)))
  known |= zip(jaxpr.invars, args)

  def read(atom: Any) -> Value:
    return np.asarray(atom.val, _dtype(atom)) if isinstance(atom, Literal) else known[atom]

  for eqn in jaxpr.eqns:
    known.update(zip(eqn.outvars, _results(graph, eqn, [read(atom) for atom in eqn.invars])))
  return [read(atom) for atom in jaxpr.outvars]


def _results(graph: Graph, eqn: Any, args: list[Value]) -> Sequence[Value]:
  """The results of one equation."""
  name, params = eqn.primitive.name, eqn.params
  if name in _INSIDE:
    return _run(graph, params[_INSIDE[name]], args)
  if name == 'platform_index':
    return [np.array(_default(params['platforms']), np.int32)]
  if name == 'cond' and isinstance(args[0], np.ndarray):
    return _run(graph, params['branches'][int(args[0])], args[1:])
  if name == 'dim_as_value':
    refuse('what depends on the number of images')
  if any(jax.dtypes.issubdtype(atom.aval.dtype, jax.dtypes.prng_key) for atom in eqn.outvars):
    refuse(f'random numbers ({name})')
  known = all(isinstance(size, int) for atom in eqn.outvars for size in atom.aval.shape)
  constant = all(isinstance(arg, np.ndarray) for arg in args) and (known or name in _OF_CONSTANTS)
  if constant and name not in _OF_CONSTANTS:
    whole = [graph.full(arg, tuple(atom.aval.shape)) for arg, atom in zip(args, eqn.invars)]
    if all(isinstance(arg, np.ndarray) for arg in whole):
      found = eqn.primitive.bind(*whole, **params)
      return [np.asarray(one) for one in (found if eqn.primitive.multiple_results else [found])]
    args = whole
  if name not in OPERATIONS:
    refuse(f'the operation {name}')
  kinds = _KINDS.get(name, 'fiub')
  types = [_dtype(eqn.invars[0])] if name in _KINDS else [_dtype(atom) for atom in (*eqn.invars, *eqn.outvars)]
  if unknown := [str(dtype) for dtype in types if dtype.kind not in kinds or dtype == np.float16]:
    refuse(f'numbers of type {unknown[0]} in {name}')
  return OPERATIONS[name](graph, eqn, *args)


def _default(platforms: Sequence[Any]) -> int:
  """The place of what is done on platforms that are not named."""
  if None not in platforms:
    refuse(f'a part that is for {platforms} alone')
  return list(platforms).index(None)


def _dtype(atom: Any) -> np.dtype:
  """The type of a variable's or number's entries."""
  return np.dtype(atom.aval.dtype)
