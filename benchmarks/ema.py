"""Averaged parameters beside the raw ones: a recipe with several values of optimizer.ema_decay, epoch by epoch.

Command:  python benchmarks/ema.py --config=quickstart --decays=0,0.99,0.999 --seeds=3 [--config.FIELD=VALUE ...]

Prints a table: the mean over the resolutions of top-1 % after each epoch, mean and lowest to highest of the seeds. Then
what the averages come to with their own BatchNorm statistics, and with those of 1,024 training images. Runs that are
finished are not repeated.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from resjax import compiling, trained
from resjax import config as configuration
from resjax.data import sources
from resjax.inference import Classifier
from resjax.inference.images import items
from resjax.inference.passes import recalibrated
from resjax.network import Network
from resjax.resolution import Resolution
from resjax.training.loop import train_and_evaluate

MEASURE = 'eval/top1_mean'


def main() -> None:
  """Runs all, decay after decay within each seed, and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--config', default='quickstart', help='a recipe')
  parser.add_argument('--decays', default='0,0.99,0.999', help='of optimizer.ema_decay; 0: no average')
  parser.add_argument('--seeds', type=int, default=3, help='from 0 on')
  parser.add_argument('--workdir', type=pathlib.Path, default=pathlib.Path('runs/ema'))
  options, fields = parser.parse_known_args()
  compiling.keep_compiled_programs()
  decays, found = options.decays.split(','), {}
  for seed in range(options.seeds):
    for decay in decays:
      workdir = options.workdir / f'{decay}_{seed}'
      own = [f'--config.optimizer.ema_decay={float(decay)}', f'--config.seed={seed}', '--config.eval.every_epochs=1']
      train_and_evaluate(configuration.load(options.config, [*own, *fields]), workdir)
      found[decay, seed] = by_step(workdir / 'metrics.jsonl')
  print(table(decays, options.seeds, found))
  for decay in (each for each in decays if float(each) > 0):
    pairs = np.array([renewed(options.workdir / f'{decay}_{seed}') for seed in range(options.seeds)])
    own, new = (f'{side.mean():.2f} ({side.min():.2f} to {side.max():.2f})' for side in pairs.T)
    print(f'{decay}, at the end: {own} with averaged statistics, {new} with those of training images')


def renewed(workdir: pathlib.Path, count: int = 1024) -> tuple[float, float]:
  """Returns top-1 % of a run's network, mean over its resolutions, as it is and with statistics of training images."""
  found = trained.read(workdir)
  config, network = found.config, found.network
  train, test = (sources.create(config, split) for split in (config.data.train_split, config.data.eval_split))
  seen = [train[int(i)]['image'] for i in np.random.default_rng(0).choice(len(train), count, replace=False)]
  labels = np.array([test[i]['label'] for i in range(len(test))])
  pixels = [test[i]['image'] for i in range(len(test))]

  def right(each: Network, resolution: Resolution) -> float:
    said = Classifier(each).predict(pixels, resolution=resolution)
    return 100 * float(np.mean([p.class_index for p in said] == labels))

  own, new = [], []
  for resolution in network.resolutions:
    crops = Classifier(network).cropped(items(seen), resolution)
    own.append(right(network, resolution))
    new.append(right(recalibrated(network, resolution, crops, config.batch_size)[0], resolution))
  return float(np.mean(own)), float(np.mean(new))


def by_step(path: pathlib.Path) -> dict[int, float]:
  """Returns top-1 % at each step at which a run was evaluated."""
  lines = map(json.loads, path.read_text(encoding='utf-8').splitlines())
  return {line['step']: 100 * line[MEASURE] for line in lines if MEASURE in line}


def table(decays: list[str], seeds: int, found: dict[tuple[str, int], dict[int, float]]) -> str:
  """Returns the table as Markdown, a row for each evaluation."""
  heads = ['none' if float(decay) == 0 else decay for decay in decays]
  lines = [f'| step | {" | ".join(heads)} |', '|---' * (1 + len(decays)) + '|']
  for step in sorted(found[decays[0], 0]):
    cells = []
    for decay in decays:
      values = np.array([found[decay, seed][step] for seed in range(seeds)])
      cells.append(f'{values.mean():.1f} ({values.min():.1f} to {values.max():.1f})')
    lines.append(f'| {step} | {" | ".join(cells)} |')
  return '\n'.join(lines)


if __name__ == '__main__':
  main()
