"""One checkpoint for any resolution and any budget: images in, predictions out, each with what it cost."""

import functools
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from resjax import checkpoint, dial, models, unseen
from resjax.data.crops import evaluation_crops
from resjax.inference import calibration
from resjax.inference.engine import Counts
from resjax.inference.images import Chunk, Item, chunks, items
from resjax.inference.predictions import Prediction, predictions
from resjax.inference.routing import Network, Routed, energy
from resjax.preprocess import prepare
from resjax.switchable import Resolution, Variables

__all__ = ['Classifier', 'Prediction']

_log = logging.getLogger(__name__)

# How far the calibration itself may be from a budget before that is worth a note.
_OFF = 0.03

# Batches that are routed together: what a cascade sends on fills its buckets better.
_TOGETHER = 4


class Classifier:
  """A trained network with its labels, its preprocessing, and programs that run each image at its resolution.

  Programs are compiled when they are first wanted, and kept.

  Attributes:
    config: Of the run that trained it.
    class_names: By class index.
    resolutions: Those it was trained at, highest first, in pixels.
    notes: What was done that a user should know, a line each, such as how a resolution that was not trained is served.
  """

  def __init__(
    self,
    model: nn.Module,
    variables: Variables,
    config: ConfigDict,
    class_names: Sequence[str],
    *,
    workdir: str | pathlib.Path | None = None,
    max_batch: int = 64,
    dtype: str | None = None,
    promote: bool = True,
    strict: bool = False,
    threads: int | None = None,
  ):
    """Takes a network.

    Args:
      model: A plain network.
      variables: Of the switchable network, the predictor's included where the method is 'drnet'.
      config: As in configs/default.py; read: method, resolutions, drnet.predictor, model.dtype, data.normalize,
        data.max_pixels and eval.crop_fraction.
      class_names: By class index.
      workdir: Where the calibration and cost tables are kept; None: nowhere.
      max_batch: Images of the largest program.
      dtype: Of the computation, 'float32' or 'bfloat16'; None: the model's own.
      promote: Images may run at a higher resolution than was chosen for them where that is faster.
      strict: A compilation after the warm-up raises.
      threads: That decode; None: one for each processor.
    """
    self.config, self.class_names = config, tuple(class_names)
    self.resolutions = tuple(config.resolutions)
    self.notes: list[str] = []
    self._model, self._variables = model, variables
    self._workdir = None if workdir is None else pathlib.Path(workdir)
    self._threads = threads or os.cpu_count()
    costs_file = self._workdir and self._workdir / 'costs.json'
    options = {'max_batch': max_batch, 'promote': promote, 'strict': strict, 'costs_file': costs_file}
    self._network = functools.partial(Network, model, config=config, dtype=dtype, **options)
    self._chunk = _TOGETHER * max_batch
    self._draws = np.random.default_rng(0)
    self._fixed: dict[Any, Network] = {}
    self._calibration: calibration.Table | None = None

  @classmethod
  def load(cls, workdir: str | pathlib.Path, *, step: int | None = None, **options: Any) -> 'Classifier':
    """Returns the classifier of a run: the network as it was evaluated, its labels, its preprocessing.

    Args:
      workdir: The run's folder; only read, but for the calibration and cost tables.
      step: One of those saved; None: the latest.
      **options: See the class.

    Raises:
      FileNotFoundError: There is no such checkpoint.
      ValueError: It is damaged.
    """
    meta = checkpoint.load_meta(workdir, step=step)
    variables, config = checkpoint.load_variables(workdir, step=meta['step'])
    names = meta.get('class_names') or [str(i) for i in range(config.model.num_classes)]  # older ones have no names
    model = models.from_config(config)
    return cls(model, variables, config, names, workdir=workdir, **options)

  @functools.cached_property
  def network(self) -> Network:
    """The programs at all trained resolutions, from crops of the largest, and the predictor's."""
    return self._network(self._variables, resolutions=self.resolutions)

  def predict(self, images: Any, **options: Any) -> list[Prediction]:
    """Returns a prediction for each image, in their order.

    Args:
      images: Files, folders, encoded images as bytes, arrays uint8 `[H, W, 3]` or `[N, H, W, 3]`, or a sequence of
        these.
      **options: `resolution`, `budget`, `router`, `follow` and `unseen_by`, see `stream`.
    """
    return list(self.stream(items(images), **options))

  def stream(
    self,
    wanted: Sequence[Item],
    *,
    resolution: Resolution | None = None,
    budget: float | str | None = None,
    router: str | None = None,
    follow: bool = False,
    unseen_by: str = 'interpolate',
  ) -> Iterator[Prediction]:
    """Yields a prediction for each image, in their order.

    Without `resolution`, `budget` and `router`, DRNet's predictor chooses as it was trained to, and a network without
    one runs at its largest resolution.

    Args:
      wanted: As from `images.items`.
      resolution: One for all images, in pixels: of a square, or (height, width). The image is cropped at that size, as
        in evaluation; a size that was not trained is served as `notes` then says.
      budget: Mean cost of an image, the router's included: at most 1, a share of the largest resolution's
        multiply-adds; above, multiply-adds; or milliseconds on this machine, as '12ms'. Needs a calibration. Images are
        promoted under a budget of milliseconds alone: it makes them faster and costs multiply-adds. The crops of lower
        resolutions are made from those of the largest.
      router: One of `network.routers`; None: the first.
      follow: Keep the mean of these images on the budget, also where they are unlike the calibration's: the knob
        follows what was spent, so an image's resolution depends on those before it.
      unseen_by: 'interpolate' or 'nearest', see `resjax.unseen.add`.

    Raises:
      ValueError: An option is not what was expected, or contradicts another; or the budget can't be met.
      FileNotFoundError: The budget needs a calibration, and there is none.
    """
    if resolution is not None and (budget is not None or router is not None):
      raise ValueError(f'resolution: got {resolution} with a budget or router, expected one or the other')
    if follow and budget is None:
      raise ValueError('follow: got True without a budget, expected a budget to follow')
    if unseen_by not in unseen.WAYS:
      raise ValueError(f'unseen_by: got {unseen_by!r}, expected one of {", ".join(unseen.WAYS)}')
    if resolution is None and budget is None and router is None and self.config.method != 'drnet':
      resolution = self.resolutions[0]
    if resolution is not None:
      resolution = square(resolution)
      return self._predicted(wanted, (resolution,), self._at(resolution, unseen_by).fixed)
    rule = self.router(router, budget)
    if budget is None:
      return self._predicted(wanted, self.resolutions, self._routed(rule, promote=False))
    target, timed = calibration.parse_budget(budget, max(self.network.costs))
    follower = calibration.follower(rule, self.calibrated, target) if follow else None
    return self._predicted(wanted, self.resolutions, self._routed(rule, follower, promote=None if timed else False))

  def router(self, name: str | None = None, budget: float | str | None = None) -> dial.Router:
    """Returns a router with its knob set to a budget, or as it was trained; arguments and errors as of `stream`."""
    if name is not None and name not in dial.COLUMNS:
      raise ValueError(f'router: got {name!r}, expected one of {", ".join(dial.COLUMNS)}')
    if budget is None and name not in (None, 'predictor'):
      raise ValueError(f'budget: missing, expected one to set the knob of router {name!r}')
    if budget is not None:  # what is wrong is told before anything is compiled
      calibration.parse_budget(budget, 1.0)
      reference = self.calibrated
    name = name or self.network.routers[0]
    if budget is None:
      return self.network.router(name)
    target, timed = calibration.parse_budget(budget, max(self.network.costs))
    rule = calibration.dialled(self.network.router(name, timed=timed), reference, target)
    reached = rule.mean_cost(calibration.column(rule, reference, reference))
    if abs(reached / target - 1) > _OFF:
      self._note(
        f'budget {budget}: on the {len(reference["energy"])} calibration images router {name!r} comes to '
        f'{reached / target:.2f} of it and no nearer; more, or more varied, images would help'
      )
    return rule

  @property
  def calibrated(self) -> calibration.Table:
    """What routers read of the calibration images: `odds`, `energy` and, with a predictor, `scores`.

    Raises:
      FileNotFoundError: `calibrate` has not been called for this checkpoint.
      ValueError: It is of other weights, or damaged.
    """
    if self._calibration is None:
      if self._workdir is None:
        raise FileNotFoundError('calibration: none yet, expected a call of calibrate(images) before a budget')
      self._calibration = calibration.read(self._workdir, calibration.network_of(self._variables))
    return self._calibration

  @property
  def counts(self) -> Counts:
    """What the engine of all trained resolutions has done so far: promotions, padding, batches at one resolution."""
    return self.network.engine.counts if 'network' in self.__dict__ else Counts()

  def recalibrate(self, resolution: Resolution, images: Any, batch: int = 64) -> None:
    """Serves a resolution from now on with BatchNorm statistics of these images, see `resjax.unseen.recalibrate`.

    Args:
      resolution: In pixels, of a square, or (height, width).
      images: As of `predict`, without labels.
      batch: Images that are normalised together, about as many as in training.

    Raises:
      ValueError: No image could be read.
    """
    resolution = square(resolution)
    crops = np.concatenate(
      [chunk.crops for chunk in self.cropped(items(images), resolution) if len(chunk.crops)] or [[]]
    )
    variables, _ = unseen.add(self._variables, resolution)
    normalize = self.config.data.normalize
    parts = (prepare((crops[i : i + batch],), (resolution,), normalize)[0] for i in range(0, len(crops), batch))
    variables, note = unseen.recalibrate(self._model, variables, resolution, parts)
    self._note(note)
    network = self._network(variables, resolutions=(resolution,))
    self._fixed |= {(resolution, how): network for how in unseen.WAYS}

  def calibrate(self, images: Any, seen: Callable[[int], None] = lambda count: None) -> int:
    """Runs images at every resolution and keeps what routers read of them, in the workdir where there is one.

    Args:
      images: As of `predict`, without labels; like those that will come, thousands rather than hundreds.
      seen: Called with the number of images that were run, as the work goes on.

    Returns:
      How many could be read.

    Raises:
      ValueError: None of them.
    """
    table, readable = self.columns(images, seen)
    if not readable.any():
      raise ValueError('images: none could be read, expected images to calibrate on')
    self._calibration = {name: table[name] for name in calibration.KEPT if name in table}
    if self._workdir is not None:
      calibration.write(self._workdir, calibration.network_of(self._variables), self._calibration)
    return len(self._calibration['energy'])

  def columns(
    self, images: Any, seen: Callable[[int], None] = lambda count: None
  ) -> tuple[calibration.Table, np.ndarray]:
    """Returns what routers and network say of images at every trained resolution, from crops of the largest.

    Args:
      images: As of `predict`.
      seen: As of `calibrate`.

    Returns:
      The columns of `Network.columns` for the images that could be read; and which those are, bool `[N]`.
    """
    parts, readable = [], []
    for chunk in self.cropped(items(images), self.resolutions[0]):
      readable.extend(error is None for error in chunk.errors)
      seen(len(chunk.names))
      if len(chunk.crops):
        parts.append(self.network.columns(chunk.crops))
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    return table, np.array(readable, bool)

  def _note(self, line: str) -> None:
    """Tells the user, now and in `notes`."""
    self.notes.append(line)
    _log.warning(line)

  def _at(self, resolution: Resolution, how: str) -> Network:
    """The programs at one resolution, from crops of that size."""
    if (resolution, how) not in self._fixed:
      variables, note = unseen.add(self._variables, resolution, how)
      if resolution not in self.resolutions:
        self._note(note)
      self._fixed[resolution, how] = self._network(variables, resolutions=(resolution,))
    return self._fixed[resolution, how]

  def _routed(
    self, rule: dial.Router, follower: dial.Follower | None = None, promote: bool | None = None
  ) -> Callable[[np.ndarray], Routed]:
    """Runs crops by a router, with the column that it reads where the network does not find it itself."""

    def run(crops: np.ndarray) -> Routed:
      column = None
      if rule.name == 'random':
        column = self._draws.uniform(size=len(crops))
      elif rule.name == 'detail':
        column = dial.ranks_within(energy(crops), self.calibrated['energy'])
      found = self.network.run(crops, follower.router if follower else rule, column, promote=promote)
      if follower:
        follower.spent(found.places)
      return found

    return run

  def _predicted(
    self, wanted: Sequence[Item], resolutions: Sequence[Resolution], run: Callable[[np.ndarray], Routed]
  ) -> Iterator[Prediction]:
    """What comes of cropping at the first of the resolutions and running."""
    return predictions(self.cropped(wanted, resolutions[0]), resolutions, run, self.class_names)

  def cropped(self, wanted: Sequence[Item], size: Resolution) -> Iterator[Chunk]:
    """Yields images in chunks, cropped at a size in pixels as evaluation crops them."""
    crop = evaluation_crops(self.config, (size,))
    return chunks(wanted, lambda image: crop(image)[0], size=self._chunk, threads=self._threads)


def square(resolution: Resolution) -> Resolution:
  """Returns a resolution as one number where both sides are the same, else as a tuple."""
  if np.ndim(resolution) == 0:
    return resolution if isinstance(resolution, int) else int(resolution)
  sides = tuple(int(side) for side in resolution)
  return sides[0] if len(set(sides)) == 1 else sides
