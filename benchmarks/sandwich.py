"""What the sandwich rule takes and saves: a training step of all branches and one of those that are drawn, in turns.

Command:  python benchmarks/sandwich.py --config.widths='(1.0,0.8,0.65,0.5,0.35,0.25)' --config.sandwich=2
          (the recipe slimmable_quickstart with --config.distillation=inplace, 64 random images a step; other fields as
          --config.FIELD=VALUE)
"""

import argparse
import time
from typing import Any

import jax
import numpy as np

from resjax import config as configuration
from resjax.planning import needs
from resjax.training import run
from resjax.training.devices import Devices

FIELDS = ('--config.distillation=inplace', '--config.batch_size=64')


def prepared(fields: list[str]) -> list[Any]:
  """Returns the compiled step, the state and a batch; says what they take."""
  config, devices = configuration.load('slimmable_quickstart', [*FIELDS, *fields]), Devices()
  _, fresh, take = run.make_training(config, devices, 10, 100)
  state, rng, size = devices.create(fresh, jax.random.key(0)), np.random.default_rng(0), config.batch_size
  batch = devices.put(
    {
      'images': (rng.integers(0, 256, (size, config.resolutions[0], config.resolutions[0], 3), np.uint8),),
      'label': rng.integers(0, config.model.num_classes, size).astype(np.int32),
      'index': np.arange(size, dtype=np.int32),
    }
  )
  begin = time.process_time()
  compiled = take.compiled(state, batch)
  seconds, memory = time.process_time() - begin, compiled.program.memory_analysis().temp_size_in_bytes
  macs = needs.multiply_adds(config, size)[1]
  size = memory / 2**20
  print(
    f'sandwich={config.sandwich}: {macs / 1e9:.2f} G multiply-adds, {size:.0f} MiB, compiled in {seconds:.0f} CPU s'
  )
  return [compiled, state, batch]


def main() -> None:
  """Prints CPU seconds of a step, medians and quartiles, and the ratio."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--turns', type=int, default=24, help='that count, after one that does not (24)')
  options, fields = parser.parse_known_args()
  ways = [prepared([*fields, '--config.sandwich=0']), prepared(fields)]
  seconds = np.zeros((2, options.turns + 1))
  for turn in range(options.turns + 1):
    for place, way in enumerate(ways):
      begin = time.process_time()
      way[1], metrics = way[0](*way[1:])
      jax.block_until_ready(metrics)
      seconds[place, turn] = time.process_time() - begin
  for name, own in zip(('all', 'drawn'), seconds[:, 1:]):
    low, middle, high = np.percentile(own, [25, 50, 75])
    print(f'{name}: {middle:.3f} [{low:.3f}, {high:.3f}] CPU s a step')
  print(f'drawn over all, of the means: {seconds[1, 1:].mean() / seconds[0, 1:].mean():.2f}')


if __name__ == '__main__':
  main()
