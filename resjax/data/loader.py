"""Batches for the training and the evaluation loop, the same for any number of hosts and devices.

The position in the data is a function of the step. Step `s` trains on the positions
`s * batch_size` to `(s + 1) * batch_size` of an endless stream that goes through the source once
per epoch, each time in another order; what is drawn for an image depends on its position alone.
Where a run was extended at step `b`, after `i` images, positions begin at `i + (s - b) * batch_size`.
Of each global batch host `p` of `P` makes the positions `p::P`, and of those its local device `l`
of `L` gets the rows `l::L`, which stand together: host and device are strided slices of the one
batch, so no result depends on how many there are.

Grain makes the batches ahead of time, in threads or in worker processes.
"""

import functools
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import Any

import jax
import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from resjax import logs, telling
from resjax.data import augment
from resjax.data.batches import Batch, EvalBatch, TrainBatch
from resjax.data.crops import evaluation_crops, train_crops
from resjax.data.workers import processes
from resjax.preprocess import Preprocessing

with logs.untouched():  # it imports Orbax, and that logs
  import grain

__all__ = ['Batches', 'eval_batches', 'steps_per_epoch', 'train_batches']


def steps_per_epoch(source: Any, config: ConfigDict) -> int:
  """Returns the number of whole batches in a source.

  Raises:
    ValueError: The source is smaller than a batch.
  """
  if len(source) < config.batch_size:
    raise ValueError(f'config.batch_size: {config.batch_size}, expected at most the {len(source)} training images')
  return len(source) // config.batch_size


def train_batches(
  source: Any,
  config: ConfigDict,
  start_step: int = 0,
  *,
  offset: int = 0,
  process_index: int | None = None,
  process_count: int | None = None,
  local_devices: int | None = None,
) -> 'Batches':
  """Makes this host's part of the training batches, without end.

  Args:
    source: As `resjax.data.sources.create` makes them.
    config: As in configs/default.py; read: batch_size, seed, resolutions, model.num_classes and
      data.
    start_step: Steps that are over.
    offset: In the stream, of what would be step 0: not 0 where the run had another batch size before.
    process_index: Of this host; by default JAX's.
    process_count: Number of hosts; by default JAX's.
    local_devices: Number of this host's devices; by default JAX's.

  Returns:
    An iterator of dicts: `images`, a tuple of uint8 `[B, r, r, 3]`, one for each resolution
    (`config.data.pyramid` 'host') or the largest alone ('device'), as large as a teacher's where
    that is more; `label` int32 `[B]`; `index` int32 `[B]`, the number of the image in the source. An
    unreadable image is replaced by the next readable one of the source and reported, see `Batches`.

  Raises:
    ValueError: `config.batch_size` does not fit the devices or the source.
  """
  steps_per_epoch(source, config)
  index, count, devices = _place(process_index, process_count, local_devices)
  data = config.data
  together = 2 if data.mixup or data.cutmix else 1
  if config.batch_size % (count * devices * together):
    times = 'twice ' * (together - 1)
    why = ', to mix in pairs' * (together - 1)
    raise ValueError(
      f'config.batch_size: {config.batch_size}, expected a multiple of {times}the {count * devices} devices{why}'
    )
  rows = _rows(config.batch_size, index, count, devices, together)
  sizes = _sizes(config, data.pyramid, config.teacher.resolution)
  crop = functools.partial(
    train_crops,
    sizes=sizes,
    crop=data.crop,
    crops=data.crops,
    area=tuple(data.crop_area),
    ratio=tuple(data.crop_ratio),
    max_pixels=data.max_pixels,
    may_shrink=data.pyramid == 'device',
    operations=_operations(config),
  )
  make = TrainBatch(
    source, rows, config.batch_size, config.model.num_classes, sizes, crop,
    seed=config.seed, draws=data.crop != 'full' or data.augment != 'none', max_bad=data.max_bad_images, offset=offset,
  )  # fmt: skip
  workers = processes(config, len(source) * config.epochs)
  return Batches(config, make, range(start_step, sys.maxsize), workers)


def eval_batches(
  source: Any,
  config: ConfigDict,
  *,
  process_index: int | None = None,
  process_count: int | None = None,
  local_devices: int | None = None,
) -> 'Batches':
  """Makes this host's part of the evaluation batches: every image once, on any number of hosts.

  Args:
    source: As `resjax.data.sources.create` makes them.
    config: As in configs/default.py; read: eval, resolutions, model.num_classes and data.
    process_index: Of this host; by default JAX's.
    process_count: Number of hosts; by default JAX's.
    local_devices: Number of this host's devices; by default JAX's.

  Returns:
    An iterator of equally many dicts on every host: `images` as in training, by
    `config.eval.pyramid`; `label` int32 `[B]`; `index` int32 `[B]`, -1 for padding; `mask` float32
    `[B]`, 0 for padding and unreadable images.

  `config.eval.batch_size` is rounded up to a multiple of the devices.
  """
  index, count, devices = _place(process_index, process_count, local_devices)
  batch_size = -(-config.eval.batch_size // (count * devices)) * count * devices
  rows = _rows(batch_size, index, count, devices)
  sizes = _sizes(config, config.eval.pyramid)
  crop = evaluation_crops(Preprocessing.of_config(config), sizes)
  make = EvalBatch(source, rows, batch_size, config.model.num_classes, sizes, crop)
  steps = range(-(-len(source) // batch_size))
  return Batches(config, make, steps, processes(config, len(source)))


class Batches(Iterator[Batch]):
  """Batches in the order of their steps, made ahead by threads or worker processes.

  Attributes:
    bad: The unreadable images met so far: name to reason. Each is logged once.
  """

  def __init__(self, config: ConfigDict, make: Callable[[int], Batch], steps: range, workers: int = 0) -> None:
    """Starts.

    Args:
      config: Of which `data` is read.
      make: Returns the batch of a step, with an entry `bad` besides: pairs of name and reason.
      steps: The steps.
      workers: Processes that make them; 0: threads of this one do.
    """
    self.bad: dict[str, str] = {}
    data = config.data
    self._max_bad = data.max_bad_images
    # A thread makes one batch at a time, so as many must be on their way.
    reading = grain.ReadOptions(num_threads=data.threads, prefetch_buffer_size=data.threads)
    safe = functools.partial(_or_error, make)
    dataset = grain.MapDataset.range(steps.start, steps.stop).map(safe).to_iter_dataset(reading)
    if workers:
      _clean_quietly()
      if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain hands the flags to its workers
      dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers), _end_with_parent)
    self._batches = iter(dataset)

  def __next__(self) -> Batch:
    """Returns the next batch.

    Raises:
      OSError: A worker process is gone.
      ValueError: More than `config.data.max_bad_images` images are unreadable, with their list; or
        a label lies outside the classes.
    """
    try:
      batch = self._next()
      if 'error' in batch:
        raise ValueError(batch['error'])
      self._count(batch.pop('bad'))
    except BaseException:
      self.close()
      raise
    return batch

  def _next(self) -> Batch:
    """The next batch as it was made."""
    try:
      return next(self._batches)
    except RuntimeError as error:
      if 'Worker process was terminated' not in str(error):
        raise
      code = str(error).partition('exit code ')[2].partition('.')[0]
      raise OSError(
        f'config.data.workers: a process that decodes ended with code {code}, as of a kill or for lack of memory; the '
        'same command goes on'
      ) from None

  def close(self) -> None:
    """Ends the threads and worker processes; nothing comes after it."""
    if hasattr(self._batches, 'close'):
      self._batches.close()
    self._batches = iter(())

  def _count(self, bad: list[tuple[str, str]]) -> None:
    """Logs unreadable images and refuses too many."""
    for name, reason in bad:
      if name not in self.bad:
        self.bad[name] = reason
        _warn(f'unreadable image {name}: {reason} ({len(self.bad)} of at most {self._max_bad})')
    if len(self.bad) > self._max_bad:
      names = '; '.join(f'{name}: {reason}' for name, reason in self.bad.items())
      raise ValueError(f'config.data.max_bad_images: {self._max_bad}, but {len(self.bad)} unreadable: {names}')


def _clean_quietly() -> None:
  """Starts the process that removes the batches left in shared memory when all end at once, and lets it say nothing."""
  before = sys.warnoptions[:]
  sys.warnoptions.append(f'ignore::UserWarning:{resource_tracker.__name__}')
  try:
    resource_tracker.ensure_running()
  finally:
    sys.warnoptions[:] = before


def _end_with_parent(*_: int) -> None:
  """Makes a worker end when the main process is gone, also where that was killed, and not before.

  A terminal sends Ctrl-C, and a scheduler its notice, to all processes: the main one is who answers.
  """
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)

  def watch() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # workers have one
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def _or_error(make: Callable[[int], Batch], step: int) -> Batch:
  """The batch of a step, or what is wrong with the data: Grain would add lines to an exception."""
  try:
    return make(step)
  except ValueError as error:
    return {'error': str(error)}


@functools.cache
def _warn(line: str) -> None:
  """Logs a line once in the life of the process: evaluations come back to the same images."""
  logging.warning('%s', telling.printable(line))


def _place(index: int | None, count: int | None, devices: int | None) -> tuple[int, int, int]:
  """This host's number, the number of hosts, and of this host's devices; JAX's where they are not given."""
  return (
    jax.process_index() if index is None else index,
    jax.process_count() if count is None else count,
    jax.local_device_count() if devices is None else devices,
  )


def _rows(size: int, index: int, count: int, devices: int, together: int = 1) -> np.ndarray:
  """The rows of a global batch that this host makes, grouped by its devices; so many neighbours stay together."""
  groups = np.arange(size).reshape(-1, together)[index::count]
  return groups.reshape(-1, devices, together).transpose(1, 0, 2).ravel()


def _operations(config: ConfigDict) -> Callable[..., Any] | None:
  """What draws the operations on a crop, or None."""
  kind, (count, strength) = config.data.augment, config.data.randaugment
  return None if kind == 'none' else functools.partial(augment.draw, kind=kind, count=int(count), strength=strength)


def _sizes(config: ConfigDict, pyramid: str, least: int = 0) -> tuple[int, ...]:
  """The sizes that the host makes: all, or the largest alone, which is no less than the least."""
  return tuple(config.resolutions) if pyramid == 'host' else (max(*config.resolutions, least),)
