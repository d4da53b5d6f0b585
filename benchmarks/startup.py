"""Seconds until work begins: a program's first start, its next ones, and another seed's, each a process of its own.

  python benchmarks/startup.py --json=docs/measured/startup.json
  python benchmarks/startup.py --before=../resjax-0.2 --rounds=9     # beside another checkout, in turns

Every round runs every way once, in an order that turns. `first` finds an empty compilation cache and no table of costs,
`again` those of `first`; training is the quickstart's network on two batches of noise, so that all is start. Seconds
are of the whole process; CPU seconds, of all its threads, are what other work on the machine disturbs least.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
TRAIN = ('train', '--config=quickstart', '--config.data.source=fake', '--config.data.size=128', '--config.epochs=1')
# The ways, each after those whose cache it finds: arguments of `python`, and whether the cache is emptied first.
WAYS = {
  'import resjax': (('-c', 'import resjax'), False),
  'train, first': (('-m', 'resjax', *TRAIN), True),
  'train, again': (('-m', 'resjax', *TRAIN), False),
  'train, another seed and rate': (
    ('-m', 'resjax', *TRAIN, '--config.seed=SEED', '--config.optimizer.learning_rate=0.0SEED'),
    False,
  ),
  'predict, first': (('-m', 'resjax', 'predict', 'PHOTO', '--workdir=NETWORK'), True),
  'predict, again': (('-m', 'resjax', 'predict', 'PHOTO', '--workdir=NETWORK'), False),
}


def network(folder: pathlib.Path, model: str) -> None:
  """Writes a network of 224, 160 and 96 px that was never trained as the workdir of a run, and a photograph."""
  import jax
  import numpy as np
  from PIL import Image

  from resjax import config as configuration
  from resjax import models, rsnet, trained
  from resjax.recipes import default

  config = default.get_config()
  config.resolutions, config.model.name = (224, 160, 96), model
  configuration.validate(config)
  made = models.from_config(config)
  shapes = jax.eval_shape(lambda key: rsnet.init(made, config, key), jax.random.key(0))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: np.abs(rng.normal(0.1, 0.05, x.shape)).astype(x.dtype), shapes)
  found = trained.of_config(config, variables, [str(k) for k in range(config.model.num_classes)])
  trained.save(trained.Trained(found, config, 0, True), folder / 'network')
  Image.fromarray(rng.integers(0, 256, (375, 500, 3), np.uint8)).save(folder / 'photo.jpg')


def start(arguments: tuple[str, ...], package: pathlib.Path, cache: pathlib.Path) -> dict[str, float]:
  """Runs a process to its end and returns its seconds, and those of the processors.

  Raises:
    SystemExit: It failed.
  """
  environment = os.environ | {'PYTHONPATH': str(package), 'XDG_CACHE_HOME': str(cache)}
  begin = time.perf_counter()
  with tempfile.TemporaryFile() as said:
    process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=said, stderr=said, cwd=cache)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begin
    if process.returncode:
      said.seek(0)
      sys.exit(f'{" ".join(arguments)}:\n{said.read().decode()}')
  return {'seconds': seconds, 'cpu': usage.ru_utime + usage.ru_stime}


def once(name: str, side: str, number: int, folder: pathlib.Path, package: pathlib.Path) -> dict[str, float]:
  """Runs a way of a side in a round."""
  arguments, empty = WAYS[name]
  cache = folder / side
  kind = name.partition(',')[0]
  if empty:
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
  words = {'PHOTO': str(folder / 'photo.jpg'), 'NETWORK': str(cache / 'network'), 'SEED': str(number + 2)}
  if kind == 'predict' and empty:
    shutil.copytree(folder / 'network', cache / 'network')
  filled = [_filled(argument, words) for argument in arguments]
  if kind == 'train':
    shutil.rmtree(cache / 'run', ignore_errors=True)
    filled.append(f'--workdir={cache / "run"}')
  return start(tuple(filled), package, cache)


def _filled(argument: str, words: dict[str, str]) -> str:
  """An argument with its words in capitals replaced."""
  for word, value in words.items():
    argument = argument.replace(word, value)
  return argument


def measure(options: argparse.Namespace, say: Callable[[str], object] = print) -> dict[str, Any]:
  """Returns what was found, as JSON values."""
  from resjax import report
  from resjax.inference.runtime import processor, processors
  from resjax.measuring import turns

  sides = {'now': ROOT} | ({'before': pathlib.Path(options.before).absolute()} if options.before else {})
  found: dict[str, dict[str, list[dict[str, float]]]] = {name: {side: [] for side in sides} for name in options.ways}
  with tempfile.TemporaryDirectory() as place:
    folder = pathlib.Path(place)
    network(folder, options.model)
    for side in sides:
      (folder / side).mkdir()
    for number in range(options.rounds):
      for name in options.ways:
        for side in list(sides)[:: 1 if number % 2 else -1]:
          found[name][side].append(once(name, side, number, folder, sides[side]))
          say(f'{number + 1}/{options.rounds} {name}, {side}: {found[name][side][-1]["seconds"]:.1f} s')
  rows = []
  for name, of in found.items():
    row: dict[str, Any] = {'way': name, 'rounds': options.rounds}
    for kind in ('seconds', 'cpu'):
      values = {side: [run[kind] for run in runs] for side, runs in of.items()}
      row[kind] = {side: turns.spread(numbers) for side, numbers in values.items()}
      row[f'{kind}_ratio'] = turns.ratio(values['now'], values['before']) if options.before else None
    rows.append(row)
  machine = f'{processor()}, {processors()} processors'
  return {'machine': machine, 'versions': report.versions(), 'model': options.model, 'rows': rows}


def main() -> None:
  """Measures, prints, and writes; of a file that is there, ways that are not measured now are kept."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--model', default='resnet18', help='of predict, at 224 px')
  parser.add_argument('--before', help='a folder with another `resjax`')
  parser.add_argument('--ways', type=lambda text: text.split(';'), default=list(WAYS), help='some of them, by ;')
  parser.add_argument('--json')
  options = parser.parse_args()
  found = measure(options)
  for row in found['rows']:
    print(json.dumps(row))
  if options.json:
    file = pathlib.Path(options.json)
    rows = json.loads(file.read_text())['rows'] if file.exists() else []
    found['rows'] = [row for row in rows if row['way'] not in options.ways] + found['rows']
    file.write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
  main()
