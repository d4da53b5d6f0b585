"""What a choice comes to on images whose answers are known."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def score(
  places: np.ndarray, right: Mapping[str, np.ndarray], charged: Sequence[float] | np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
  """Returns `{'macs', 'top1', 'top5', 'share': {'224': ...}}`, what is counted as right being given.

  Args:
    places: int `[N]`, of the resolution for each image, 0 for the highest.
    right: bool `[N, R]` for each way of counting, such as 'top1' and 'top5'.
    charged: `[R]`, the cost of an image that ends at each resolution, the router's own included.
    names: Of the resolutions, highest first.
  """
  picked = {name: np.take_along_axis(column, places[:, None], axis=1).mean() for name, column in right.items()}
  return {
    'macs': float(np.asarray(charged, float)[places].mean()),
    **{name: float(value) for name, value in picked.items()},
    'share': share(places, names),
  }


def share(places: np.ndarray, names: Sequence[str]) -> dict[str, float]:
  """Returns the share of the images at each resolution, by its name; arguments as of `score`."""
  return {name: float((places == place).mean()) for place, name in enumerate(names)}


def right_of(ranks: np.ndarray) -> dict[str, np.ndarray]:
  """Returns what counts as right, bool `[N, R]`: 'top1' and 'top5'.

  Args:
    ranks: int `[N, R]`, the place of the true class at each resolution, 0 for right.
  """
  return {'top1': ranks < 1, 'top5': ranks < 5}
