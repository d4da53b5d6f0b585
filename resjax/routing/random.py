"""Chance as a router: every resolution gets a share, whatever the image."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from resjax import shapes
from resjax.routing.router import Dialled


@dataclasses.dataclass(frozen=True)
class Random(Dialled):
  """Shares that fall by the factor exp(-knob) per unit of relative cost; a uniform draw decides for each image.

  Attributes:
    costs: See `Router`.
    knob: See `Router`.
  """

  name: ClassVar[str] = 'random'
  help: ClassVar[str] = 'chance, whatever the image: what every other router must beat'
  style: ClassVar[tuple[str, str]] = ('#8a929b', 'P')
  line: ClassVar[str] = ':'
  reads: ClassVar[str] = 'draw'

  costs: tuple[float, ...]
  knob: float = 0.0

  def read(self, seen: Any) -> np.ndarray:
    """The draws in `seen`; of a table without any, `even_draws`."""
    return seen['draw'] if 'draw' in seen else even_draws(len(seen['energy']))

  def choose(self, column: np.ndarray) -> np.ndarray:
    """See `Router`."""
    return by_rank(self.costs, self.knob, column)


def by_rank(costs: Sequence[float], knob: float, ranks: np.ndarray) -> np.ndarray:
  """Returns places int `[N]`: the lowest ranks go to the lowest resolution, in the shares that `mix` gives.

  Args:
    costs: `[R]`, highest resolution first.
    knob: Higher makes the lower resolutions' shares larger.
    ranks: float `[N]`, 0..1.

  Raises:
    ValueError: They are of another shape.
  """
  shapes.check('ranks', ranks, ('N',), 'floating')
  relative = np.asarray(costs, float) / max(costs)
  upper = np.cumsum(mix(relative, knob)[::-1])[:-1]  # from the lowest resolution up
  return len(relative) - 1 - np.searchsorted(upper, np.asarray(ranks, float), side='right')


def mix(costs: Sequence[float] | np.ndarray, steepness: float) -> np.ndarray:
  """Returns shares `[R]` that sum to 1, each less by the factor exp(-steepness) per unit of cost.

  Of all mixes with the same mean cost it is the one that supposes least (maximum entropy).
  """
  exponent = -steepness * np.asarray(costs, float)
  weights = np.exp(exponent - exponent.max())
  return weights / weights.sum()


def even_draws(count: int) -> np.ndarray:
  """Returns numbers evenly over 0..1 `[count]`, in a fixed random order: draws whose mix is as exact as can be."""
  return np.random.default_rng(0).permutation((np.arange(count) + 0.5) / count)


def shuffled(choice: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Returns a random choice in exactly the same mix."""
  return rng.permutation(choice)
