"""Rows of a gallery: which images stand for a group of many, and what is said of them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from resjax.resolution import Resolution


def row(
  kind: str,
  place: int,
  pixels: Resolution,
  inside: np.ndarray,
  order: np.ndarray,
  most: int,
  describe: Callable[[int, int], dict[str, Any]],
) -> dict[str, Any]:
  """Returns `{'kind', 'pixels', 'count', 'images': [...]}`: the first images of a group, and how many it has.

  Args:
    kind: What the group is, for who draws it.
    place: Of the resolution that it is about, 0 for the highest.
    pixels: That resolution.
    inside: bool `[N]`, the group.
    order: `[N]`, the lowest come first.
    most: Images in the row.
    describe: Of an image's number among the N, and `place`; with `number` in the source, and `right`.
  """
  rows = np.flatnonzero(inside)
  rows = rows[np.argsort(order[rows], kind='stable')][:most]
  images = [describe(int(i), place) for i in rows]
  return {'kind': kind, 'pixels': pixels, 'count': int(inside.sum()), 'images': images}
