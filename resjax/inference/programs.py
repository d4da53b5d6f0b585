"""What is compiled, before any runtime is chosen: crops in, logits out, at one resolution."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, Self

from resjax.network import Forward, Function, digest_of
from resjax.preprocess import Preprocessing
from resjax.resolution import Resolution, sides
from resjax.routing import Budget


class Scores(Protocol):
  """What predicting takes of a predictor: the size that it looks at images in, pixels, and its multiply-adds."""

  @property
  def size(self) -> int:
    """In pixels."""

  @property
  def macs(self) -> int:
    """Of one image."""


class Servable(Protocol):
  """What predicting takes of a network, whether it is in memory (`Network`) or in files (`bundle.Bundle`)."""

  @property
  def resolutions(self) -> tuple[Resolution, ...]:
    """As of `Network`."""

  @property
  def preprocessing(self) -> Preprocessing:
    """As of `Network`."""

  @property
  def class_names(self) -> tuple[str, ...]:
    """As of `Network`."""

  @property
  def num_classes(self) -> int:
    """As of `Network`."""

  @property
  def macs(self) -> tuple[int, ...]:
    """As of `Network`."""

  @property
  def digest(self) -> str:
    """As of `Network`."""

  @property
  def predictor(self) -> Scores | None:
    """As of `Network`."""

  @property
  def runtime(self) -> str | None:
    """The one that runs it, of `runtimes.NAMES`; None: any."""

  @property
  def knobs(self) -> Mapping[tuple[str, Budget], float] | None:
    """That routers were set to, by router and budget, where it comes with some; None: a calibration sets them."""

  def function(self, resolution: Resolution) -> Function:
    """As of `Network`."""

  def scoring(self) -> Function:
    """As of `Network`."""

  def at(self, resolution: Resolution, how: str = ...) -> tuple[Self, str]:
    """As of `Network`."""

  def with_dtype(self, dtype: str | None) -> Self:
    """As of `Network`."""

  def recalibrated(self, resolution: Resolution, inputs: Iterable[Any]) -> tuple[Self, str]:
    """As of `Network`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
  """A network at one resolution, as a pure function of its variables and any number of crops.

  Attributes:
    forward: `forward(variables, crops) -> logits`: uint8 `[b, H, W, 3]` to float32 `[b, K]`. It holds the resizing from
      the crop's size, the normalisation, and the network in inference mode.
    variables: Its ordinary variables; programs of one network share the arrays that the resolutions share.
    resolution: At which the network runs, in pixels, of a square, or (height, width).
    shape: Of a crop, (H, W, 3).
    num_classes: K.
    description: What is computed, whatever the weights are: programs of one description take the same time.
    dtype: Of the computation.
  """

  forward: Forward
  variables: Any
  resolution: Resolution
  shape: tuple[int, int, int]
  num_classes: int
  description: str
  dtype: str

  @functools.cached_property
  def digest(self) -> str:
    """A digest of what is computed and of all weights: programs of one digest give the same logits."""
    return digest_of(self.variables, f'{self.description} {self.resolution} {self.shape}')


def of_network(network: Servable) -> tuple[Program, ...]:
  """Returns the programs of a network, one for each of its resolutions, from crops of the first."""
  return tuple(
    _program(network, network.function(resolution), resolution, network.num_classes)
    for resolution in network.resolutions
  )


def of_predictor(network: Servable) -> tuple[Program]:
  """Returns the program of a network's predictor, from the same crops: its logits are the scores `[b, R]`.

  Raises:
    ValueError: The network has none.
  """
  if network.predictor is None:
    raise ValueError('network: it has no predictor, expected one')
  return (_program(network, network.scoring(), network.predictor.size, len(network.resolutions)),)


def _program(network: Servable, function: Function, resolution: Resolution, num_classes: int) -> Program:
  """A function of a network with its shapes."""
  forward, variables, description, dtype = function
  shape = (*sides(network.resolutions[0]), 3)
  return Program(forward, variables, resolution, shape, num_classes, description, dtype)
