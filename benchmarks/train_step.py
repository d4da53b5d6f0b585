"""The training step of RS-Net beside a plain PyTorch writing of it, in turns on one CPU.

  pip install -e '.[test]'
  python benchmarks/train_step.py --model=resnet18 --batch=8 --starts=3 --json=FILE
  python benchmarks/train_step.py --model=mobilenetv2 --resolutions=96 --rounds=15
  python benchmarks/train_step.py --compiled --without=depthwise,pointwise,max_pool

All start from the same weights and images (uint8, one array for each resolution, divided by 255 in the step) and make
the same SGD updates; their losses are compared before anything is timed. PyTorch runs eager in its default layout and
in channels_last; `--compiled` adds torch.compile in channels_last. `--without` adds resjax with XLA's own in place of
parts of `resjax/models/cpu/`. A step is timed to its loss and update; of a turn's two steps the second counts, for
PyTorch's threads spin a while after their last work, on a processor of whoever's turn is next. Ratios are medians over
rounds, with the quartiles, of resjax's seconds over the other's of the same round: below 1 is faster. Each way is a
process of its own as its user starts it, `--starts` times: resjax as `resjax train`, which lets glibc keep freed
memory (`compiling.keep_memory`); `--hugepages` adds both with `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` (PyTorch:
THP_MEM_ALLOC_ENABLE=1 too). `CPU` is the same ratio in CPU seconds, which other work on the machine disturbs less.
`start` is the first step, tracing and compilation included, without a compilation cache, and `MiB` what the process
grew by at its peak from before it to the end of the second step.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import pkgutil
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests'), str(ROOT / 'benchmarks')]

TOLERANCE = 1e-3  # of the loss, over the first steps: float32 sums in another order
RATE = 1e-4  # a larger step, and PyTorch's own layouts part by more than that: BatchNorm of eight images
OWN = 'resjax'
TORCH = {
  'eager': {'channels_last': False, 'compiled': False},
  'channels_last': {'channels_last': True, 'compiled': False},
  'compiled': {'channels_last': True, 'compiled': True},
}
# Parts of resjax/models by the name of `--without`: what is replaced, and by what of XLA's own.
PARTS = {
  'depthwise': ('resjax.models.cpu.conv.depthwise', 'resjax.models.cpu.depthwise._by_xla'),
  'pointwise': ('resjax.models.cpu.conv.pointwise', 'resjax.models.cpu.pointwise._by_xla'),
  'max_pool': ('resjax.models.cpu.max_pool', 'flax.linen.max_pool'),
}


def parse() -> argparse.Namespace:
  """The options."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--model', default='resnet18', help='a network that tests/torch_models.py has a twin of')
  parser.add_argument('--resolutions', default='224,192,160,128,96', help='highest first')
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--classes', type=int, default=1000)
  parser.add_argument('--threads', type=int, default=2, help='processors that each may use')
  parser.add_argument('--rounds', type=int, default=7, help='of each start')
  parser.add_argument('--starts', type=int, default=1, help='of all processes, whose speed differs from one to another')
  parser.add_argument('--compiled', action='store_true', help='torch.compile too; takes minutes to start')
  parser.add_argument('--without', default='', help=f'parts that XLA does instead: {", ".join(PARTS)}')
  parser.add_argument('--hugepages', action='store_true', help='with memory in huge pages too (Linux, glibc)')
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

  from resjax import compiling, models, switchable
  from resjax.recipes import rsnet_r18
  from resjax.training import run
  from resjax.training.devices import Devices

  compiling.keep_memory()  # as `resjax train` does
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
      replaced, own = PARTS[without or 'depthwise']
      with mock.patch(replaced, pkgutil.resolve_name(own if without else replaced)):
        compiled = step.compiled(state, batch)
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

  take = torch_rsnet.stepper(network(options), batch_of(options), rate=RATE, **TORCH[name])
  return lambda: take().item()


def serve(options, name: str) -> None:
  """Takes a step of a way for each line on the standard input; the first answer is what the first two steps took."""
  take = way(options, name)
  before, begin = peak(), time.perf_counter()
  losses = [take()]
  start = time.perf_counter() - begin
  losses.append(take())
  print(json.dumps({'losses': losses, 'start_s': start, 'mib': peak() - before}), flush=True)
  for _ in sys.stdin:
    begin = time.process_time()
    take()
    print(time.process_time() - begin, flush=True)


def peak() -> float:
  """The most memory that this process had, MiB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


class Process:
  """A way in a process of its own, as a user runs it: with its memory and its threads."""

  def __init__(self, name: str, environment: dict[str, str]):
    command = [sys.executable, __file__, *sys.argv[1:], f'--only={name}']
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    self.process = subprocess.Popen(command, env=os.environ | environment, **pipes)
    self.first = json.loads(self.answer())

  def answer(self) -> str:
    """The next line."""
    line = self.process.stdout.readline()
    return line or sys.exit('error: a way ended before its time; what it said stands above')

  def step(self) -> float:
    """Takes a step; returns its CPU seconds."""
    self.process.stdin.write('\n')
    self.process.stdin.flush()
    return float(self.answer())

  def end(self) -> None:
    """Ends it."""
    self.process.kill()
    self.process.communicate()


def losses_agree(ways: dict[str, Process]) -> None:
  """Ends the program unless the first steps' losses are the same everywhere."""
  for name, process in ways.items():
    for step, (loss, expected) in enumerate(zip(process.first['losses'], ways['eager'].first['losses']), 1):
      if not abs(loss - expected) <= TOLERANCE * abs(expected):
        sys.exit(f'error: {name}: loss {loss:.5f} at step {step}, expected {expected:.5f}, that of PyTorch')


def take_turns(options, ways: dict[str, Process]) -> dict[str, dict]:
  """What each way's first steps told, with the seconds and the CPU seconds of its steps, one of each turn's two."""
  from resjax.measuring import turns

  losses_agree(ways)
  found = {name: {**process.first, 'spent': [], 'cpu': []} for name, process in ways.items()}
  for number, name in turns.order(list(ways), rounds=options.rounds):
    ways[name].step()  # threads that the way before left spinning sleep after it, and its own are awake
    begin = time.perf_counter()
    cpu = ways[name].step()
    if number >= 0:
      found[name]['spent'].append(time.perf_counter() - begin)
      found[name]['cpu'].append(cpu)
  for process in ways.values():
    process.end()
  return found


def measure(starts: list[dict[str, dict]]) -> dict[str, dict]:
  """Seconds of each way's steps over all starts, with the quartiles, and resjax's over them."""
  from resjax.measuring import turns

  def all_of(name: str, key: str) -> list[float]:
    return [value for start in starts for value in start[name][key]]

  def median(name: str, key: str) -> float:
    return statistics.median(start[name][key] for start in starts)

  found = {name: {'seconds': turns.spread(all_of(name, 'spent'))} for name in starts[0]}
  for name, figures in found.items():
    figures.update({'losses': starts[0][name]['losses'], **{key: median(name, key) for key in ('start_s', 'mib')}})
    figures['of_starts'] = [statistics.median(start[name]['spent']) for start in starts]
    if name != OWN:
      key = f'ratio_to_{name.removeprefix(OWN).strip(" ,").replace(",", "").replace(" ", "_")}'
      found[OWN][key] = figures['ratio'] = turns.ratio(all_of(OWN, 'spent'), all_of(name, 'spent'))
      figures['cpu_ratio'] = turns.ratio(all_of(OWN, 'cpu'), all_of(name, 'cpu'))
  return found


def main() -> None:
  """Prints the table."""
  options = parse()
  options.resolutions = tuple(map(int, options.resolutions.split(',')))
  skipped = {}
  if options.compiled and not any(map(shutil.which, (os.environ.get('CXX', 'g++'), 'clang++'))):
    skipped['compiled'] = 'there is no C++ compiler'
  names = [OWN, 'eager', 'channels_last', *['compiled'] * (options.compiled and not skipped)]
  names += [f'{OWN} without {part}' for part in filter(None, options.without.split(','))]
  if hasattr(os, 'sched_setaffinity'):  # before the libraries start their threads: as many processors for each
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
  os.environ['JAX_PLATFORMS'] = 'cpu'
  if options.only:
    serve(options, options.only)
    return
  import cpu_tables
  import figures

  starts = []
  for _ in range(options.starts):
    ways = {name: Process(name, {}) for name in names}
    if options.hugepages:
      tuned = {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1', 'THP_MEM_ALLOC_ENABLE': '1'}
      ways |= {f'{name}, huge pages': Process(name, tuned) for name in (OWN, 'eager', 'channels_last')}
    starts.append(take_turns(options, ways))
  found = measure(starts)
  kept = figures.described('jax', 'torch') | {'note': describe(options), 'skipped': skipped}
  kept |= {'model': options.model, 'batch': options.batch, 'ways': found, **found[OWN]}
  print('\n'.join(cpu_tables.training([kept])))
  if options.json:
    pathlib.Path(options.json).write_text(json.dumps(kept, indent=1) + '\n')


def describe(options) -> str:
  """What was measured."""
  listed = ', '.join(map(str, options.resolutions))
  what = f'{options.model} at {listed} px, {options.batch} images, float32, {options.threads} threads'
  return f'{what}; {options.rounds} rounds' + f' of {options.starts} starts' * (options.starts > 1)


if __name__ == '__main__':
  main()
