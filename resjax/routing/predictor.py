"""DRNet's predictor as a router: the resolution with the highest score, dear ones at a handicap."""

import dataclasses
from typing import ClassVar, Self

import numpy as np

from resjax import shapes
from resjax.routing.router import Columns, Dialled


@dataclasses.dataclass(frozen=True)
class Predictor(Dialled):
  """Scores less `knob` times the relative cost; the highest wins. At knob 0 it chooses as it was trained to.

  Attributes:
    costs: See `Router`.
    own: What the predictor itself costs for an image, in the same unit.
    knob: See `Router`.
  """

  name: ClassVar[str] = 'predictor'
  help: ClassVar[str] = "the network's trained predictor, from a small copy of the image"
  style: ClassVar[tuple[str, str]] = ('#2e9e7a', 's')
  reads: ClassVar[str] = 'scores'

  costs: tuple[float, ...]
  own: float = 0.0
  knob: float = 0.0

  @classmethod
  def of(cls, costs: tuple[float, ...], predictor: float, calibration: Columns | None) -> Self:
    """See `Dialled`."""
    del calibration
    return cls(costs, predictor)

  @property
  def charged(self) -> np.ndarray:
    """See `Router`."""
    return np.asarray(self.costs, float) + self.own

  def choose(self, column: np.ndarray) -> np.ndarray:
    """See `Router`; of equal scores the higher resolution's wins."""
    shapes.check('scores', column, ('N', len(self.costs)), what='one for each resolution')
    relative = np.asarray(self.costs, float) / max(self.costs)
    return (np.asarray(column, float) - self.knob * relative).argmax(1)
