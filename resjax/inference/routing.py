"""Crops through routers: what a router reads of each image, the runs that it asks for, and what they cost."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from resjax import dial, drnet, macs
from resjax.inference.engine import Engine
from resjax.inference.runtime import XlaRuntime
from resjax.switchable import Variables, share

__all__ = ['Network', 'Routed', 'energy', 'log_odds']


class Routed(NamedTuple):
  """What came of N images."""

  logits: np.ndarray  # float32 [N, K]
  places: np.ndarray  # int [N]: of the resolution whose logits these are, 0 for the highest
  macs: np.ndarray  # float [N]: multiply-adds of all that was run for the image


class Network:
  """A network's programs at some of its resolutions, and its predictor's where it has one.

  Attributes:
    engine: Of the network.
    scorer: Of the predictor, or None.
    costs: Multiply-adds of one image at each resolution, highest first.
    own: Multiply-adds of the predictor for one image, 0 where there is none.
  """

  def __init__(
    self,
    model: nn.Module,
    variables: Variables,
    config: ConfigDict,
    resolutions: Sequence[int],
    *,
    dtype: str | None = None,
    **options: Any,
  ):
    """Compiles every program.

    Args:
      model: A plain network.
      variables: Of the switchable network.
      config: Reads method, drnet.predictor, model.dtype, data.normalize and `resolutions`, the predictor's choices.
      resolutions: Highest first; the crops have the first one's size.
      dtype: Of the computation; None: the model's own.
      **options: Of the engine.
    """
    normalize = config.data.normalize
    runtime = XlaRuntime(model, variables, resolutions, normalize=normalize, dtype=dtype)
    self.engine = Engine(runtime, **options)
    self.costs = tuple(macs.of_model(model, r) for r in resolutions)
    self.scorer, self.own = None, 0
    if config.method == 'drnet' and tuple(resolutions) == tuple(config.resolutions):
      predictor = drnet.Predictor(config)
      own = share({kind: variables[kind]['predictor'] for kind in ('params', 'batch_stats')}, (predictor.size,))
      small = XlaRuntime(predictor.network, own, (predictor.size,), normalize=normalize, size=resolutions[0])
      self.scorer, self.own = Engine(small, **options), predictor.macs

  @property
  def routers(self) -> tuple[str, ...]:
    """The routers that this network has all it takes for; the first is the one to choose where none is named."""
    names = ('cascade', 'detail', 'random')
    return names if self.scorer is None else ('predictor', *names)

  def router(self, name: str, *, timed: bool = False) -> dial.Router:
    """Returns a router at knob 0: its costs in multiply-adds, or in milliseconds of the cost tables' largest bucket."""
    if name not in self.routers:
      raise ValueError(f'router: got {name!r}, expected one of {", ".join(self.routers)} with this network')
    costs, own = self.costs, self.own
    if timed:
      costs = milliseconds(self.engine)
      own = milliseconds(self.scorer)[0] if self.scorer else 0.0
    return dial.Router(name, tuple(costs), own if name == 'predictor' else 0)

  def columns(self, crops: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what routers read of images, and what the network says of them at each resolution; nothing is promoted.

    Args:
      crops: uint8 `[N, S, S, 3]`.

    Returns:
      `odds` and `confidence` float `[N, R]`, log-odds and probability of the likeliest class; `guess` int `[N, R]`,
      that class; `energy` float `[N]`; and `scores` `[N, R]` where there is a predictor.
    """
    logits = np.stack([self.fixed(crops, place).logits for place in range(len(self.costs))], 1)
    odds = log_odds(logits)
    found = {'odds': odds, 'confidence': 1 / (1 + np.exp(-odds)), 'guess': logits.argmax(-1), 'energy': energy(crops)}
    return found if self.scorer is None else found | {'scores': self._scores(crops)}

  def fixed(self, crops: np.ndarray, place: int = 0) -> Routed:
    """Runs every image at one resolution; none is promoted.

    Args:
      crops: uint8 `[N, S, S, 3]`.
      place: Of the resolution, 0 for the highest.
    """
    places = np.full(len(crops), place)
    logits, _ = self.engine.run(crops, places, promote=False)
    return Routed(logits, places, np.full(len(crops), float(self.costs[place])))

  def run(
    self, crops: np.ndarray, router: dial.Router, column: np.ndarray | None = None, *, promote: bool | None = None
  ) -> Routed:
    """Runs every image where the router sends it, or higher where that is allowed and faster.

    Args:
      crops: uint8 `[N, S, S, 3]`.
      router: One of `routers`, its knob set.
      column: What 'detail' and 'random' read of these images; the others' is found here.
      promote: Other than the engine's; the cascade never promotes.
    """
    if router.name == 'cascade':
      return self._cascade(crops, -router.knob)
    choice = router.choose(self._scores(crops) if router.name == 'predictor' else column)
    logits, ran = self.engine.run(crops, choice, promote=promote)
    own = self.own if router.name == 'predictor' else 0
    return Routed(logits, ran, np.asarray(self.costs, float)[ran] + own)

  def _cascade(self, crops: np.ndarray, threshold: float) -> Routed:
    """From the lowest resolution up, until the log-odds reach the threshold."""
    count, lowest = len(crops), len(self.costs) - 1
    logits = np.zeros((count, self.engine.runtime.num_classes), np.float32)
    places, spent = np.full(count, lowest), np.zeros(count)
    rows = np.arange(count)
    for place in reversed(range(lowest + 1)):
      logits[rows], places[rows] = self.fixed(crops[rows], place).logits, place
      spent[rows] += self.costs[place]
      rows = rows[log_odds(logits[rows]) < threshold]
    return Routed(logits, places, spent)

  def _scores(self, crops: np.ndarray) -> np.ndarray:
    """The predictor's scores `[N, R]`."""
    return self.scorer.run(crops, np.zeros(len(crops), int)).logits


def milliseconds(engine: Engine) -> tuple[float, ...]:
  """Returns the time of one image at each resolution, in a batch of the largest size."""
  return tuple(1e3 * engine.costs.seconds[:, -1] / engine.buckets[-1])


def log_odds(logits: np.ndarray) -> np.ndarray:
  """Returns `log(p / (1 - p))` of the likeliest class, float `[...]`: a confidence that does not saturate at 1.

  Args:
    logits: `[..., K]`.
  """
  ordered = np.sort(np.asarray(logits, float), axis=-1)
  top, others = ordered[..., -1], ordered[..., :-1]
  highest = others[..., -1:]
  return top - highest[..., 0] - np.log(np.exp(others - highest).sum(-1))


def energy(crops: np.ndarray) -> np.ndarray:
  """Returns the mean absolute difference between neighbouring pixels of the green channel: float `[N]`, grey levels.

  An image's own statistic, which costs next to nothing: the more detail, the more pixels it deserves.

  Args:
    crops: uint8 `[N, H, W, 3]`.
  """
  green = crops[..., 1].astype(np.int16)
  across, down = np.abs(np.diff(green, axis=2)), np.abs(np.diff(green, axis=1))
  return (across.mean((1, 2)) + down.mean((1, 2))) / 2
