"""Multiply-adds of any JAX function, counted from its jaxpr: nothing is run, nothing allocated.

Counted are convolutions and matrix products, as the literature does: a convolution has one
multiply-add for every output value and kernel entry that feeds it, padding included. Sums, norms
and activations are not counted.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resjax import widths
from resjax.apply import Apply, run
from resjax.resolution import Resolution, sides, width_of

# How often their bodies run, or on how much of the data, is not to be seen from the jaxpr alone.
_UNKNOWN = ('while', 'shard_map', 'pallas_call')


def count(fn: Callable, *args) -> int:
  """Returns the multiply-adds of `fn(*args)`.

  A `scan` counts all its steps, a `cond` its dearest branch.

  Args:
    fn: a function of arrays that JAX can trace.
    *args: pytrees of arrays or jax.ShapeDtypeStruct.

  Raises:
    ValueError: convolutions or matrix products in a loop of unknown length, a shard_map or a
      Pallas kernel.
  """
  return _of_jaxpr(jax.make_jaxpr(fn)(*args))


def by_scope(fn: Callable, *args) -> dict[str, int]:
  """Returns the multiply-adds of `fn(*args)` by named scope, such as 'ResNet/stage1_block1/conv1'.

  They add up to `count`. Flax names a scope for each module; what stands in none is under ''.

  Args:
    fn: a function of arrays that JAX can trace.
    *args: pytrees of arrays or jax.ShapeDtypeStruct.

  Raises:
    ValueError: as of `count`.
  """
  found: dict[str, int] = {}
  for scope, number in _scopes(jax.make_jaxpr(fn)(*args)):
    found[scope] = found.get(scope, 0) + number
  return found


def of_model(model: nn.Module, resolution: Resolution) -> int:
  """Returns the multiply-adds of `model.apply(..., train=False)` for one image.

  Args:
    model: a Flax network of images [B, H, W, 3].
    resolution: of a square, or (height, width), px, or these at a width.

  Raises:
    ValueError: resolution is not a positive integer, nor two of them; or the network has no width.
  """
  width, size = width_of(resolution), (*sides(resolution), 3)
  variables = widths.shapes_of(model, width, size)
  return traced(widths.narrowed(model, width), variables, jax.ShapeDtypeStruct((1, *size), jnp.float32)).macs


@dataclasses.dataclass(frozen=True)
class Traced:
  """What is known of a network's forward pass before it runs: its logits, as a shape, and its multiply-adds."""

  logits: jax.ShapeDtypeStruct
  _jaxpr: Any

  @property
  def macs(self) -> int:
    """Multiply-adds; ValueError as of `count`."""
    return _of_jaxpr(self._jaxpr)


def traced(model: nn.Module | Apply, variables: Any, images: jax.ShapeDtypeStruct, width: float = 1.0) -> Traced:
  """Returns what is known of `apply.run` of a network, without training.

  Tracing a deep network takes longer than all else when one is opened. So of one that is a Flax module what was found
  is kept: it depends on the module's attributes and on shapes alone. A function may read what else it likes.

  Args:
    model: As of `apply.run`.
    variables: A plain network's, arrays or shapes.
    images: Their shape.
    width: As of `apply.run`.
  """
  if not isinstance(model, nn.Module):
    return _traced(model, variables, images, width)
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), variables)
  try:
    hash(model)
  except TypeError:  # a user's module with lists
    return _traced(model, shapes, images, width)
  leaves, structure = jax.tree.flatten(shapes)
  return _remembered(model, structure, tuple(leaves), images, width)


@functools.lru_cache(64)
def _remembered(
  model: nn.Module, structure: Any, leaves: tuple[Any, ...], images: jax.ShapeDtypeStruct, width: float
) -> Traced:
  """What `traced` returns, of a tree that is taken apart."""
  return _traced(model, jax.tree.unflatten(structure, leaves), images, width)


def _traced(model: nn.Module | Apply, variables: Any, images: jax.ShapeDtypeStruct, width: float) -> Traced:
  """What `traced` returns, found anew."""

  def forward(variables: Any, images: jax.Array) -> jax.Array:
    return run(model, variables, images, train=False, width=width)[0]

  jaxpr, logits = jax.make_jaxpr(forward, return_shape=True)(variables, images)
  return Traced(logits, jaxpr)


def _of_jaxpr(jaxpr):
  """The sum over the equations of a jaxpr."""
  return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _scopes(jaxpr):
  """The scope and the multiply-adds of each equation that has any; of one without a scope, those of what it jits."""
  for equation in jaxpr.eqns:
    scope, inner = str(equation.source_info.name_stack), list(_jaxprs(equation.params))
    if not scope and equation.primitive.name in ('jit', 'pjit') and len(inner) == 1:
      yield from _scopes(inner[0])
    elif number := _of_equation(equation):
      yield scope, number


def _of_equation(equation):
  """The multiply-adds of one equation, those of the jaxprs it holds included."""
  name, params = equation.primitive.name, equation.params
  if name in ('conv_general_dilated', 'dot_general'):
    left, right = (variable.aval.shape for variable in equation.invars)
    outputs = math.prod(equation.outvars[0].aval.shape)
    if name == 'dot_general':
      contracted = params['dimension_numbers'][0][0]
      return outputs * math.prod(left[axis] for axis in contracted)
    output_channels = right[params['dimension_numbers'].rhs_spec[0]]
    return outputs * math.prod(right) // output_channels
  inner = [_of_jaxpr(jaxpr) for jaxpr in _jaxprs(params)]
  if name in _UNKNOWN and any(inner):
    raise ValueError(f'cannot count the multiply-adds inside a {name}')
  if name == 'cond':
    return max(inner)
  return sum(inner) * (params['length'] if name == 'scan' else 1)


def _jaxprs(params):
  """The jaxprs among an equation's parameters, single or in tuples."""
  for value in params.values():
    for item in value if isinstance(value, tuple | list) else (value,):
      if hasattr(item, 'eqns'):
        yield item
