"""Weights that are numbers: arrays with NaN or infinities are named where a network is taken, not predicted with."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resjax.switchable import path_text

__all__ = ['check']


def check(arrays: Any, where: str) -> None:
  """Refuses a tree of arrays in which one holds what is no finite number.

  Args:
    arrays: Such as a network's variables; integers and keys are passed over.
    where: What the message calls them.

  Raises:
    ValueError: One does; the first is named.
  """
  for path, leaf in jax.tree.leaves_with_path(arrays):
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
      continue
    finite = np.isfinite(array := np.asarray(leaf))
    if not finite.all():
      wrong = array[~finite]
      raise ValueError(
        f'{where}: {path_text(path)} holds {wrong.size:,} of {array.size:,} values that are not finite, such as '
        f'{wrong[0]}, expected numbers'
      )
