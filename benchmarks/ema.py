"""Averaged parameters beside the raw ones: a recipe with several values of optimizer.ema_decay, epoch by epoch.

Command:  python benchmarks/ema.py --config=quickstart --decays=0,0.99,0.999 --seeds=3 [--config.FIELD=VALUE ...]

Prints a table: the mean over the resolutions of top-1 % after each epoch, mean and lowest to highest of the seeds. Runs
that are finished are not repeated.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from resjax import compiling
from resjax import config as configuration
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
