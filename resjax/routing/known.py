"""The resolution that each image is known to need, for data that say so."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from resjax.routing.router import Router


@dataclasses.dataclass(frozen=True)
class Known(Router):
  """Sends each image to the resolution that it needs.

  Attributes:
    costs: See `Router`.
    resolutions: In pixels, highest first.
  """

  name: ClassVar[str] = 'known'
  help: ClassVar[str] = 'the resolution that each image is known to need'
  style: ClassVar[tuple[str, str]] = ('#c05a94', 'X')
  reads: ClassVar[str] = 'needed'

  costs: tuple[float, ...]
  resolutions: tuple[Any, ...]

  def knows(self, needed: np.ndarray) -> bool:
    """Returns whether all these pixels are among the resolutions."""
    return bool(np.isin(needed, self.resolutions).all())

  def choose(self, column: np.ndarray) -> np.ndarray:
    """See `Router`.

    Raises:
      ValueError: An image needs what is not among the resolutions.
    """
    if not self.knows(column):
      raise ValueError(f'needed: got {sorted(set(column.tolist()))} px, expected some of {self.resolutions}')
    places = {resolution: place for place, resolution in enumerate(self.resolutions)}
    return np.array([places[pixels] for pixels in column.tolist()], int)
