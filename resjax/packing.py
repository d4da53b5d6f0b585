"""Quantised weights as codes of a few bits each, packed into bytes, and their bases: what they need on a disk.

Packed are the places of the levels, 0 for the lowest, the highest bit first, four weights of 2 bits to a byte.
Unpacked they are the quantised weights again, bit for bit. All else is kept as it is: BatchNorm, bases, the first
convolution and the classifier.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from resjax import quantisation
from resjax.quantisation import BASES
from resjax.switchable import Variables


class Size(NamedTuple):
  """What variables need.

  Attributes:
    bits: Of the quantised weights; None where none is.
    weights: How many of them there are.
    plain: Bytes, as they are.
    packed: Bytes, packed.
  """

  bits: int | None
  weights: int
  plain: int
  packed: int


def size(variables: Variables) -> Size:
  """Returns what the variables of a switchable network need, its private sets all counted; shapes will do."""
  flat, found = flatten_dict(variables), _quantised(variables)
  plain = sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in flat.values())
  counts = {path: int(np.prod(flat[path].shape)) for path in found}
  packed = plain - sum(count * flat[path].dtype.itemsize for path, count in counts.items())
  packed += sum(-(-count * _bits(flat[found[path]]) // 8) for path, count in counts.items())
  bits = max((_bits(flat[basis]) for basis in found.values()), default=None)
  return Size(bits, sum(counts.values()), plain, packed)


def pack(variables: Variables) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
  """Returns arrays by their path, 'params/shared/conv2/kernel', quantised weights packed; and the shapes of the latter.

  Args:
    variables: Of a switchable network; its weights may be quantised already.
  """
  flat, found = flatten_dict(variables), _quantised(variables)
  arrays, shapes = {}, {}
  for path, leaf in flat.items():
    name = '/'.join(path)
    if path not in found:
      arrays[name] = np.array(leaf)
      continue
    basis = jnp.asarray(flat[found[path]])
    places = np.asarray(quantisation.places(jnp.asarray(leaf), basis, True))
    each = np.unpackbits(places.reshape(-1, 1), axis=1)[:, -_bits(basis) :]
    arrays[name], shapes[name] = np.packbits(each), list(leaf.shape)
  return arrays, shapes


def unpack(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, Sequence[int]]) -> Variables:
  """Returns the variables of `pack`, with quantised weights."""
  flat = {tuple(name.split('/')): array for name, array in arrays.items()}
  bases = _quantised(unflatten_dict(flat))
  for name, shape in shapes.items():
    path = tuple(name.split('/'))
    basis = jnp.asarray(flat[bases[path]])
    bits = np.unpackbits(flat[path], count=int(np.prod(shape)) * _bits(basis)).reshape(-1, _bits(basis))
    places = np.packbits(np.pad(bits, ((0, 0), (8 - _bits(basis), 0))), axis=1).reshape(shape)
    levels = np.asarray(quantisation.levels(basis, True)[0])  # [C, 2^K]; the last axis of a kernel is C
    flat[path] = levels[np.arange(shape[-1]), places]
  return jax.tree.map(jnp.asarray, unflatten_dict(flat))


def _quantised(variables: Variables) -> dict[tuple[str, ...], tuple[str, ...]]:
  """The paths of the weights that are quantised, and of their bases."""
  bases = flatten_dict(variables.get('batch_stats', {}).get(BASES, {}))
  return {
    ('params', 'shared', *path[:-1], 'kernel'): ('batch_stats', BASES, *path) for path in bases if path[-1] == 'weights'
  }


def _bits(basis: Any) -> int:
  """How many bits a basis has."""
  return basis.shape[-1]
