"""Images in, logits out, each image at its own resolution: grouped, planned, dispatched together, put back in order."""

import logging
import os
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from resjax.inference import timing
from resjax.inference.buckets import Plan, Planner, closed_sizes
from resjax.inference.runtime import Runtime

_log = logging.getLogger(__name__)


class Result(NamedTuple):
  """What the network says of every image, in the order they came."""

  logits: np.ndarray  # float32 [N, K]
  ran: np.ndarray  # int [N]: the place of the resolution at which the image ran, 0 for the highest


@dataclass
class Counts:
  """What an engine has done so far, warm-up left out."""

  images: int = 0
  batches: int = 0
  fixed: int = 0  # batches of several resolutions that ran at one, where grouping would have cost more
  promoted: int = 0  # images that ran at a higher resolution than their own
  padding: int = 0  # rows that were computed for no image
  compilations: int = 0  # a closed set of programs: stays 0


class Batch(NamedTuple):
  """Crops where the runtime takes rows from them."""

  parts: list[Any]  # of at most max_batch images each
  images: int


class Engine:
  """Runs images at resolutions of their own, by a closed set of compiled programs.

  Attributes:
    runtime: What runs the programs.
    resolutions: Highest first, in pixels, of squares or (height, width); a choice is an index into them.
    buckets: Ascending sizes of the programs' batches.
    costs: The seconds of every program.
    counts: What was done so far.
  """

  def __init__(
    self,
    runtime: Runtime,
    *,
    max_batch: int = 64,
    promote: bool = True,
    strict: bool = False,
    costs_file: str | os.PathLike | None = None,
  ):
    """Compiles every program and measures what it costs.

    Args:
      runtime: What runs the programs.
      max_batch: Images of the largest bucket; more are run in several batches.
      promote: Images may run at a higher resolution than was chosen for them where the cost table says that it is
        faster; all of them at one where grouping loses. False: each runs at its own.
      strict: A compilation after this raises.
      costs_file: JSON where the cost table is looked up and kept; None: it is measured at every start.

    Raises:
      ValueError: `max_batch` is not a positive integer, or the file is not one of cost tables.
    """
    self.runtime = runtime
    self.resolutions = runtime.resolutions
    self.buckets = closed_sizes(max_batch, runtime.multiple)
    self.strict = strict
    runtime.compile(self.buckets)
    self.costs = timing.costs(runtime, self.buckets, costs_file)
    self.promote = promote
    self._planner = Planner(self.costs.seconds, self.buckets)
    self.counts = Counts()
    self._counting = threading.Lock()

  def put(self, images: np.ndarray | jax.Array) -> Batch:
    """Returns crops where the programs take them from; `run` does it itself for images that were not put.

    Args:
      images: uint8 `[N, H, W, 3]`, as the runtime's crops are.

    Raises:
      ValueError: The images have another shape or type.
    """
    height, width, channels = self.runtime.shape
    if images.dtype != np.uint8 or images.shape[1:] != (height, width, channels):
      raise ValueError(f'images: got {images.dtype} {images.shape}, expected uint8 (N, {height}, {width}, {channels})')
    step = self.buckets[-1]
    if len(images) > step:
      images = np.asarray(images)  # to cut an array of JAX's into parts would compile
    return Batch([self.runtime.put(images[i : i + step]) for i in range(0, len(images), step)], len(images))

  def plan(self, choice: np.ndarray, *, promote: bool | None = None) -> Plan:
    """Returns how a batch of at most max_batch images is run.

    Args:
      choice: int `[N]`.
      promote: Other than the engine's.
    """
    return self._planner.plan(choice, promote=self.promote if promote is None else promote)

  def run(self, images: np.ndarray | jax.Array | Batch, choice: np.ndarray, *, promote: bool | None = None) -> Result:
    """Returns the logits of every image and the resolution at which it ran.

    All programs of all batches are dispatched before the first is waited for.

    Args:
      images: uint8 `[N, H, W, 3]`, or what `put` has returned for them.
      choice: int `[N]`: for each image a place among the resolutions, 0 for the highest.
      promote: Other than the engine's.

    Raises:
      ValueError: The images have another shape or type, or the choice is not one place for each of them.
      RuntimeError: A program was compiled, and the engine is strict.
    """
    compiled = self.runtime.compiled
    batch = images if isinstance(images, Batch) else self.put(images)
    choice = self._checked(choice, batch.images)
    logits = np.empty((batch.images, self.runtime.num_classes), np.float32)
    ran = np.empty(batch.images, int)
    pending, step = [], self.buckets[-1]
    for start, part in zip(range(0, batch.images, step), batch.parts, strict=True):
      plan = self.plan(choice[start : start + step], promote=promote)
      ran[start : start + step] = plan.ran
      self._count(plan, choice[start : start + step])
      for group in plan.groups:
        out = self.runtime.dispatch(part, group.place, group.bucket, group.rows)
        pending.append((start + group.rows, out))
    for rows, out in pending:
      logits[rows] = np.asarray(out)[: len(rows)]
    self._no_compilation_since(compiled)
    return Result(logits, ran)

  def _checked(self, choice, images):
    choice = np.asarray(choice)
    if choice.shape != (images,) or (images and not np.issubdtype(choice.dtype, np.integer)):
      raise ValueError(f'choice: got {choice.dtype} {choice.shape}, expected integers ({images},)')
    places = len(self.resolutions)
    if images and not (choice.min() >= 0 and choice.max() < places):
      wrong = choice[(choice < 0) | (choice >= places)][0]
      raise ValueError(f'choice: got {wrong}, expected 0 to {places - 1}, one of the {places} resolutions')
    return choice.astype(int)

  def _count(self, plan: Plan, choice: np.ndarray) -> None:
    """Adds a batch to the counts; the first that falls back to one resolution is logged."""
    counts, at_one = self.counts, len(set(choice)) > 1 and len(set(plan.ran)) == 1
    with self._counting:  # threads may run batches at once
      counts.batches += 1
      counts.images += len(choice)
      counts.promoted += int((plan.ran != choice).sum())
      counts.padding += sum(g.bucket - len(g.rows) for g in plan.groups)
      counts.fixed += at_one
    if at_one and counts.fixed == 1:
      resolution = self.resolutions[plan.ran[0]]
      _log.info('%d images of several resolutions run at %s: faster than in groups', len(choice), resolution)

  def _no_compilation_since(self, compiled: int) -> None:
    compiled = self.runtime.compiled - compiled
    self.counts.compilations += compiled
    if compiled and self.strict:
      raise RuntimeError(f'strict: {compiled} programs were compiled after the warm-up, expected none')
