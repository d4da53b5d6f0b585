"""DRNet side by side on scaled_digits: trainings, estimators and budgets, each with several seeds.

Command:  python benchmarks/drnet_compare.py [--seeds=3] [--workdir=runs/drnet_compare] [--only=budget]

Every seed trains two networks first: RS-Net, and all resolutions in parallel without distillation (the first stage of
DRNet's paper). The variants start from one of them, or from scratch with as many epochs as both stages together. Runs
that are finished are not repeated, so the script can be stopped and started again; more seeds can be added. The tables
are printed as Markdown; `drnet_compare.json` in the workdir holds every number's mean and standard deviation.
"""

import argparse
import json
import pathlib
import sys

from absl import flags, logging
from ml_collections import ConfigDict

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from configs import drnet_quickstart, quickstart
from resjax import compiling, report
from resjax.training.loop import train_and_evaluate

NETWORKS = {'rsnet': {}, 'parallel': {'distillation': 'none'}}
BUDGETS = (0.2, 0.3, 0.45, 0.7)
# Shorter than the quickstarts, so that all of it takes an hour on two cores: of the networks, and of DRNet after them.
EPOCHS, EPOCHS_AFTER = 2.5, 1.5

_FINE = {'drnet.frozen': False, 'drnet.learning_rate_factor': 1.0, 'optimizer.learning_rate': 0.02}
# Groups of variants: where each starts, and the fields in which it differs from configs/drnet_quickstart.py.
VARIANTS = {
  'training': {
    'one stage, from scratch': ('scratch', {}),
    'two stages, from parallel training': ('parallel', _FINE),
    'from RS-Net, fine-tuned': ('rsnet', _FINE),
    'from RS-Net, frozen': ('rsnet', {}),
    'from RS-Net, frozen, supervised': ('rsnet', {'drnet.estimator': 'supervised'}),
  },
  'estimator': {
    'one stage, routed': ('scratch', {'drnet.estimator': 'routed'}),
    'from RS-Net, fine-tuned, routed': ('rsnet', _FINE | {'drnet.estimator': 'routed'}),
    'from RS-Net, frozen, routed': ('rsnet', {'drnet.estimator': 'routed'}),
  },
  'budget': {
    'from RS-Net, frozen' if b == 0.45 else f'budget {b}': ('rsnet', {} if b == 0.45 else {'drnet.budget': b})
    for b in BUDGETS
  },
}


def config_of(start: str, fields: dict, place: pathlib.Path, seed: int) -> ConfigDict:
  """Returns a variant's config; `place` is the folder of the seed's networks."""
  config = drnet_quickstart.get_config()
  config.seed = seed
  config.epochs = EPOCHS_AFTER
  if start == 'scratch':
    config.drnet.start = 'scratch'
    config.drnet.frozen = False
    config.epochs = EPOCHS + EPOCHS_AFTER
  else:
    config.drnet.start = 'checkpoint'
    config.drnet.checkpoint = str(place / start)
  config.update_from_flattened_dict(fields)
  return config


def run_seed(workdir: pathlib.Path, seed: int, groups: list[str]) -> dict[str, dict]:
  """Trains the networks and the variants of one seed; returns their results by name."""
  place = workdir / f'seed{seed}'
  found = {}
  for name, fields in NETWORKS.items():
    config = quickstart.get_config()
    config.seed = seed
    config.epochs = EPOCHS
    config.update_from_flattened_dict(fields)
    found[name] = train_and_evaluate(config, place / name)
  for group in groups:
    for name, (start, fields) in VARIANTS[group].items():
      folder = name.replace(', ', '_').replace(' ', '_')
      found[name] = train_and_evaluate(config_of(start, fields, place, seed), place / folder)
  return found


def cell(found: dict[str, report.Spread], name: str, scale: float = 100.0, digits: int = 1) -> str:
  """Returns `mean ± sd` of a number, or nothing where there is none."""
  if name not in found:
    return ''
  mean, sd = found[name]
  return f'{scale * mean:.{digits}f} ± {scale * sd:.{digits}f}'


def networks_table(found: dict[str, dict[str, report.Spread]]) -> list[str]:
  """Top-1 of the networks at each resolution."""
  sizes = quickstart.get_config().resolutions
  lines = ['| network | ' + ' | '.join(f'{r} px' for r in sizes) + ' |', '|---|' + '---|' * len(sizes)]
  for name in NETWORKS:
    lines.append(f'| {name} | ' + ' | '.join(cell(found[name], f'resolutions.{r}.top1') for r in sizes) + ' |')
  return lines


def routers_table(found: dict[str, dict[str, report.Spread]], names: list[str]) -> list[str]:
  """The predictor of each variant and its rivals, costs as shares of the largest resolution's."""
  head = ['variant', 'cost %', 'top-1 %', 'needed or right %', 'static 32 px', 'random', 'cascade', 'oracle', 'seconds']
  lines = ['| ' + ' | '.join(head) + ' |', '|---|' + '---|' * (len(head) - 1)]
  largest = quickstart.get_config().resolutions[0]
  for name in names:
    own = found[name]
    share = 100 / own[f'resolutions.{largest}.macs'].mean
    rivals = [f'routers.{rival}.top1' for rival in ('random', 'cascade', 'oracle')]
    cells = [
      name,
      cell(own, 'routers.predictor.macs', share),
      cell(own, 'routers.predictor.top1'),
      cell(own, 'needed.agreement_or_right'),
      cell(own, f'resolutions.{largest}.top1'),
      *(cell(own, rival) for rival in rivals),
      cell(own, 'train_seconds', 1.0, 0),
    ]
    lines.append('| ' + ' | '.join(cells) + ' |')
  return lines


def main() -> None:
  """Runs what is missing and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--seeds', type=int, default=3)
  parser.add_argument('--workdir', type=pathlib.Path, default=pathlib.Path('runs/drnet_compare'))
  parser.add_argument('--only', choices=VARIANTS, action='append', help='one group of variants; may be repeated')
  options = parser.parse_args()
  flags.FLAGS.mark_as_parsed()
  logging.set_verbosity(logging.WARNING)
  compiling.keep_compiled_programs()
  groups = options.only or list(VARIANTS)
  runs = [run_seed(options.workdir, seed, groups) for seed in range(options.seeds)]
  found = {name: report.spread([run[name] for run in runs]) for name in runs[0]}
  text = {name: {number: s._asdict() for number, s in numbers.items()} for name, numbers in found.items()}
  (options.workdir / 'drnet_compare.json').write_text(json.dumps(text, indent=2) + '\n')
  print(f'\n{options.seeds} seeds, mean ± standard deviation\n')
  print('\n'.join(networks_table(found)))
  for group in groups:
    print('\n' + '\n'.join(routers_table(found, list(VARIANTS[group]))))


if __name__ == '__main__':
  main()
