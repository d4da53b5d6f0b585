"""Memory and time of one RS-Net step: `config.memory` 'joint', 'two_pass', and the largest resolution alone.

  python benchmarks/memory.py                                     # ResNet-18, 224 to 96 px, 8 images
  python benchmarks/memory.py --batch=32 --rounds=0               # memory only: nothing is run
  python benchmarks/memory.py --topology=v5e:2x2 --batch=64       # as compiled for a TPU that is not there (libtpu)
  python benchmarks/memory.py --batch=64 --only=two_pass          # on a GPU: peak bytes of this way alone

Memory is what XLA's analysis of the compiled programs says for one device: the largest program's temporaries, and with
them all else that is alive beside the state and the batch while it runs (gradients, logits, running statistics that are
handed on). 'joint' is one program; 'two_pass' has one for each resolution and pass, and the update. Times are medians
over rounds in which all ways take turns, lowest and highest in brackets; × is the median of the rounds' ratios.
"""

import argparse
import dataclasses
import importlib.metadata
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from configs import default
from resjax.training import run, two_pass
from resjax.training.devices import Devices

MIB = 2**20
WAYS = ('joint', 'two_pass', 'largest alone')


@dataclasses.dataclass(frozen=True)
class Program:
  """One compiled program: its temporaries, and what else is alive beside the state and the batch, in bytes."""

  name: str
  temporary: int
  carried: int
  call: Callable[..., Any]


def config_of(way: str, options: argparse.Namespace) -> ConfigDict:
  """The run's config that a row of the table stands for."""
  config = default.get_config()
  config.model.name = options.model
  config.resolutions = options.resolutions[:1] if way == 'largest alone' else options.resolutions
  config.memory = 'two_pass' if way == 'two_pass' else 'joint'
  return config


def compile_step(name: str, program: Any, args: tuple[Any, ...], known: int) -> tuple[Program, Any]:
  """Compiles a program, whose first `known` arguments are state or batch; also returns the shapes of its results."""
  compiled = program.lower(*args).compile()
  analysis = compiled.memory_analysis()
  new = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
  handed_on = sum(leaf.dtype.itemsize * local_size(leaf) for leaf in jax.tree.leaves(args[known:]))
  shapes = jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    jax.eval_shape(program, *args),
    compiled.output_shardings,
  )
  return Program(name, analysis.temp_size_in_bytes, new + handed_on, compiled), shapes


def placed(tree: Any, sharding: Any) -> Any:
  """The shapes of arrays, and where they stand."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def local_size(leaf: Any) -> int:
  """The number of an array's elements on one device."""
  return int(np.prod(leaf.sharding.shard_shape(leaf.shape)))


def programs_of(step: Any, state: Any, batch: Any) -> tuple[list[Program], Callable[..., Any]]:
  """Compiles a training step for these shapes: its programs, and the step made of them."""
  programs = []

  def compiling(name: str, program: Any, known: int) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
      made, shapes = compile_step(name, program, args, known)
      programs.append(made)
      return shapes

    return call

  if not isinstance(step, two_pass.TwoPass):
    compiling('step', step, 2)(state, batch)
    return programs, programs[0].call
  dry = two_pass.TwoPass(  # the order of the calls, on shapes
    look=tuple(compiling('look', program, 4) for program in step.look),
    learn=tuple(compiling('learn', program, 4) for program in step.learn),
    update=compiling('update', step.update, 2),
  )
  dry(state, batch)
  calls = {name: tuple(p.call for p in programs if p.name == name) for name in ('look', 'learn', 'update')}
  return programs, two_pass.TwoPass(calls['look'], calls['learn'], calls['update'][0])


def make(way: str, options: argparse.Namespace, devices: Devices) -> tuple[list[Program], Callable[..., float]]:
  """The programs of a way, and a function that takes a step and returns its seconds."""
  config = config_of(way, options)
  _, fresh, step = run.make_training(config, devices, 1, 100)
  images = options.batch * len(devices.devices)
  size = config.resolutions[0]
  rng = np.random.default_rng(0)
  batch = {
    'images': (rng.integers(0, 256, (images, size, size, 3), np.uint8),),
    'label': rng.integers(0, config.model.num_classes, images).astype(np.int32),
    'index': np.arange(images, dtype=np.int32),
  }
  shapes = jax.eval_shape(fresh, jax.random.key(0))
  programs, compiled = programs_of(step, placed(shapes, devices.replicated), placed(batch, devices.split))
  if not options.rounds:
    return programs, lambda: 0.0
  current = [devices.create(fresh, jax.random.key(0))]
  batch = devices.put(batch)

  def take() -> float:
    start = time.perf_counter()
    current[0], metrics = compiled(current[0], batch)
    jax.block_until_ready((current[0], metrics))
    return time.perf_counter() - start

  return programs, take


def row(way: str, programs: list[Program], base: Program, times: dict[str, list[float]]) -> str:
  """One line of the table."""
  largest = max(programs, key=lambda p: p.temporary + p.carried)
  total = largest.temporary + largest.carried
  cells = [way, str(len(programs))]
  for size, alone in ((largest.temporary, base.temporary), (total, base.temporary + base.carried)):
    cells += [f'{size / MIB:,.1f}', f'{size / alone:.2f}']
  if times.get(way):
    milliseconds = [1000 * t for t in times[way]]
    cells.append(f'{statistics.median(milliseconds):,.0f} ({min(milliseconds):,.0f}–{max(milliseconds):,.0f})')
    ratios = [t / j for t, j in zip(times[way], times['joint'])] if times.get('joint') else []
    cells.append(f'{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})' if ratios else '–')
  return '| ' + ' | '.join(cells) + ' |'


def topology(name: str) -> list[jax.Device]:
  """The devices of a TPU that is not there."""
  from jax.experimental import topologies

  return list(topologies.get_topology_desc(name, 'tpu').devices)


def parse() -> argparse.Namespace:
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--model', default='resnet18')
  parser.add_argument('--resolutions', type=int, nargs='+', default=[224, 192, 160, 128, 96], help='highest first')
  parser.add_argument('--batch', type=int, default=8, help='images on each device')
  parser.add_argument('--rounds', type=int, default=7, help='0: nothing is run')
  parser.add_argument('--only', choices=WAYS, help='one way alone, with the peak that the device itself reports')
  parser.add_argument('--topology', default='', help="such as 'v5e:2x2': compiled for it, nothing is run")
  options = parser.parse_args()
  options.resolutions = tuple(options.resolutions)
  options.rounds = 0 if options.topology else options.rounds
  return options


def main() -> None:
  """Compiles all ways, runs them in turns and prints the table."""
  options = parse()
  devices = Devices(devices=topology(options.topology) if options.topology else jax.devices()[:1])
  made = {way: make(way, options, devices) for way in WAYS if options.only in (None, way)}
  times = {way: [] for way in made}
  for i in range(options.rounds + 1 if options.rounds else 0):
    for way, (_, take) in made.items():
      seconds = take()
      if i:  # the first round warms up
        times[way].append(seconds)
  where = options.topology or devices.devices[0].device_kind
  sizes = ', '.join(map(str, options.resolutions))
  print(f'{options.model} at {sizes}, {options.batch} images on each device, float32; {options.rounds} rounds')
  versions = [f'{name} {importlib.metadata.version(name)}' for name in ('jax', 'jaxlib', 'flax')]
  print(f'{where}, {platform.machine()}, Python {platform.python_version()}, {", ".join(versions)}\n')
  timed = ' ms | × joint |' if options.rounds else ''
  print(f'| way | programs | temporaries, MiB | × alone | with what is handed on, MiB | × alone |{timed}')
  print('|---|---|---|---|---|---|' + ('---|---|' if options.rounds else ''))
  base = made.get('largest alone', next(iter(made.values())))[0][0]
  for way, (programs, _) in made.items():
    print(row(way, programs, base, times))
  peak = (devices.devices[0].memory_stats() or {}).get('peak_bytes_in_use') if options.only else None
  if peak:
    print(f'\npeak bytes in use, state and batch included: {peak / MIB:,.0f} MiB')


if __name__ == '__main__':
  main()
