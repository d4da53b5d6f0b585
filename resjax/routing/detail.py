"""The image's own detail as a router: the more there is, the more pixels it gets."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np

from resjax import shapes
from resjax.routing.random import by_rank
from resjax.routing.router import Columns, Dialled


def ranks_within(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
  """Returns the rank of each value among others: float `[N]`, above 0, below 1; equal ones share one.

  Args:
    values: `[N]`.
    ordered: `[M]`, ascending.
  """
  both = np.searchsorted(ordered, values, side='left') + np.searchsorted(ordered, values, side='right')
  return np.clip(both / (2 * len(ordered)), 1e-12, 1 - 1e-12)


def energy(crops: np.ndarray) -> np.ndarray:
  """Returns the mean absolute difference between neighbouring pixels of the green channel: float `[N]`, grey levels.

  Args:
    crops: uint8 `[N, H, W, 3]`.

  Raises:
    ValueError: They are something else.
  """
  shapes.check('crops', crops, ('N', 'H', 'W', 3), 'uint8')
  green = crops[..., 1].astype(np.int16)
  across, down = np.abs(np.diff(green, axis=2)), np.abs(np.diff(green, axis=1))
  return (across.mean((1, 2)) + down.mean((1, 2))) / 2


@dataclasses.dataclass(frozen=True, eq=False)
class Detail(Dialled):
  """Ranks an image's energy among the calibration's; the lowest ranks go to the lowest resolution.

  Attributes:
    costs: See `Router`.
    reference: Energies of the calibration images, float `[M]`, ascending.
    knob: See `Router`.
  """

  name: ClassVar[str] = 'detail'
  help: ClassVar[str] = 'how much neighbouring pixels of the image differ'
  style: ClassVar[tuple[str, str]] = ('#9467bd', 'v')
  reads: ClassVar[str] = 'energy'
  look: ClassVar[Callable[[np.ndarray], np.ndarray] | None] = staticmethod(energy)

  costs: tuple[float, ...]
  reference: np.ndarray
  knob: float = 0.0

  @classmethod
  def of(cls, costs: tuple[float, ...], predictor: float, calibration: Columns | None) -> Self:
    """See `Dialled`.

    Raises:
      FileNotFoundError: There is no calibration.
    """
    del predictor
    if calibration is None:
      raise FileNotFoundError("calibration: none, expected one for router 'detail' (it ranks images among others)")
    return cls(costs, np.sort(calibration['energy']))

  def read(self, seen: Any) -> np.ndarray:
    """The ranks `[N]` of the images' energies."""
    return ranks_within(seen['energy'], self.reference)

  def choose(self, column: np.ndarray) -> np.ndarray:
    """See `Router`."""
    return by_rank(self.costs, self.knob, column)
