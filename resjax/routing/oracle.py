"""The bound of all routers: the smallest resolution at which the network is right, for those who know that."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from resjax import shapes
from resjax.routing.router import Router


@dataclasses.dataclass(frozen=True)
class Oracle(Router):
  """Right as often as any choice can be: at no more cost than that needs, or within a budget.

  Attributes:
    costs: See `Router`.
    budget: Mean cost of an image, at least the lowest resolution's; None: each image at the smallest that is right.
  """

  name: ClassVar[str] = 'oracle'
  help: ClassVar[str] = 'the answers themselves: the bound of all routers'
  style: ClassVar[tuple[str, str]] = ('#d64a41', '*')
  line: ClassVar[str] = '--'
  reads: ClassVar[str] = 'right'

  costs: tuple[float, ...]
  budget: float | None = None

  def choose(self, column: np.ndarray) -> np.ndarray:
    """See `Router`; where no resolution is right, the lowest.

    Within a budget every image begins at the lowest; those that a higher one gets right are sent to the cheapest such,
    the cheapest first, until the budget is spent.
    """
    shapes.check('right', column, ('N', len(self.costs)), 'bool', 'one for each resolution')
    costs, lowest = np.asarray(self.costs, float), len(self.costs) - 1
    wanted = smallest_right(column, lowest)
    if self.budget is None:
      return wanted
    extra = costs[wanted] - costs[lowest]
    order = np.argsort(extra, kind='stable')
    affordable = np.cumsum(extra[order]) <= (self.budget - costs[lowest]) * len(column) * (1 + 1e-12)
    places = np.full(len(column), lowest)
    places[order[affordable]] = wanted[order[affordable]]
    return places


def smallest_right(right: Any, otherwise: int) -> Any:
  """Returns the place of the smallest resolution at which an image is right, int `[N]`.

  Of several that are right the smallest is taken, also where a larger one between them is wrong.

  Args:
    right: bool `[N, R]`, highest resolution first, an array of NumPy or JAX.
    otherwise: The place where none is right.
  """
  xp = right.__array_namespace__()
  return xp.where(right.any(-1), right.shape[-1] - 1 - right[..., ::-1].argmax(-1), otherwise)
