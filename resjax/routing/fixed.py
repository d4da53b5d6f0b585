"""One resolution for all images: what routing is measured against."""

import dataclasses
from typing import ClassVar

import numpy as np

from resjax.routing.router import Images, Routed, Router


@dataclasses.dataclass(frozen=True)
class Fixed(Router):
  """Sends every image to one resolution; none is promoted.

  Attributes:
    costs: See `Router`.
    place: Of the resolution, 0 for the highest.
  """

  name: ClassVar[str] = 'static'
  help: ClassVar[str] = 'one resolution for all images'
  style: ClassVar[tuple[str, str]] = ('#2f7ed8', 'o')
  reads: ClassVar[str] = 'energy'  # any would do: how many images there are is all that counts

  costs: tuple[float, ...]
  place: int = 0

  def choose(self, column: np.ndarray) -> np.ndarray:
    """See `Router`."""
    return np.full(len(column), self.place)

  def run(self, images: Images) -> Routed:
    """See `Router`."""
    logits, places = images.run(np.full(len(images), self.place), promote=False)
    return Routed(logits, places, images.spent)
