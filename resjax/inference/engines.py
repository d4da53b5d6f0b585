"""A network's engine and its predictor's, and the images at hand that routers look at and run."""

from collections.abc import Callable
from typing import Any

import numpy as np

from resjax import routing
from resjax.inference import programs, runtimes
from resjax.inference.engine import Batch, Engine
from resjax.inference.programs import Servable
from resjax.inference.runtime import Makes
from resjax.resolution import check_distinct
from resjax.routing import Columns, Dialled
from resjax.routing.cascade import log_odds
from resjax.routing.fixed import Fixed


class Engines:
  """What runs a network at its resolutions, and its predictor where it has one, from crops of the largest.

  Attributes:
    network: What is run.
    engine: Of the network.
    scorer: Of the predictor, or None.
    macs: Multiply-adds of one image at each resolution, highest first, the predictor's left out.
    predictor_macs: Multiply-adds of the predictor for one image, 0 where there is none.
  """

  def __init__(self, network: Servable, *, runtime: Makes | str | None = None, **options: Any):
    """Compiles every program.

    Args:
      network: What is run.
      runtime: One of `runtimes.NAMES`, or makes what runs the programs; None: the network's own, or see
        `runtimes.named`.
      **options: Of the engine.

    Raises:
      ValueError: There is no such runtime, it is not installed, or can't run this network; or several of its
        resolutions are branches of one size.
    """
    check_distinct(network.resolutions)
    self.network = network
    name = network.runtime if runtime is None else runtime
    make = runtimes.named(name) if name is None or isinstance(name, str) else name
    self.engine = Engine(make(programs.of_network(network)), **options)
    self.macs, self.scorer, self.predictor_macs = network.macs, None, 0
    if network.predictor is not None:
      self.scorer = Engine(make(programs.of_predictor(network)), **options)
      self.predictor_macs = network.predictor.macs

  @property
  def routers(self) -> tuple[str, ...]:
    """The routers that a user can choose for this network; the first is taken where none is named."""
    return routing.names_for(self.network.predictor is not None)

  def router(self, name: str, calibration: Columns | None = None, *, timed: bool = False) -> Dialled:
    """Returns a router at knob 0: its costs in multiply-adds, or in milliseconds of the cost tables' largest bucket.

    Args:
      name: One of `routers`.
      calibration: Columns of calibration images, for a router that needs them.
      timed: Costs in milliseconds.

    Raises:
      ValueError: This network has no such router.
      FileNotFoundError: The router needs a calibration.
    """
    if name not in self.routers:
      raise ValueError(f'router: got {name!r}, expected one of {", ".join(self.routers)} with this network')
    costs, predictor = tuple(map(float, self.macs)), float(self.predictor_macs)
    if timed:
      costs, predictor = milliseconds(self.engine), milliseconds(self.scorer)[0] if self.scorer else 0.0
    return routing.kind_of(name).of(costs, predictor, calibration)

  def images(
    self,
    crops: np.ndarray | Batch,
    *,
    promote: bool | None = None,
    known: Columns | None = None,
    draw: Callable[[int], np.ndarray] | None = None,
  ) -> 'Crops':
    """Returns images at hand, which a router can look at and run: `router.run(engines.images(crops))`.

    Args:
      crops: uint8 `[N, S, S, 3]`, or what the engine's `put` returned for them.
      promote: Other than the engine's.
      known: Columns that are known already.
      draw: Returns uniform numbers, as many as it is asked for; for router 'random'.
    """
    return Crops(self, crops, promote, dict(known or {}), draw)

  def columns(self, crops: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what routers read of images, and what the network says of them at each resolution; nothing is promoted.

    Args:
      crops: uint8 `[N, S, S, 3]`.

    Returns:
      The columns 'odds', 'guess', those of `routing.looks` and, with a predictor, 'scores' (see `routing.Columns`); and
      'confidence' float `[N, R]`, the probability of the likeliest class.
    """
    images = self.images(crops)
    costs = tuple(map(float, self.macs))
    logits = np.stack([Fixed(costs, place).run(images).logits for place in range(len(costs))], 1)
    odds = log_odds(logits.astype(float))
    found = {'odds': odds, 'confidence': 1 / (1 + np.exp(-odds)), 'guess': logits.argmax(-1)}
    return found | {name: images[name] for name in (*routing.looks(), 'scores') if name in images}


class Crops:
  """Images at hand, see `routing.Images`: what is asked of them is found once, and what that costs is counted.

  Attributes:
    spent: float `[N]`, multiply-adds of all that was run for each image.
  """

  def __init__(
    self,
    engines: Engines,
    crops: np.ndarray | Batch,
    promote: bool | None,
    known: dict[str, np.ndarray],
    draw: Callable[[int], np.ndarray] | None,
  ):
    """See `Engines.images`."""
    self._engines, self._crops, self._promote, self._known = engines, crops, promote, known
    self._finders: dict[str, Callable[[], np.ndarray]] = {
      column: lambda look=look: look(self._array)  # type: ignore[misc]  # a default binds it here
      for column, look in routing.looks().items()
    }
    if engines.scorer is not None:
      self._finders['scores'] = self._scores
    if draw is not None:
      self._finders['draw'] = lambda: draw(len(self))
    self.spent = np.zeros(len(self))

  def __len__(self) -> int:
    return self._crops.images if isinstance(self._crops, Batch) else len(self._crops)

  def __contains__(self, column: object) -> bool:
    return column in self._known or column in self._finders

  def __getitem__(self, column: str) -> np.ndarray:
    if column not in self._known:
      self._known[column] = self._finders[column]()
    return self._known[column]

  def run(
    self, choice: np.ndarray, rows: np.ndarray | None = None, *, promote: bool = True
  ) -> tuple[np.ndarray, np.ndarray]:
    """See `routing.Images`."""
    crops = self._crops if rows is None else self._array[rows]
    found = self._engines.engine.run(crops, choice, promote=self._promote if promote else False)
    self.spent[slice(None) if rows is None else rows] += np.asarray(self._engines.macs, float)[found.ran]
    return found.logits, found.ran

  @property
  def _array(self) -> np.ndarray:
    """The crops as an array."""
    if isinstance(self._crops, Batch):
      raise ValueError('crops: got a batch that was put on the device, expected an array for this router')
    return self._crops

  def _scores(self) -> np.ndarray:
    """The predictor's scores `[N, R]`."""
    scorer = self._engines.scorer
    assert scorer is not None
    self.spent += self._engines.predictor_macs
    return scorer.run(self._crops, np.zeros(len(self), int)).logits


def milliseconds(engine: Engine) -> tuple[float, ...]:
  """Returns the time of one image at each resolution, in a batch of the largest size."""
  return tuple(1e3 * engine.costs.seconds[:, -1] / engine.buckets[-1])
