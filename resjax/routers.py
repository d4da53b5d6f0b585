"""Which resolution for which image, and what that costs: DRNet's predictor and all it must beat.

A choice is int `[N]`: for each image a place among the resolutions, 0 for the highest. Everything here is numpy on what
an evaluation has found; nothing is run again.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np


def predictor(scores: np.ndarray) -> np.ndarray:
  """Returns the resolution with the highest score.

  Args:
    scores: `[N, R]`, highest resolution first.
  """
  return scores.argmax(1)


def mix(costs: Sequence[float], steepness: float) -> np.ndarray:
  """Returns shares `[R]` that sum to 1, each less by the factor exp(-steepness) per unit of cost.

  Of all mixes with the same mean cost it is the one that supposes least (maximum entropy).
  """
  exponent = -steepness * np.asarray(costs, float)
  weights = np.exp(exponent - exponent.max())
  return weights / weights.sum()


def shuffled(choice: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Returns a random choice in exactly the same mix."""
  return rng.permutation(choice)


def oracle(right: np.ndarray) -> np.ndarray:
  """Returns the smallest resolution at which an image is right; where none is, the smallest of all, which is cheapest.

  Args:
    right: bool `[N, R]`, highest resolution first.
  """
  return right.shape[1] - 1 - right[:, ::-1].argmax(1)


def known(needed: np.ndarray, resolutions: Sequence[int]) -> np.ndarray | None:
  """Returns the resolution that each image is known to need, or None where one of them is not among the resolutions.

  Args:
    needed: int `[N]`, pixels.
    resolutions: Highest first.
  """
  places = {r: place for place, r in enumerate(resolutions)}
  if not set(np.unique(needed).tolist()) <= set(places):
    return None
  return np.array([places[r] for r in needed.tolist()])


def cascade(confidence: np.ndarray, threshold: float) -> np.ndarray:
  """Returns the first resolution, from the lowest up, whose confidence reaches the threshold; else the highest.

  Args:
    confidence: `[N, R]`, the highest class probability at each resolution, highest resolution first.
    threshold: 0 stops at the lowest; above 1 goes on to the highest.
  """
  sure = confidence[:, ::-1] >= threshold
  return np.where(sure.any(1), confidence.shape[1] - 1 - sure.argmax(1), 0)


def cascade_costs(costs: Sequence[float]) -> np.ndarray:
  """Returns what a cascade has run `[R]` when it stops at each resolution: this one and all below it."""
  return np.cumsum(np.asarray(costs, float)[::-1])[::-1]


def threshold_for(confidence: np.ndarray, costs: Sequence[float], target: float) -> float:
  """Returns the highest threshold whose cascade costs at most `target` on the mean, 0 where none does.

  Args:
    confidence: Of calibration images, `[N, R]`.
    costs: `[R]`, of one image at each resolution.
    target: In the unit of `costs`.
  """
  spent = cascade_costs(costs)
  candidates = np.unique(np.concatenate([[0.0], confidence[:, 1:].ravel(), [np.inf]]))
  low, high = 0, len(candidates) - 1
  while low < high:
    middle = (low + high + 1) // 2
    if spent[cascade(confidence, candidates[middle])].mean() <= target:
      low = middle
    else:
      high = middle - 1
  return float(candidates[low])


def calibrated_cascade(
  confidence: np.ndarray, costs: Sequence[float], target: float, calibration: np.ndarray | None
) -> np.ndarray:
  """Returns the choice of the cascade that spends at most `target` on images other than those it is applied to.

  Args:
    confidence: `[N, R]`.
    costs: `[R]`, of one image at each resolution.
    target: Mean cost of an image, in the unit of `costs`.
    calibration: Confidences `[M, R]` of other images; None: each half of the images sets the other's threshold.
  """
  if calibration is not None:
    return cascade(confidence, threshold_for(calibration, costs, target))
  choice = np.zeros(len(confidence), int)
  for half in (0, 1):
    choice[half::2] = cascade(confidence[half::2], threshold_for(confidence[1 - half :: 2], costs, target))
  return choice


def score(
  choice: np.ndarray, ranks: np.ndarray, costs: Sequence[float], resolutions: Sequence[int], own: float = 0.0
) -> dict[str, Any]:
  """Returns what a choice comes to: `{'macs', 'top1', 'top5', 'share': {'224': ...}}`.

  Args:
    choice: int `[N]`.
    ranks: int `[N, R]`, the place of the true class at each resolution, 0 for right.
    costs: `[R]`, multiply-adds of an image that is sent to each resolution.
    resolutions: Highest first.
    own: Multiply-adds of the router itself for one image.
  """
  rank = np.take_along_axis(ranks, choice[:, None], axis=1)[:, 0]
  return {
    'macs': float(np.asarray(costs, float)[choice].mean() + own),
    'top1': float((rank < 1).mean()),
    'top5': float((rank < 5).mean()),
    'share': {str(r): float((choice == place).mean()) for place, r in enumerate(resolutions)},
  }
