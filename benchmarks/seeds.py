"""Runs one recipe with several seeds and prints the mean and the standard deviation of what it finds.

Command:  python benchmarks/seeds.py --config=configs/drnet_quickstart.py --seeds=3 [--config.FIELD=VALUE ...]

Runs that are finished are not repeated. `seeds.json` in the workdir holds every number.
"""

import json
import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from resjax import compiling, report
from resjax.training.loop import train_and_evaluate

CONFIG = config_flags.DEFINE_config_file('config', help_string='A recipe.')
SEEDS = flags.DEFINE_integer('seeds', 3, 'How many, from 0 on.', lower_bound=1)
WORKDIR = flags.DEFINE_string('workdir', None, 'Default runs/<name of the recipe>_seeds.')


def main(argv: list[str]) -> None:
  """Runs the seeds one after the other."""
  if CONFIG.value is None or len(argv) > 1:
    raise app.UsageError('expected --config=RECIPE and flags alone')
  logging.set_verbosity(logging.WARNING)
  recipe = pathlib.Path(config_flags.get_config_filename(flags.FLAGS['config']).split(':')[0])
  workdir = pathlib.Path(WORKDIR.value or f'runs/{recipe.stem}_seeds')
  compiling.keep_compiled_programs()
  runs = []
  for seed in range(SEEDS.value):
    config = CONFIG.value.copy_and_resolve_references()
    config.seed = seed
    try:
      runs.append(train_and_evaluate(config, workdir / f'seed{seed}'))
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
      sys.exit(f'error: {error}')
  found = report.spread(runs)
  (workdir / 'seeds.json').write_text(json.dumps({n: s._asdict() for n, s in found.items()}, indent=2) + '\n')
  show(found, len(runs))
  print(f'In {workdir}: seed*/, seeds.json')


def show(found: dict[str, report.Spread], count: int) -> None:
  """Prints accuracies, costs and agreements."""
  table = Table(title=f'mean and standard deviation of {count} seeds', title_justify='left')
  table.add_column('what')
  for column in ('mean', 'sd'):
    table.add_column(column, justify='right')
  for name, (mean, sd) in found.items():
    if name.endswith(('top1', '.agreement', 'agreement_or_right')):
      table.add_row(f'{name} %', f'{100 * mean:.2f}', f'{100 * sd:.2f}')
    elif name.startswith('routers.') and name.endswith('.macs'):
      table.add_row(f'{name}, M', f'{mean / 1e6:.3f}', f'{sd / 1e6:.3f}')
  Console().print(table)


if __name__ == '__main__':
  app.run(main)
