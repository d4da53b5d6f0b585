"""The parts of gpu.py, each in a process of its own, which gpu.py starts with their options as JSON.

A part prints each figure as soon as it is found, as a line of JSON, so that those found before a failure or before its
time is over are kept.
"""

import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable
from unittest import mock

import gpu_train
import jax
import jax.numpy as jnp
import numpy as np
from gpu_figures import seconds_of, tell
from ml_collections import ConfigDict

from resjax.measuring import turns

ROOT = pathlib.Path(__file__).parents[1]


def of_function(function: Callable, arguments: tuple, options: dict) -> list[float]:
  """Returns the seconds of a compiled function of arrays, see `seconds_of`."""
  compiled, out = jax.jit(function), None

  def take() -> None:
    nonlocal out
    out = compiled(*arguments)

  return seconds_of(take, lambda: jax.block_until_ready(out), options)


def rates(amount: float, seconds: list[float]) -> dict[str, float]:
  """Returns `amount` per second: `{'median', 'low', 'high'}`, with the quartiles."""
  return turns.spread([amount / second for second in seconds])


def ceiling(options: dict) -> None:
  """What the device can do at most: matrix products and a copy. Reads `size` and `copy_mib`."""
  n = options['size']
  keys = jax.random.split(jax.random.key(0))
  kinds = (('bfloat16', 'bfloat16', None), ('float32', 'float32', None), ('float32, highest', 'float32', 'highest'))
  for name, dtype, precision in kinds:
    left, right = (jax.random.normal(key, (n, n), dtype) for key in keys)
    found = of_function(functools.partial(jnp.matmul, precision=precision), (left, right), options)
    tell(what='matmul', kind=name, size=n, flops=rates(2 * n**3, found))
  values = jax.random.normal(keys[0], (options['copy_mib'] * 2**19,), 'bfloat16')
  tell(what='copy', bytes=rates(2 * values.nbytes, of_function(lambda x: x + 1, (values,), options)))


def layers(options: dict) -> None:
  """Layers that are written otherwise on a CPU, forward and backward, as XLA has them and as on a CPU.

  Reads `batch` and `size`, of the images at the max-pool.
  """
  from resjax.models import cpu

  batch, size = options['batch'], options['size']
  pool = functools.partial(cpu.max_pool, window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))

  def depthwise(x, kernel):
    numbers = ('NHWC', 'HWIO', 'NHWC')
    ones = ((1, 1), (1, 1))
    return cpu.conv_general_dilated(x, kernel, (1, 1), ones, dimension_numbers=numbers, feature_group_count=x.shape[-1])

  shapes = {
    'max_pool 3x3 / 2': (pool, [(batch, size, size, 64)]),
    'depthwise 3x3': (depthwise, [(batch, size // 2, size // 2, 144), (3, 3, 1, 144)]),
  }
  for name, (layer, wanted) in shapes.items():
    arguments = tuple(jax.random.normal(jax.random.key(i), shape, 'bfloat16') for i, shape in enumerate(wanted))
    back = jax.random.normal(jax.random.key(9), jax.eval_shape(layer, *arguments).shape, 'bfloat16')
    for own in (False, True):

      def both_ways(back, *arguments, layer=layer):
        out, pull = jax.vjp(layer, *arguments)
        return out, pull(back)

      chosen = (lambda *given, cpu, **_: cpu(*given)) if own else (lambda *given, default, **_: default(*given))
      with mock.patch('jax.lax.platform_dependent', chosen):
        found = of_function(both_ways, (back, *arguments), options)
      tell(what=name, own=own, batch=batch, ms=turns.spread([1e3 * second for second in found]))


def routing(options: dict) -> None:
  """What a mix of resolutions saves, the network alone: the machinery of `resjax benchmark`, the buckets chosen here.

  Reads `model`, `resolutions`, `mix`, `buckets`, `batches`, `classes`, `dtype` and `rounds`.
  """
  from types import SimpleNamespace

  from resjax import models, rsnet, trained
  from resjax.inference.engines import Engines
  from resjax.inference.runtimes.xla import XlaRuntime
  from resjax.measuring import benchmark

  config = gpu_train.config_of(options)
  model = models.from_config(config)
  network = trained.of_config(config, jax.jit(lambda key: rsnet.init(model, config, key))(jax.random.key(0)))
  begin = time.perf_counter()
  sizes = tuple(options['buckets'])
  with mock.patch('resjax.inference.engine.closed_sizes', lambda most, multiple: sizes):
    one = functools.partial(XlaRuntime, devices=jax.local_devices()[:1])
    engines = Engines(network, runtime=one, max_batch=sizes[-1])
  tell(what='ready', start_s=time.perf_counter() - begin, buckets=sizes, costs=engines.engine.costs.seconds.tolist())
  side = options['resolutions'][0]
  crops = np.random.default_rng(0).integers(0, 256, (sizes[-1], side, side, 3), np.uint8)
  pool = SimpleNamespace(crops=crops, rows=lambda slots: slots % len(crops))
  for batch in options['batches']:
    found = benchmark.run(
      engines,
      pool,
      lambda count: [benchmark.by_mix(engines, options['mix'], 'network', count)],
      scopes=['network'],
      batches=[batch],
      rounds=options['rounds'],
      images=batch,
    )
    tell(what='routed', batch=batch, **found)


def drnet(options: dict) -> None:
  """DRNet's step end to end, its first losses here and on the CPU; then its quickstart. Reads `steps`, `quickstart`."""
  from resjax.recipes import drnet_quickstart

  config = drnet_quickstart.get_config()
  config.drnet.frozen = False
  config.drnet.start = 'scratch'
  config.update(options.get('config', {}))
  expected = first_losses(config, jax.devices('cpu')[0], options['steps'])
  for precision in ('highest', None):  # of matrix products and convolutions; None: what the device does unasked
    with jax.default_matmul_precision(precision):
      losses = first_losses(config, jax.devices()[0], options['steps'])
    gaps = [abs(a - b) / abs(b) for a, b in zip(losses, expected)]
    tell(what='first losses', precision=precision or 'default', cpu=expected, here=losses, largest_difference=max(gaps))
  if options['quickstart']:
    tell(what='quickstart', **quickstart())


def first_losses(config: ConfigDict, device: jax.Device, steps: int) -> list[float]:
  """Returns the losses of the first steps on one device, on a batch of noise that is the same for all."""
  with jax.default_device(device):
    step = gpu_train.Step(config, 64, device=device)
    return [step.loss() for _ in range(steps)]


def quickstart() -> dict:
  """Runs the recipe drnet_quickstart as a user does; returns its accuracies and its seconds."""
  import subprocess
  import tempfile

  with tempfile.TemporaryDirectory() as folder:
    begin = time.perf_counter()
    command = [sys.executable, ROOT / 'main.py', '--config=configs/drnet_quickstart.py', f'--workdir={folder}/run']
    subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr)
    seconds = time.perf_counter() - begin
    result = json.loads(pathlib.Path(folder, 'run', 'results.json').read_text())
  top1 = {size: row['top1'] for size, row in result['resolutions'].items()}
  return {'seconds': seconds, 'train_s': result['train_seconds'], 'top1': top1, 'device': result['versions']['device']}


def torch_step(options: dict) -> None:
  """See gpu_torch.py, which is imported where PyTorch is wanted."""
  import gpu_torch

  gpu_torch.torch_step(options)


PARTS = {
  'ceiling': ceiling,
  'layers': layers,
  'routing': routing,
  'drnet': drnet,
  'train': gpu_train.train,
  'torch': torch_step,
}


if __name__ == '__main__':
  PARTS[sys.argv[1]](json.loads(sys.argv[2]))
