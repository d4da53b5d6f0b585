"""A share of a network's channels: the leading ones of every layer, as many as the same network has when built narrow.

Yu et al., "Slimmable Neural Networks", ICLR 2019. No model knows of it: what it is at a width are its attributes with a
smaller `width`, and the shapes of its parameters there say what is sliced from the wide ones.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict


def narrowed(model: Any, width: float) -> Any:
  """Returns the network with so much of its own width, with its own rounding of channels.

  Args:
    model: A Flax (linen) module with an attribute `width`, as ours have.
    width: Of its own, above 0, at most 1.

  Raises:
    ValueError: It has no such attribute.
  """
  if width == 1:
    return model
  if not isinstance(model, nn.Module) or not isinstance(getattr(model, 'width', None), int | float):
    kind = type(model).__name__
    raise ValueError(f'width: got {width!r}, expected 1.0: {kind} has no attribute `width` for its channels')
  return model.clone(width=model.width * width)


def shapes_of(model: Any, width: float, size: tuple[int, ...]) -> Any:
  """Returns the variables of the network at a width, as shapes.

  Args:
    model: As of `narrowed`.
    width: As there.
    size: Of its images, (height, width, channels).

  Raises:
    ValueError: As of `narrowed`.
  """
  narrow = narrowed(model, width)
  try:
    hash(narrow)
  except TypeError:  # a user's module with lists
    return _shapes.__wrapped__(narrow, tuple(size))
  return _shapes(narrow, tuple(size))


@functools.lru_cache(64)
def _shapes(model: nn.Module, size: tuple[int, ...]) -> Any:
  """The variables of a network as shapes."""
  images = jax.ShapeDtypeStruct((1, *size), jnp.float32)
  return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)


def leading(tree: Any, shapes: Any, where: str = 'variables') -> Any:
  """Returns the leading entries of every array, along every axis, as many as its counterpart has; of the same tree.

  Args:
    tree: Dicts of arrays.
    shapes: Dicts of what has a shape; it may hold more than the tree.
    where: What errors call the tree.

  Raises:
    ValueError: An array has no counterpart, or a smaller or otherwise shaped one: the network at this width is no part
      of the wide one.
  """
  wanted, found = flatten_dict(shapes), {}
  for path, leaf in flatten_dict(tree).items():
    shape = getattr(wanted.get(path), 'shape', None)
    if shape is None or len(shape) != len(leaf.shape) or any(a > b for a, b in zip(shape, leaf.shape)):
      raise ValueError(
        f'{where}: {"/".join(path)} {leaf.shape} is {shape or "not there"} in the narrow network, expected a part of it'
      )
    found[path] = leaf if shape == leaf.shape else leaf[tuple(map(slice, shape))]
  return unflatten_dict(found)


def part(variables: Any, model: Any, width: float, size: tuple[int, int]) -> Any:
  """Returns what is run at a width of a plain network's variables, or of some of them; at 1.0 they themselves.

  Args:
    variables: `params` and `batch_stats`.
    model: The plain network; not looked at where the width is 1.
    width: As of `narrowed`.
    size: Of its images, height and width in pixels.

  Raises:
    ValueError: As of `narrowed` and `leading`.
  """
  return variables if width == 1 else leading(variables, shapes_of(model, width, (*size, 3)))


def check(model: nn.Module, widths: tuple[float, ...], size: tuple[int, ...], field: str = 'widths') -> None:
  """Raises ValueError unless a network's parts at these widths are parts of it, and no two of them the same.

  Args:
    model: As of `narrowed`.
    widths: As there, highest first.
    size: As of `shapes_of`.
    field: What errors call them.
  """
  wide, before = shapes_of(model, 1.0, size), None
  for width in widths:
    shapes: Any = shapes_of(model, width, size)
    if flatten_dict(shapes).keys() != flatten_dict(wide).keys():
      raise ValueError(f'{field}: got {width!r}, expected a width at which the network has the same layers')
    jax.eval_shape(functools.partial(leading, shapes=shapes, where=f'{field}: got {width!r}, and'), wide)
    if before == shapes:
      raise ValueError(f'{field}: got {width!r}, expected one with fewer channels than the width before it')
    before = shapes
