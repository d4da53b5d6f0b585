"""The part of gpu.py that trains: RS-Net's step, its memory, its kernels, and its batches' way from the host."""

import contextlib
import copy
import os
import pathlib
import tempfile
import time
from collections import Counter

import jax
import numpy as np
from gpu_figures import seconds_of, tell
from ml_collections import ConfigDict

from resjax import macs, models
from resjax.data import loader, sources
from resjax.measuring import turns
from resjax.recipes import default
from resjax.training import run, two_pass
from resjax.training.devices import Devices
from resjax.training.window import Window

KERNELS = 40  # of a profile that are kept, those that take longest


def config_of(options: dict) -> ConfigDict:
  """Returns a run's config. Reads `model`, `classes`, `resolutions`, `dtype`, and `way`, if any."""
  config = default.get_config()
  config.model.update({'name': options['model'], 'num_classes': options['classes'], 'dtype': options['dtype']})
  config.resolutions = tuple(options['resolutions'])
  way = options.get('way', 'joint')
  if way == 'two_pass':
    config.memory = way
  elif way != 'joint':
    config.remat = way.removeprefix('remat ')
  return config


class Step:
  """A run's training step on one device, with a state and a batch of noise that stay there.

  Attributes:
    start_s: Seconds of the first step, with all tracing and compilation.
    losses: Of the first step.
  """

  def __init__(self, config: ConfigDict, batch: int, device: jax.Device | None = None):
    """Takes the first step."""
    self.config, self.devices = config, Devices(devices=[device or jax.devices()[0]])
    config.batch_size = batch
    _, fresh, self.step = run.make_training(config, self.devices, 5_004, 600_480)
    self.state = self.devices.create(fresh, jax.random.key(0))
    rng = np.random.default_rng(0)
    side = config.resolutions[0]
    host = {
      'images': (rng.integers(0, 256, (batch, side, side, 3), np.uint8),),
      'label': rng.integers(0, config.model.num_classes, batch, np.int32),
      'index': np.arange(batch, dtype=np.int32),
    }
    self.batch, self.metrics = self.devices.put(host), {}
    begin = time.perf_counter()
    self.planned = None
    if not isinstance(self.step, two_pass.TwoPass):
      self.step = self.step.compiled(self.state, self.batch)
      memory = self.step.program.memory_analysis()
      self.planned = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    self.first = self.loss()
    self.start_s = time.perf_counter() - begin

  def take(self, batch=None) -> None:
    """Starts a step on this batch, by default the one that stays."""
    self.state, self.metrics = self.step(self.state, self.batch if batch is None else batch)

  def wait(self) -> None:
    """Returns when the steps are done."""
    jax.block_until_ready((self.state, self.metrics))

  def loss(self) -> float:
    """Takes a step and returns its loss."""
    self.take()
    return float(self.metrics['loss'])


def train(options: dict) -> None:
  """The training step of `resjax train` at several batch sizes, smallest first: peaks of memory never fall.

  Reads what `config_of` does, `batches`, and whether to look at the batches' way through the `loader` and a `profile`.
  """
  for batch in options['batches']:
    step = None  # the memory of the one before is free
    config = config_of(options)
    try:
      step = Step(config, batch)
      found = seconds_of(step.take, step.wait, options)
    except jax.errors.JaxRuntimeError as error:
      tell(what='step', batch=batch, error=str(error)[:300])
      break
    counted = 3 * 2 * batch * sum(macs.of_model(models.from_config(config), size) for size in config.resolutions)
    peak = (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use')
    tell(
      what='step',
      way=options.get('way', 'joint'),
      batch=batch,
      ms=turns.spread([1e3 * second for second in found]),
      images_per_s=turns.spread([batch / second for second in found]),
      flops=turns.spread([counted / second for second in found]),
      start_s=step.start_s,
      peak_bytes=peak,
      planned_bytes=step.planned,
      loss=[step.first, step.loss()],
    )
    if options.get('loader'):
      tell(what='loader', batch=batch, **through_loader(step, turns.spread(found)['median'], options))
    if options.get('profile'):
      tell(what='profile', batch=batch, ms=kernels(step))


class Silent:
  """Takes what a run says, and says nothing."""

  images_per_second = None

  def scalars(self, *_) -> None:
    """Nothing."""

  def update(self, *_) -> None:
    """Nothing."""


def through_loader(step: Step, resident: float, options: dict) -> dict:
  """Returns the share of its time that the device waits while batches come from the host, as in `resjax train`.

  Args:
    step: That was timed.
    resident: Its seconds with the batch on the device.
    options: Reads `loader_steps`, and `data`, a folder `train/CLASS/*.jpg`, or '': images of noise in memory.
  """
  config, steps = copy.deepcopy(step.config), options['loader_steps']
  config.data.update({'source': 'fake', 'size': 4 * config.batch_size, 'crop': 'full'})
  if options.get('data'):
    classes = len(os.listdir(pathlib.Path(options['data'], 'train')))
    config.model.num_classes = classes
    config.data.update({'source': 'folder', 'dir': options['data'], 'crop': 'random_resized', 'cache': 'memory'})
  config.data.threads = min(16, os.cpu_count() or 1)
  source = sources.create(config, 'train')
  with contextlib.closing(loader.train_batches(source, config, local_devices=1)) as batches:
    next(batches)
    begin = time.perf_counter()
    for _ in range(steps):
      next(batches)
    alone = (time.perf_counter() - begin) / steps
  window = Window(Silent(), Silent(), 50)
  with contextlib.closing(loader.train_batches(source, config, local_devices=1)) as batches:
    for number in range(-steps // 4, steps):  # as training.loop does; the first do not count
      if number == 0:
        step.wait()
        begin = time.perf_counter()
      step.take(step.devices.put(next(batches)))
      window.add(number, step.metrics)
    step.wait()
    spent = (time.perf_counter() - begin) / steps
  return {
    'source': config.data.source,
    'threads': config.data.threads,
    'host_images_per_s': config.batch_size / alone,
    'images_per_s': config.batch_size / spent,
    'idle_share': 1 - resident / spent,
  }


def kernels(step: Step) -> dict[str, float]:
  """Returns the milliseconds of one step's kernels by name, those that take longest; empty without a GPU's profile."""
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      step.take()
      step.wait()
    file = next(pathlib.Path(folder).rglob('*.xplane.pb'))
    profile = jax.profiler.ProfileData.from_file(str(file))
    spent: Counter[str] = Counter()
    for plane in profile.planes:
      for line in plane.lines if 'GPU' in plane.name else ():
        if line.name.startswith('Stream'):
          for event in line.events:
            spent[event.name] += event.duration_ns / 1e6
  return dict(spent.most_common(KERNELS)) | {'all': sum(spent.values())}
