"""What grouping saves in seconds, beside what it saves in multiply-adds: the network alone, from uint8 crops to logits.

  python benchmarks/engine.py [--model=resnet18] [--resolutions=224,160,96] [--mix=0.4,0.3,0.3] [--batches=32,64]

The same crops run in turns: all at the highest resolution, and in the mix, in a new order every round. Resizing, taking
the rows, grouping and padding count; there is no router. `speed-up` is the median over rounds of the ratio of seconds,
with the lowest and the highest in brackets, `CPU` the same of the process's CPU seconds, less touched by other work on
the machine; `table` is what the engine's cost table expects; `real / theory` is the speed-up over that in multiply-adds
of the chosen resolutions.
"""

import argparse
import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from resjax import macs, models, switchable
from resjax.inference import Engine, XlaRuntime

WARM_UP = 1  # rounds that are not counted


def seconds(engine: Engine, images: np.ndarray, choice: np.ndarray) -> tuple[float, float]:
  """Wall and CPU seconds of one batch."""
  wall, cpu = time.perf_counter(), time.process_time()
  engine.run(images, choice)
  return time.perf_counter() - wall, time.process_time() - cpu


def mixed(batch: int, mix: list[float]) -> np.ndarray:
  """The choice int [batch] whose counts come nearest to the mix."""
  ends = np.rint(np.cumsum(mix) / sum(mix) * batch).astype(int)
  return np.repeat(np.arange(len(mix)), np.diff(ends, prepend=0))


def compare(engine: Engine, choice: np.ndarray, theory: float, rounds: int) -> str:
  """One line of the table."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (len(choice), *engine.runtime.shape), np.uint8)
  highest = np.zeros(len(choice), int)
  ratios = []
  for _ in range(WARM_UP + rounds):
    all_at_highest = seconds(engine, images, highest)
    routed = seconds(engine, images, rng.permutation(choice))
    ratios.append([a / b for a, b in zip(all_at_highest, routed, strict=True)])
  wall, cpu = zip(*ratios[WARM_UP:], strict=True)
  step = engine.buckets[-1]
  expected = [sum(engine.plan(c[i : i + step]).seconds for i in range(0, len(c), step)) for c in (highest, choice)]
  real = statistics.median(wall)
  spread = f'{real:.2f} [{min(wall):.2f}, {max(wall):.2f}]'
  figures = f'{theory:.2f} | {expected[0] / expected[1]:.2f} | {spread} | {statistics.median(cpu):.2f}'
  return f'| {len(choice)} | {figures} | {real / theory:.2f} | {statistics.median(cpu) / theory:.2f} |'


def main() -> None:
  """Prints the cost table, the plans and the comparison."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--model', default='resnet18')
  parser.add_argument('--resolutions', default='224,160,96')
  parser.add_argument('--mix', default='0.4,0.3,0.3', help='shares of the resolutions')
  parser.add_argument('--batches', default='32,64')
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--costs', help='JSON file that keeps the cost table')
  options = parser.parse_args()
  resolutions = tuple(int(r) for r in options.resolutions.split(','))
  mix, batches = [float(m) for m in options.mix.split(',')], [int(b) for b in options.batches.split(',')]

  model = models.create(options.model, num_classes=1000)
  init = jax.jit(lambda key: model.init(key, jnp.zeros((1, 32, 32, 3)), train=False))
  variables = switchable.share(init(jax.random.key(0)), resolutions)
  runtime = XlaRuntime(model, variables, resolutions, normalize='imagenet', dtype=options.dtype)
  begin = time.perf_counter()
  engine = Engine(runtime, max_batch=max(batches), strict=True, costs_file=options.costs)
  print(f'{runtime.identity}\nready in {time.perf_counter() - begin:.1f} s; milliseconds of an image by bucket:')
  for resolution, cost, measured in zip(resolutions, *engine.costs, strict=True):
    cells = (f'{b}: {1e3 * s / b:.1f}{"" if m else "*"}' for b, s, m in zip(engine.buckets, cost, measured))
    print(f'  {resolution}  ', '  '.join(cells))
  cost = np.array([macs.of_model(model, r) for r in resolutions], float)
  lines = [
    '| batch | theory | table | speed-up | CPU | real / theory | CPU / theory |',
    '|---|---|---|---|---|---|---|',
  ]
  for batch in batches:
    choice = mixed(batch, mix)
    groups = [f'{g.bucket} at {resolutions[g.place]}' for g in engine.plan(choice).groups]
    print(f'batch {batch}, {np.bincount(choice).tolist()}: {", ".join(groups)}')
    lines.append(compare(engine, choice, cost[0] / cost[choice].mean(), options.rounds))
  print('\n'.join(lines))


if __name__ == '__main__':
  main()
