"""What a router is: it reads a column of what is known of images, and says where each is run."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np

# What is known of N images, by column. Found by running them: 'odds' [N, R], log-odds of the likeliest class at each
# resolution; 'guess' int [N, R], that class; 'scores' [N, R], the predictor's. Seen in their pixels: 'energy' [N], see
# `detail.energy`, and what other routers `look` for. Drawn: 'draw' [N], uniform. Known of test images alone: 'right'
# bool [N, R]; 'needed' int [N], pixels.
Columns = Mapping[str, np.ndarray]


class Routed(NamedTuple):
  """What came of N images."""

  logits: np.ndarray  # float32 [N, K]
  places: np.ndarray  # int [N]: of the resolution whose logits these are, 0 for the highest
  macs: np.ndarray  # float [N]: multiply-adds of all that was run for the image


class Images(Protocol):
  """N images at hand: their columns, found when they are asked for, and a network that runs them."""

  spent: np.ndarray  # float [N]: multiply-adds of all that was run for each image so far

  def __len__(self) -> int:
    """How many there are."""

  def __getitem__(self, column: str) -> np.ndarray:
    """A column of `Columns` that can be found without running the network."""

  def __contains__(self, column: object) -> bool:
    """Whether it can be found."""

  def run(
    self, choice: np.ndarray, rows: np.ndarray | None = None, *, promote: bool = True
  ) -> tuple[np.ndarray, np.ndarray]:
    """Runs images, and adds what that costs to `spent`.

    Args:
      choice: int `[n]`, places among the resolutions, 0 for the highest.
      rows: int `[n]`, which images; None: all.
      promote: Images may run at a higher resolution than the chosen one, where the engine finds that faster.

    Returns:
      Logits float32 `[n, K]`, and int `[n]`, the places at which they ran.
    """


class Router(Protocol):
  """One rule that sends each image to a resolution; a router says what it reads and how it chooses, the rest is here.

  Attributes:
    name: Its key in `ROUTERS`.
    help: What it goes by, in a few words.
    style: Colour and marker in charts.
    line: Between its points in charts, as Matplotlib writes it.
    reads: The column that it goes by.
    look: Finds that column, floating `[N, ...]`, in crops uint8 `[N, H, W, 3]` of the largest resolution; None: it is
      one of the others of `Columns`.
    costs: Of one image at each resolution, highest first, in any unit; the router's own cost is left out.
  """

  name: ClassVar[str]
  help: ClassVar[str]
  style: ClassVar[tuple[str, str]]
  line: ClassVar[str] = '-'
  reads: ClassVar[str] = ''
  look: ClassVar[Callable[[np.ndarray], np.ndarray] | None] = None
  costs: tuple[float, ...]

  @property
  def charged(self) -> np.ndarray:
    """The whole cost `[R]` of an image that ends at each resolution, the router's own included."""
    return np.asarray(self.costs, float)

  def read(self, seen: Any) -> np.ndarray:
    """The column `[N, ...]` that this router goes by, from `Columns` or from `Images`; as a rule as it stands there.

    Raises:
      FileNotFoundError: It is not there: a calibration is older than the router, or nothing finds such a column.
    """
    if self.reads not in seen:
      raise FileNotFoundError(
        f'column {self.reads!r}: none, expected one for router {self.name!r}: calibrate again; what is seen in pixels '
        "is found by the router's `look`"
      )
    return seen[self.reads]

  def choose(self, column: np.ndarray) -> np.ndarray:
    """The place of each image's resolution, int `[N]`, 0 for the highest."""
    ...

  def run(self, images: Images) -> Routed:
    """Runs every image where the router sends it: as a rule all are chosen for, and then each is run once."""
    logits, places = images.run(self.choose(self.read(images)))
    return Routed(logits, places, images.spent)


class Dialled(Router, Protocol):
  """A router with a knob, which a user can choose.

  Attributes:
    knob: Higher sends more images to lower resolutions.
  """

  knob: float

  @classmethod
  def of(cls, costs: tuple[float, ...], predictor: float, calibration: Columns | None) -> Self:
    """The router at knob 0.

    Args:
      costs: Of one image at each resolution, highest first.
      predictor: What the predictor costs for an image, in the same unit; 0 where there is none.
      calibration: Columns of images like those to come; None where this router does not need them.
    """
    del predictor, calibration
    return cls(costs=costs)  # type: ignore[call-arg]  # routers are dataclasses
