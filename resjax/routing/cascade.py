"""The confidence cascade: from the lowest resolution up, until the network is sure enough."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from resjax import shapes
from resjax.routing.router import Dialled, Images, Routed


@dataclasses.dataclass(frozen=True)
class Cascade(Dialled):
  """Stops at the first resolution, from the lowest up, whose log-odds reach `-knob`; it pays for all that it ran.

  Log-odds, not probabilities: those round to 1 and tie where a network is sure, and no threshold tells ties apart.

  Attributes:
    costs: See `Router`.
    knob: See `Router`.
  """

  name: ClassVar[str] = 'cascade'
  help: ClassVar[str] = "the network's own confidence, from the lowest resolution up"
  style: ClassVar[tuple[str, str]] = ('#e08e1b', '^')
  reads: ClassVar[str] = 'odds'

  costs: tuple[float, ...]
  knob: float = 0.0

  @property
  def charged(self) -> np.ndarray:
    """See `Router`: this resolution and all below it were run."""
    return np.cumsum(np.asarray(self.costs, float)[::-1])[::-1]

  def choose(self, column: np.ndarray) -> np.ndarray:
    """See `Router`; where no resolution is sure, the highest."""
    shapes.check('odds', column, ('N', len(self.costs)), what='one for each resolution')
    sure = column[:, ::-1] >= -self.knob
    return np.where(sure.any(1), column.shape[1] - 1 - sure.argmax(1), 0)

  def run(self, images: Images) -> Routed:
    """Runs one resolution after the other, each for the images that are still unsure; none is promoted."""
    rows = np.arange(len(images))
    lowest = len(self.costs) - 1
    places, logits = np.full(len(images), lowest), None
    for place in range(lowest, -1, -1):
      found, _ = images.run(np.full(len(rows), place), rows, promote=False)
      logits = np.zeros((len(images), found.shape[-1]), np.float32) if logits is None else logits
      logits[rows], places[rows] = found, place
      rows = rows[log_odds(found.astype(float)) < -self.knob]
    assert logits is not None
    return Routed(logits, places, images.spent)


def log_odds(logits: Any) -> Any:
  """Returns `log(p / (1 - p))` of the likeliest class `[...]`: a confidence that does not saturate.

  Args:
    logits: `[..., K]`, floating, an array of NumPy or JAX.
  """
  xp = logits.__array_namespace__()
  ordered = xp.sort(logits, axis=-1)
  top, others = ordered[..., -1], ordered[..., :-1]
  highest = others[..., -1:]
  return top - highest[..., 0] - xp.log(xp.exp(others - highest).sum(-1))
