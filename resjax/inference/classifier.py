"""One network for any resolution and any budget: images in, predictions out, each with what it cost."""

import functools
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, Unpack

import numpy as np

from resjax import routing, shapes, unseen
from resjax.data.crops import evaluation_crops
from resjax.home import expanded
from resjax.inference.calibrating import Calibration
from resjax.inference.engine import Counts
from resjax.inference.engines import Engines
from resjax.inference.images import Chunk, Item, chunks, cut, items
from resjax.inference.kept import Kept
from resjax.inference.opening import opened
from resjax.inference.origin import Origin
from resjax.inference.passes import recalibrated, table
from resjax.inference.predictions import Asked, Prediction, Way, check, predictions
from resjax.inference.programs import Servable
from resjax.inference.runtime import Makes
from resjax.resolution import Resolution, sides, square
from resjax.routing import Budget, Dialled, Routed, Router
from resjax.routing.dial import Follower
from resjax.routing.fixed import Fixed

# Batches that are routed together: what a cascade sends on fills its buckets better.
_TOGETHER = 4


class Classifier:
  """A trained network, and programs that run each image at its resolution: compiled when first wanted, and kept.

  Several threads may predict at once. It can be pickled, and sent to processes that were spawned; a process that was
  forked from one that has predicted refuses to.

  Attributes:
    network: What classifies.
    notes: What was done that a user should know, the latest 64 lines, such as how a size not trained is served.
  """

  def __init__(
    self,
    network: Servable,
    *older: Any,
    workdir: str | pathlib.Path | None = None,
    runtime: Makes | str | None = None,
    max_batch: int = 64,
    dtype: str | None = None,
    promote: bool = True,
    strict: bool = False,
    threads: int | None = None,
  ):
    """Takes a network.

    Args:
      network: As from `resjax.trained.load` or `bundle.read`, or made by hand.
      *older: Refused: what version 0.1 took.
      workdir: Where the calibration and cost tables are kept; None: nowhere.
      runtime: One of `runtimes.NAMES`, or makes what runs the programs; None: see `runtimes.named`.
      max_batch: Images of the largest program.
      dtype: Of the computation, 'float32' or 'bfloat16', of a bundle its own; None: the model's own.
      promote: Images may run at a higher resolution than was chosen for them where that is faster.
      strict: A compilation after the warm-up raises.
      threads: That decode; None: one for each processor.

    Raises:
      TypeError: It is no Network.
      ValueError: The network does not have such a dtype; or there are no threads.
    """
    if older or not hasattr(network, 'function'):
      raise TypeError(
        f'network: got {type(network).__name__}, expected a Network: Classifier(resjax.Network(model, variables, '
        'resolutions, preprocessing, class_names))'
      )
    self.network = network.with_dtype(dtype)
    self.notes: list[str] = []
    self._workdir = None if workdir is None else pathlib.Path(expanded(workdir, 'workdir'))
    self._threads = (os.cpu_count() or 1) if threads is None else threads
    if not isinstance(self._threads, int) or self._threads < 1:
      raise ValueError(f'threads: got {threads!r}, expected a positive integer')
    costs_file = self._workdir and self._workdir / 'costs.json'
    make = functools.partial(
      Engines, runtime=runtime, max_batch=max_batch, promote=promote, strict=strict, costs_file=costs_file
    )
    self._kept = Kept(make, network)
    self._chunk = _TOGETHER * max_batch
    self._draws = np.random.default_rng(0)
    self._calibration = Calibration(self.network, self._workdir, self._note)

  @classmethod
  def load(
    cls, workdir: str | pathlib.Path, *, step: int | None = None, max_pixels: int | None = None, **options: Any
  ) -> 'Classifier':
    """Returns the classifier of a run, or of a bundle; errors as of `trained.load` and `bundle.read`.

    Args:
      workdir: The run's folder, or a bundle's; only read, but for the calibration and cost tables.
      step: One of those saved; None: the latest.
      max_pixels: Larger images are refused; None: as in the training.
      **options: See the class.
    """
    workdir = expanded(workdir, 'workdir')
    return cls(opened(workdir, step, max_pixels), workdir=workdir, **options)

  @property
  def class_names(self) -> tuple[str, ...]:
    """By class index."""
    return self.network.class_names

  @property
  def resolutions(self) -> tuple[Resolution, ...]:
    """Those it was trained at, highest first, in pixels."""
    return self.network.resolutions

  @property
  def config(self) -> NoReturn:
    """Refused: a network has no config."""
    raise AttributeError('config: a Classifier has none since 0.2; type resjax.trained.read(workdir).config')

  @property
  def engines(self) -> Engines:
    """The programs at all trained resolutions, from crops of the largest, and the predictor's."""
    return self._kept.own(self.network)

  @property
  def counts(self) -> Counts:
    """What the engine of all trained resolutions has done so far: promotions, padding, batches at one resolution."""
    return self._kept.counts

  def predict(self, images: Any, **asked: Unpack[Asked]) -> list[Prediction]:
    """Returns a prediction for each image, in their order.

    Args:
      images: Files, folders, encoded images as bytes, arrays uint8 `[H, W, 3]` or `[N, H, W, 3]`, or a sequence of
        these. All are cropped, arrays too; what is cropped already is for `predict_crops`.
      **asked: See `stream`.
    """
    return list(self.stream(items(images), **asked))

  def stream(self, wanted: Sequence[Item], **asked: Unpack[Asked]) -> Iterator[Prediction]:
    """Yields a prediction for each image as from `images.items`, in their order; what may be asked, see `Asked`.

    Raises:
      ValueError: An option is not what was expected, or contradicts another; or the budget can't be met.
      FileNotFoundError: The budget needs a calibration, and there is none.
    """
    way = self._way(**asked)
    return predictions(self.cropped(wanted, way.resolutions[0]), *way, self.class_names, asked.get('top_k', 1))

  def crop(self, image: bytes | np.ndarray, resolution: Resolution | None = None) -> np.ndarray:
    """Returns an image as evaluation crops it, for `predict_crops`: uint8 `[H, W, 3]`.

    Args:
      image: An encoded file, or pixels uint8 `[H, W, 3]`.
      resolution: That it will run at, in pixels; None: the largest, from which routers and budgets go on.

    Raises:
      BadImage: It can't be read, or is too large.
    """
    size = self.resolutions[0] if resolution is None else square(resolution)
    return evaluation_crops(self.network.preprocessing, (size,))(image)[0]

  def predict_crops(self, crops: np.ndarray, **asked: Unpack[Asked]) -> list[Prediction]:
    """Returns a prediction for each crop, in their order: what `predict` says of the images that they are of.

    Args:
      crops: uint8 `[N, H, W, 3]`, of `crop` with the same `resolution`.
      **asked: See `stream`, also for the errors.

    Raises:
      ValueError: The crops have another shape or type.
    """
    way = self._way(**asked)
    shapes.check('crops', crops, ('N', *sides(way.resolutions[0]), 3), 'uint8')
    return list(predictions(cut(crops, self._chunk), *way, self.class_names, asked.get('top_k', 1)))

  def _way(
    self,
    resolution: Resolution | None = None,
    budget: Budget | float | str | None = None,
    router: str | Router | None = None,
    follow: bool = False,
    unseen_by: str = 'interpolate',
    top_k: int = 1,
  ) -> Way:
    """How crops of the first of some resolutions are run at these; arguments as of `Asked`."""
    check(resolution, budget, router, follow, unseen_by)
    self._kept.check()
    if resolution is None and budget is None and router is None and self.network.predictor is None:
      resolution = self.resolutions[0]
    if resolution is not None:
      return self._at_one(square(resolution), unseen_by)
    allowed = None if budget is None else Budget.parse(budget)
    runner: Any = self.router(router, allowed) if isinstance(router, str | None) else router
    if follow and allowed is not None:
      runner = Follower(runner, runner.read(self.calibrated), allowed.target(max(self.network.macs)))
    promote = None if allowed is not None and allowed.timed else False

    def run(crops: np.ndarray) -> Routed:
      images = self.engines.images(crops, promote=promote, draw=lambda count: self._draws.uniform(size=count))
      return runner.run(images)

    return Way(self.resolutions, run)

  def _at_one(self, resolution: Resolution, how: str) -> Way:
    """How crops are all run at their own resolution."""

    def network() -> Servable:
      found, note = self.network.at(resolution, how)
      if resolution not in self.resolutions:
        self._note(note)
      return found

    engines = self._kept.at((resolution, how), network)
    return Way((resolution,), lambda crops: Fixed(tuple(map(float, engines.macs))).run(engines.images(crops)))

  def router(self, name: str | None = None, budget: Budget | float | str | None = None) -> Dialled:
    """Returns a router with its knob set to a budget, or as it was trained; made once for each name and budget.

    Arguments and errors as of `stream`.
    """
    if name is not None:
      routing.kind_of(name)  # what is wrong is told before anything is compiled
    if budget is None:
      if name not in (None, 'predictor'):
        raise ValueError(f'budget: missing, expected one to set the knob of router {name!r}')
      return self.engines.router(name or self.engines.routers[0])
    allowed = Budget.parse(budget)
    name = name or routing.names_for(self.network.predictor is not None)[0]
    with self._kept.lock:
      self._calibration.knob(name, allowed)  # raises before anything is compiled
      return self._calibration.router(self.engines, name, allowed)

  @property
  def calibrated(self) -> routing.Columns:
    """What routers read of the calibration images; see `Calibration.columns`, also for the errors."""
    with self._kept.lock:
      return self._calibration.columns

  def calibrate(self, images: Any, seen: Callable[[int], None] = lambda n: None, origin: Origin | None = None) -> int:
    """Keeps what routers read of images, run at every resolution, in the workdir if there is one; returns of how many.

    Args:
      images: As of `predict`, without labels; like those that will come, thousands rather than hundreds.
      seen: Called with the number of images that were run, as the work goes on.
      origin: What they are, kept beside; None: the files, or the arrays.

    Raises:
      ValueError: None of them.
      OSError: The workdir can't be written to.
    """
    self._calibration.check_place()
    columns, readable = self.columns(wanted := items(images), seen)
    if not readable.any():
      raise ValueError('images: none could be read, expected images to calibrate on')
    with self._kept.lock:
      self._calibration.keep(columns, origin or Origin.of_items(wanted))
    return int(readable.sum())

  def columns(
    self, images: Any, seen: Callable[[int], None] = lambda count: None
  ) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns what routers and network say of images at every trained resolution, from crops of the largest.

    Arguments as of `calibrate`. Comes out: the columns of `Engines.columns` for the images that could be read and have
    numbers, and which those are, bool `[N]`.
    """
    return table(self.cropped(items(images), self.resolutions[0]), lambda: self.engines, seen, self._note)

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
    network, note = recalibrated(self.network, resolution, self.cropped(items(images), resolution), batch)
    self._note(note)
    self._kept.put([(resolution, how) for how in unseen.WAYS], network)

  def cropped(self, wanted: Sequence[Item], size: Resolution) -> Iterator[Chunk]:
    """Yields images in chunks, cropped at a size in pixels as evaluation crops them."""
    crop = evaluation_crops(self.network.preprocessing, (size,))
    return chunks(wanted, lambda image: crop(image)[0], size=self._chunk, threads=self._threads)

  def _note(self, line: str) -> None:
    """Tells the user, now and in `notes`; what was told before is not told again."""
    if line not in self.notes:
      self.notes[:] = [*self.notes[-63:], line]
      logging.getLogger(__name__).warning(line)
