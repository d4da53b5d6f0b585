"""Memory and time of one training step: `config.memory` 'joint', 'two_pass', and the largest resolution alone.

  python benchmarks/memory.py                                     # ResNet-18, 224 to 96 px, 8 images
  python benchmarks/memory.py --batch=32 --rounds=0               # memory only: nothing is run
  python benchmarks/memory.py --method=drnet --resolutions 224 168 112    # DRNet's dense step
  python benchmarks/memory.py --topology=v5e-8 --batch=64         # as compiled for a TPU that is not there (libtpu)
  python benchmarks/memory.py --batch=64 --only=two_pass          # on a GPU: peak bytes of this way alone

Memory is what XLA's analysis of the compiled programs says for one device: the largest program's temporaries, and with
them all else that is alive beside the state and the batch while it runs (gradients, logits, running statistics that are
handed on). 'joint' is one program; 'two_pass' has one for each resolution and pass, and the update. Times are medians
over rounds in which all ways take turns, lowest and highest in brackets; × is the median of the rounds' ratios.
"""

import argparse
import importlib.metadata
import math
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from configs import default
from resjax import compiling
from resjax.planning import needs, topology
from resjax.training import run
from resjax.training.devices import Devices

MIB = 2**20
WAYS = ('joint', 'two_pass', 'largest alone')


def config_of(way: str, options: argparse.Namespace) -> ConfigDict:
  """The run's config that a row of the table stands for."""
  config = default.get_config()
  config.model.name = options.model
  config.resolutions = options.resolutions[:1] if way == 'largest alone' else options.resolutions
  config.memory = 'two_pass' if way == 'two_pass' else 'joint'
  if way != 'largest alone':
    config.method, config.drnet.start = options.method, 'scratch'
  return config


def stepper(way: str, options: argparse.Namespace, devices: Devices) -> Callable[[], float]:
  """A function that takes a training step of a way and returns its seconds."""
  config = config_of(way, options)
  _, fresh, step = run.make_training(config, devices, 1, 100)
  rng = np.random.default_rng(0)
  shapes = needs.batch_of(config, options.batch * len(devices.devices))
  batch = devices.put(jax.tree.map(lambda x: rng.integers(0, 256, x.shape, x.dtype), shapes))
  state = devices.create(fresh, jax.random.key(0))

  def take() -> float:
    nonlocal state
    start = time.perf_counter()
    state, metrics = step(state, batch)
    jax.block_until_ready((state, metrics))
    return time.perf_counter() - start

  return take


def row(way: str, need: needs.Need, base: needs.Need, times: dict[str, list[float]]) -> str:
  """One line of the table."""
  if not need.programs:
    return f'| {way} | does not fit: at least {need.memory / MIB:,.0f} MiB |'
  cells = [way, str(len(need.programs))]
  for size, alone in zip(sizes(need), sizes(base), strict=True):
    cells += [f'{size / MIB:,.1f}', f'{size / alone:.2f}']
  if times.get(way):
    milliseconds = [1000 * t for t in times[way]]
    cells.append(f'{statistics.median(milliseconds):,.0f} ({min(milliseconds):,.0f}–{max(milliseconds):,.0f})')
    ratios = [t / j for t, j in zip(times[way], times.get('joint', []), strict=False)]
    cells.append(f'{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})' if ratios else '–')
  return '| ' + ' | '.join(cells) + ' |'


def sizes(need: needs.Need) -> tuple[int, int]:
  """Bytes of the largest program's temporaries; and with all else beside the state and the batch."""
  if not need.programs:
    return math.nan, math.nan
  beside = [p.memory - p.code - need.state - need.batch for p in need.programs]
  return max(p.temporaries for p in need.programs), max(beside)


def parse() -> argparse.Namespace:
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--model', default='resnet18')
  parser.add_argument('--method', choices=('rsnet', 'drnet'), default='rsnet')
  parser.add_argument('--resolutions', type=int, nargs='+', default=[224, 192, 160, 128, 96], help='highest first')
  parser.add_argument('--batch', type=int, default=8, help='images on each device')
  parser.add_argument('--rounds', type=int, default=7, help='0: nothing is run')
  parser.add_argument('--only', choices=WAYS, help='one way alone, with the peak that the device itself reports')
  parser.add_argument('--topology', default='', help='such as v5e-8: compiled for it, nothing is run')
  options = parser.parse_args()
  options.resolutions = tuple(options.resolutions)
  options.rounds = 0 if options.topology else options.rounds
  return options


def main() -> None:
  """Compiles all ways, runs them in turns and prints the table."""
  options = parse()
  compiling.keep_compiled_programs()  # what is compiled for its memory is not compiled again to be run
  devices = topology.devices_of(options.topology) if options.topology else jax.devices()[:1]
  ways = [way for way in WAYS if options.only in (None, way)]
  compiled = {way: needs.need(config_of(way, options), devices, options.batch) for way in ways}
  takes = {way: stepper(way, options, Devices(devices=devices)) for way in ways} if options.rounds else {}
  times = {way: [] for way in takes}
  for i in range(options.rounds + 1):
    for way, take in takes.items():
      seconds = take()
      if i:  # the first round warms up
        times[way].append(seconds)
  where = options.topology or devices[0].device_kind
  listed = ', '.join(map(str, options.resolutions))
  what = f'{options.method}, {options.model} at {listed}'
  print(f'{what}, {options.batch} images on each device, float32; {options.rounds} rounds')
  versions = [f'{name} {importlib.metadata.version(name)}' for name in ('jax', 'jaxlib', 'flax')]
  print(f'{where}, {platform.machine()}, Python {platform.python_version()}, {", ".join(versions)}\n')
  timed = ' ms | × joint |' if options.rounds else ''
  print(f'| way | programs | temporaries, MiB | × alone | with what is handed on, MiB | × alone |{timed}')
  print('|---|---|---|---|---|---|' + ('---|---|' if options.rounds else ''))
  base = compiled.get('largest alone', compiled[ways[0]])
  for way, need in compiled.items():
    print(row(way, need, base, times))
  peak = (devices[0].memory_stats() or {}).get('peak_bytes_in_use') if options.only and options.rounds else None
  if peak:
    print(f'\npeak bytes in use, state and batch included: {peak / MIB:,.0f} MiB')


if __name__ == '__main__':
  main()
