"""What the answers of several resolutions say of each other, and what their confidence is worth."""

from typing import Any

import numpy as np

BINS = 15  # of the expected calibration error, as in Guo et al., "On Calibration of Modern Neural Networks", ICML 2017


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> list[dict[str, Any]]:
  """Returns the images by their confidence, in bins of the same width: `{'low', 'high', 'images', ...}`.

  A bin (low, high] that holds images has their mean `confidence` and the share that is right, `accuracy`.

  Args:
    confidence: float `[N]`, the probability of the likeliest class.
    right: bool `[N]`.
    bins: Between 0 and 1.
  """
  place = np.clip(np.ceil(np.asarray(confidence, float) * bins).astype(int) - 1, 0, bins - 1)
  found = []
  for number in range(bins):
    inside = place == number
    entry = {'low': number / bins, 'high': (number + 1) / bins, 'images': int(inside.sum())}
    if inside.any():
      entry |= {'confidence': float(confidence[inside].mean()), 'accuracy': float(right[inside].mean())}
    found.append(entry)
  return found


def calibration_error(found: list[dict[str, Any]]) -> float:
  """Returns the expected calibration error: the mean over images of their bin's |accuracy - confidence|."""
  filled = [entry for entry in found if entry['images']]
  gaps = sum(entry['images'] * abs(entry['accuracy'] - entry['confidence']) for entry in filled)
  return gaps / sum(entry['images'] for entry in filled)


def agreement(guess: np.ndarray) -> list[list[float]]:
  """Returns how often two resolutions give the same class, `[R][R]`.

  Args:
    guess: int `[N, R]`.
  """
  return (guess[:, :, None] == guess[:, None, :]).mean(0).tolist()


def mended(right: np.ndarray) -> list[list[float | None]]:
  """Returns, of the images that the column's resolution gets wrong, the share that the row's gets right, `[R][R]`.

  None where the column's gets none wrong.

  Args:
    right: bool `[N, R]`.
  """
  both = (right[:, :, None] & ~right[:, None, :]).sum(0)
  wrong = (~right).sum(0)
  return [[float(n / total) if total else None for n, total in zip(row, wrong)] for row in both]
