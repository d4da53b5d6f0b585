"""Shapes and types of arrays where they come in: what is wrong is said in one line; no number is looked at."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def check(field: str, array: Any, shape: Sequence[int | str], kind: str = '', what: str = '') -> None:
  """Raises ValueError unless an array has a shape, and a type of some kind.

  Args:
    field: What the message calls it.
    array: Of NumPy or JAX, a tracer or a `jax.ShapeDtypeStruct`.
    shape: A size for each axis, or a name where any will do; '...' in front stands for any number of axes.
    kind: 'floating', 'integer', 'bool' or a type such as 'uint8'; '': any.
    what: What the message adds to the shape that was expected.
  """
  got = getattr(array, 'shape', None)
  expected = f'{kind} [{", ".join(map(str, shape))}]'.lstrip() + (f', {what}' if what else '')
  if not isinstance(got, tuple):
    raise ValueError(f'{field}: got {type(array).__name__}, expected an array, {expected}')
  more = shape[:1] == ('...',) or shape[:1] == ['...']
  sizes = shape[1:] if more else shape
  ok = len(got) >= len(sizes) if more else len(got) == len(sizes)
  ends = got[len(got) - len(sizes) :]
  ok = ok and all(isinstance(size, str) or size == found for size, found in zip(sizes, ends))
  if not ok or not _is_kind(array.dtype, kind):
    raise ValueError(f'{field}: got {array.dtype} {got}, expected {expected}')


def _is_kind(dtype: Any, kind: str) -> bool:
  """Whether a type is of a kind, see `check`."""
  if kind == 'floating':
    return 'float' in dtype.name  # bfloat16 is none of NumPy's own
  if kind == 'integer':
    return np.issubdtype(dtype, np.integer)
  return not kind or dtype == np.dtype(kind)
