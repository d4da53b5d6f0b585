"""The training step of RS-Net beside a plain PyTorch writing of it, in turns on one CPU.

  pip install -e '.[test]'
  python benchmarks/train_step.py --model=resnet18 --batch=8 --json=FILE
  python benchmarks/train_step.py --model=mobilenetv2 --resolutions=96 --rounds=15
  python benchmarks/train_step.py --compiled --without=depthwise,max_pool

All start from the same weights and images (uint8, one array for each resolution, divided by 255 in the step) and
make the same SGD updates; their losses are compared before anything is timed. PyTorch runs eager in its default layout
and in channels_last; `--compiled` adds torch.compile in channels_last. `--without` adds resjax with XLA's own in place
of parts of `resjax/models/cpu.py`. A step is timed to its loss and update; ratios are medians over rounds, with the
quartiles, of resjax's seconds over the other's of the same round: below 1 is faster. `start` is the first step, tracing
and compilation included, and `MiB` what the process grew by at its peak from before it to the end of the second step;
both of a process of its own, with no compilation cache.
"""

import argparse
import dataclasses
import functools
import json
import operator
import os
import pathlib
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests'), str(ROOT / 'benchmarks')]

TOLERANCE = 1e-3  # of the loss, over the first steps: float32 sums in another order
RATE = 0.01
OWN = 'resjax'
TORCH = {
  'eager': {'channels_last': False, 'compiled': False},
  'channels_last': {'channels_last': True, 'compiled': False},
  'compiled': {'channels_last': True, 'compiled': True},
}
# Parts of resjax/models/cpu.py by the name of `--without`: the function there, and XLA's own.
PARTS = {'depthwise': ('depthwise', '_by_xla'), 'max_pool': ('max_pool', 'nn.max_pool')}


def parse() -> argparse.Namespace:
  """The options."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--model', default='resnet18', help='a network that tests/torch_models.py has a twin of')
  parser.add_argument('--resolutions', default='224,192,160,128,96', help='highest first')
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--classes', type=int, default=1000)
  parser.add_argument('--threads', type=int, default=2, help='processors that each may use')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--compiled', action='store_true', help='torch.compile too; takes minutes to start')
  parser.add_argument('--without', default='', help=f'parts that XLA does instead: {", ".join(PARTS)}')
  parser.add_argument('--no-alone', dest='alone', action='store_false', help='no start and memory: one process')
  parser.add_argument('--json', help='write the figures to this file')
  parser.add_argument('--only', help=argparse.SUPPRESS)  # a way in a process of its own
  return parser.parse_args()


def batch_of(options) -> dict:
  """Images of noise for each resolution, uint8 `[B, r, r, 3]`, with labels and numbers."""
  import numpy as np

  rng = np.random.default_rng(0)
  images = tuple(rng.integers(0, 256, (options.batch, r, r, 3), np.uint8) for r in options.resolutions)
  label = rng.integers(0, options.classes, options.batch, np.int32)
  return {'images': images, 'label': label, 'index': np.arange(options.batch, dtype=np.int32)}


def network(options):
  """The PyTorch network that all start from."""
  import torch
  import torch_models

  torch.set_num_threads(options.threads)
  torch.manual_seed(0)
  return torch_models.create(options.model, options.classes)


def resjax_step(options, without: str = '') -> Callable[[], float]:
  """A function that takes a step of resjax's training and returns its loss; `without` a part of PARTS."""
  from unittest import mock

  import jax
  import torch_models

  from resjax import models, switchable
  from resjax.models import cpu
  from resjax.recipes import rsnet_r18
  from resjax.training import run
  from resjax.training.devices import Devices

  config = rsnet_r18.get_config()
  config.model.update({'name': options.model, 'num_classes': options.classes})
  config.update({'resolutions': options.resolutions})
  config.data.flip = 'none'
  config.optimizer.update({'learning_rate': RATE, 'schedule': 'constant'})
  devices = Devices(devices=jax.devices()[:1])
  _, fresh, step = run.make_training(config, devices, 1, 10**6)
  model = models.from_config(config)
  like = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), np_zeros(options.resolutions[0]))
  plain = torch_models.from_torch(dict(network(options).state_dict()), like)
  variables = switchable.share(plain, options.resolutions)

  def start(key):
    state = fresh(key)
    params = variables['params'] | {'alpha': state.params['alpha']}
    return dataclasses.replace(state, params=params, batch_stats=variables['batch_stats'])

  state, batch = devices.create(start, jax.random.key(0)), devices.put(batch_of(options))
  compiled = None

  def take() -> float:
    nonlocal state, compiled
    if compiled is None:
      function, own = PARTS[without] if without else ('depthwise', 'depthwise')
      with mock.patch.object(cpu, function, operator.attrgetter(own)(cpu)):
        compiled = step.lower(state, batch).compile()
    state, metrics = compiled(state, batch)
    jax.block_until_ready(state)
    return float(metrics['loss'])

  return take


def np_zeros(resolution: int):
  """One black image."""
  import numpy as np

  return np.zeros((1, resolution, resolution, 3), np.float32)


def way(options, name: str) -> Callable[[], float]:
  """A function that takes a step of a way, by its name, and returns its loss."""
  if name.startswith(OWN):
    return resjax_step(options, name.removeprefix(f'{OWN} without ') if name != OWN else '')
  import torch_rsnet

  return torch_rsnet.stepper(network(options), batch_of(options), rate=RATE, **TORCH[name])


def alone(options, name: str) -> dict[str, float]:
  """What a way takes in this process to its first step, seconds, and how much memory its first two take, MiB."""
  take = way(options, name)
  before = peak()
  begin = time.perf_counter()
  take()
  start = time.perf_counter() - begin
  take()
  return {'start_s': start, 'mib': peak() - before}


def peak() -> float:
  """The most memory that this process had, MiB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def in_a_process(name: str) -> dict[str, float]:
  """`alone` in a process of its own."""
  command = [sys.executable, __file__, *sys.argv[1:], f'--only={name}']
  return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def losses_agree(ways: dict[str, Callable[[], float]], steps: int = 2) -> None:
  """Ends the program unless the first steps' losses are the same everywhere."""
  found = {name: [take() for _ in range(steps)] for name, take in ways.items()}
  for name, values in found.items():
    for step, (loss, expected) in enumerate(zip(values, found['eager']), 1):
      if not abs(loss - expected) <= TOLERANCE * abs(expected):
        sys.exit(f'error: {name}: loss {loss:.5f} at step {step}, expected {expected:.5f}, that of PyTorch')


def measure(options, ways: dict[str, Callable[[], float]]) -> dict[str, dict]:
  """Seconds of each way's steps, with the quartiles, and resjax's over them."""
  from resjax.measuring import turns

  seconds = turns.seconds(ways, rounds=options.rounds)
  found = {name: {'seconds': turns.spread(spent)} for name, spent in seconds.items()}
  for name in found.keys() - {OWN}:
    key = f'ratio_to_{name.removeprefix(OWN).strip().replace(" ", "_")}'
    found[OWN][key] = turns.ratio(seconds[OWN], seconds[name])
    found[name]['ratio'] = found[OWN][key]
  return found


def main() -> None:
  """Prints the table."""
  options = parse()
  options.resolutions = tuple(map(int, options.resolutions.split(',')))
  names = [OWN, 'eager', 'channels_last', *['compiled'] * options.compiled]
  names += [f'{OWN} without {part}' for part in filter(None, options.without.split(','))]
  if hasattr(os, 'sched_setaffinity'):  # before the libraries start their threads: as many processors for each
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
  os.environ['JAX_PLATFORMS'] = 'cpu'
  if options.only:
    print(json.dumps(alone(options, options.only)))
    return
  apart = {name: in_a_process(name) for name in names} if options.alone else {}
  ways = {name: way(options, name) for name in names}
  losses_agree(ways)
  found = measure(options, ways)
  for name, figures in apart.items():
    found[name].update(figures)
  described = describe(options)
  print(f'{described}\n\n| step | ms | resjax over it [quartiles] | start, s | MiB |\n|---|---|---|---|---|')
  for name, figures in found.items():
    print(row(name, figures))
  if options.json:
    figures = {'what': described, 'model': options.model, 'batch': options.batch, 'ways': found, **found[OWN]}
    pathlib.Path(options.json).write_text(json.dumps(figures, indent=1) + '\n')


def row(name: str, figures: dict) -> str:
  """One line of the table."""
  seconds, ratio = figures['seconds'], figures.get('ratio')
  cells = [name, f'{1e3 * seconds["median"]:,.0f} [{1e3 * seconds["low"]:,.0f}, {1e3 * seconds["high"]:,.0f}]']
  cells.append(f'{ratio["median"]:.2f} [{ratio["low"]:.2f}, {ratio["high"]:.2f}]' if ratio else '1')
  cells += [f'{figures[key]:,.{digits}f}' if key in figures else '–' for key, digits in (('start_s', 1), ('mib', 0))]
  return f'| {" | ".join(cells)} |'


def describe(options) -> str:
  """What was measured, and by which versions."""
  import jax
  import torch

  listed = ', '.join(map(str, options.resolutions))
  versions = f'jax {jax.__version__}, torch {torch.__version__}, Python {platform.python_version()}'
  what = f'{options.model} at {listed} px, {options.batch} images, float32, {options.threads} threads'
  return f'{what}; {options.rounds} rounds; {versions}'


if __name__ == '__main__':
  main()
