"""A network of one resolution taught the smaller ones by itself, on photographs without labels: what buys what.

MobileNetV2 as torchvision has it, taught on a flat folder of photographs and scored on two folders that it never saw,
1,000-way, at every size: as it comes, with statistics re-estimated without training, and by every trial of `TRIALS`.

Command:  python benchmarks/retarget.py --data=../shared/data [--trials='private, a and b'] [--seeds=0,1,2]
            [--name=mine --fields=optimizer.learning_rate=1e-5 --fields=...] [--workdir=runs/retarget]

The data folder holds weights/mobilenet_v2_imagenet.pth, photos_unlabelled/, nette1000/<class number>/ and photos152/
(images/ and labels.csv). What is finished is not repeated: `retarget.json` in the workdir holds every number.
"""

import argparse
import csv
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from resjax import compiling, config, preprocess, recipes, trained, unseen
from resjax.apply import run
from resjax.data import unlabelled
from resjax.data.crops import evaluation_crops
from resjax.interop import importing
from resjax.network import Network
from resjax.training.loop import train_and_evaluate
from resjax.training.preemption import Preempted

SIZES = (224, 192, 160, 128, 96)
BATCH = 64

# By name: the recipe's argument, the letters that the images' names begin with, how many of those are drawn (0: all),
# steps, and fields besides.
# a_ is one photograph of each of the 1,000 classes, b_ are of 200 subjects, and c_ of the ten classes of nette1000:
# what is learned from those favours that test. A cheaper network: sizes of which two stand for five.
FEW = ('resolutions=(224,128,96)', 'log_steps=20')
SLOW = "optimizer.rates=(('shared/*',0.02),('private/224/*',0.02))"
TRIALS: dict[str, tuple[str, str, int, int, tuple[str, ...]]] = {
  'everything, all': ('', '', 0, 480, FEW),
  'everything, a and b': ('', 'ab', 0, 480, FEW),
  'everything, 1,000 of a and b': ('', 'ab', 1000, 480, FEW),
  'everything, 250 of a and b': ('', 'ab', 250, 480, FEW),
  'private, a and b': ('private', 'ab', 0, 480, FEW),
  'batch statistics': ('', 'ab', 0, 480, (*FEW, 'optimizer.statistics=batch')),
  'random crops': ('', 'ab', 0, 480, (*FEW, 'data.crop_area=(0.08,1.0)', 'data.crop_ratio=(0.75,1.3333)')),
  'the teacher alone': ('', 'ab', 0, 480, (*FEW, 'distillation=none')),
  'sizes fast, weights slow': ('', 'ab', 0, 480, (*FEW, 'optimizer.learning_rate=5e-4', SLOW)),
  'averaged': ('', 'ab', 0, 480, (*FEW, 'optimizer.ema_decay=0.99')),
}


def folder_of(data: pathlib.Path, workdir: pathlib.Path, begin: str, count: int) -> pathlib.Path:
  """Returns a folder of links to some of the photographs without labels."""
  folder = workdir / 'images' / f'{begin or "all"}-{count or "all"}'
  if not folder.is_dir():
    files = sorted(p for p in (data / 'photos_unlabelled').iterdir() if p.name[0] in (begin or p.name[0]))
    chosen = np.random.default_rng(0).permutation(len(files))[: count or None]
    folder.mkdir(parents=True)
    for place in chosen.tolist():
      os.symlink(files[place].resolve(), folder / files[place].name)
  return folder


def photos152(data: pathlib.Path, workdir: pathlib.Path) -> pathlib.Path:
  """Returns a folder of links to the labelled photographs, a folder for each class number."""
  folder = workdir / 'photos152'
  if not folder.is_dir():
    with (data / 'photos152' / 'labels.csv').open(newline='', encoding='utf-8') as file:
      for row in csv.DictReader(file):
        image = data / 'photos152' / row['file']
        place = folder / f'{int(row["class_index_0_based"]):03d}'
        place.mkdir(parents=True, exist_ok=True)
        os.symlink(image.resolve(), place / image.name)
  return folder


def crops_of(network: Network, folder: pathlib.Path) -> Iterator[tuple[tuple[np.ndarray, ...], np.ndarray]]:
  """Yields batches of a labelled folder: uint8 crops of every size, each from the full image, and labels."""
  source = unlabelled.ClassFolders(str(folder), network.class_names)
  crop = evaluation_crops(network.preprocessing, SIZES)
  for first in range(0, len(source), BATCH):
    rows = [source[i] for i in range(first, min(first + BATCH, len(source)))]
    images = zip(*(crop(row['image']) for row in rows))
    yield tuple(np.stack(size) for size in images), np.array([row['label'] for row in rows])


@functools.cache
def _logits(model: Any) -> Any:
  options = compiling.options(jax.devices()[0].platform, 'inference')
  return jax.jit(lambda plain, x: run(model, plain, x, train=False)[0], compiler_options=options)


def score(network: Network, folders: dict[str, pathlib.Path]) -> dict[str, dict[str, int]]:
  """Returns how many images of each folder the network is right on at each size, BatchNorm that of the nearest."""
  found = {}
  for name, folder in folders.items():
    right = dict.fromkeys(map(str, SIZES), 0)
    for crops, labels in crops_of(network, folder):
      for size, images in zip(SIZES, crops):
        (inputs,) = preprocess.prepare((images,), (size,), network.preprocessing.normalize)
        plain = network.at(size, 'nearest')[0].view(size)
        right[str(size)] += int((np.asarray(_logits(network.model)(plain, inputs)).argmax(-1) == labels).sum())
    found[name] = right
  return found


def recalibrated(network: Network, folder: pathlib.Path, count: int = 256) -> Network:
  """Returns the network with statistics of some photographs at every size but the largest, nothing trained."""
  source = unlabelled.FlatFolder(str(folder), network.class_names)
  chosen = np.random.default_rng(0).permutation(len(source))[:count].tolist()
  crop, variables = evaluation_crops(network.preprocessing, SIZES), network.variables
  crops = [crop(source[i]['image']) for i in chosen]
  for place, size in enumerate(SIZES[1:], 1):
    stacks = (np.stack([c[place] for c in crops[i : i + BATCH]]) for i in range(0, count, BATCH))
    batches = (preprocess.prepare((s,), (size,), network.preprocessing.normalize)[0] for s in stacks)
    variables, _ = unseen.recalibrate(network.model, variables, size, batches)
  return network.replace(variables=variables)


def teach(
  start: pathlib.Path, data: pathlib.Path, workdir: pathlib.Path, name: str, trial: tuple, seed: int
) -> dict[str, Any]:
  """Returns a trial's numbers: fields, steps, seconds and what it is right on afterwards."""
  argument, begin, count, steps, fields = trial
  folder = folder_of(data, workdir, begin, count)
  recipe = f'retarget:{argument}' if argument else 'retarget'
  made = recipes.make(recipe, [f'--config.{field}' for field in fields])
  made.init.checkpoint, made.seed = str(start), seed
  made.data.dir, made.data.eval_dir = str(folder), str(photos152(data, workdir))
  made.epochs = steps / (len(list(folder.iterdir())) // made.batch_size)
  if not any(field.startswith('optimizer.warmup_epochs') for field in fields):
    made.optimizer.warmup_epochs = made.epochs / 10
  made.checkpoint.every_epochs = max(0.01, made.epochs / 4)
  config.validate(made)
  place = workdir / 'trials' / f'{name}, seed {seed}'.replace(', ', '-').replace(' ', '_')
  result = train_and_evaluate(made, place)
  network = trained.load(place)
  found = score(network, {'nette1000': data / 'nette1000', 'photos152': photos152(data, workdir)})
  return {'right': found, 'steps': steps, 'seconds': result['train_seconds'], 'recipe': recipe,
          'images': folder.name, 'fields': list(fields), 'resolutions': list(made.resolutions)}  # fmt: skip


def machine() -> str:
  """Returns the processor, how many of it, and the versions."""
  lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines() if pathlib.Path('/proc/cpuinfo').exists() else []
  names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
  versions = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in ('jax', 'flax', 'optax', 'numpy'))
  return (
    f'{os.cpu_count()} cores, {(names or [platform.processor()])[0]}, Python {platform.python_version()}, {versions}'
  )


def show(found: dict[str, Any]) -> None:
  """Prints the table."""
  print(f'\n{found["machine"]}\n')
  print('| | steps, minutes | ' + ' | '.join(f'{name} {size}' for name in ('nette1000', 'photos152') for size in SIZES))
  print('|---' * (2 + 2 * len(SIZES)) + '|')
  for name, row in found['rows'].items():
    cells = [str(row['right'][which][str(size)]) for which in ('nette1000', 'photos152') for size in SIZES]
    cost = f'{row["steps"]}, {row["seconds"] / 60:.0f}' if 'steps' in row else '-'
    print(f'| {name} | {cost} | ' + ' | '.join(cells) + ' |')


def main() -> None:
  """Measures what is not measured yet, saves and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--data', type=pathlib.Path, default=pathlib.Path('../shared/data'))
  parser.add_argument('--workdir', type=pathlib.Path, default=pathlib.Path('runs/retarget'))
  parser.add_argument('--trials', default=';'.join(TRIALS), help='of TRIALS, by name, with semicolons between')
  parser.add_argument('--seeds', default='0')
  parser.add_argument('--name', help='of a trial of your own')
  parser.add_argument('--argument', default='', help="of yours: the recipe's, 'private' or 'all'")
  parser.add_argument('--images', default='', help='of yours: letters that file names begin with')
  parser.add_argument('--count', type=int, default=0, help='of yours: images that are drawn')
  parser.add_argument('--steps', type=int, default=240, help='of yours')
  parser.add_argument('--fields', action='append', default=[], metavar='FIELD=VALUE', help='of yours')
  args = parser.parse_args()
  compiling.keep_compiled_programs()
  args.workdir.mkdir(parents=True, exist_ok=True)
  file, start = args.workdir / 'retarget.json', args.workdir / 'start'
  found = json.loads(file.read_text()) if file.exists() else {'rows': {}}
  found['machine'] = machine()

  def keep(name: str, row: dict[str, Any]) -> None:
    found['rows'][name] = row
    file.write_text(json.dumps(found, indent=1) + '\n')

  if not start.exists():
    weights = args.data / 'weights' / 'mobilenet_v2_imagenet.pth'
    importing.save(importing.read(weights, 'mobilenetv2', resolutions=SIZES), start)
  network = trained.load(start)
  folders = {'nette1000': args.data / 'nette1000', 'photos152': photos152(args.data, args.workdir)}
  if 'as it comes' not in found['rows']:
    keep('as it comes', {'right': score(network, folders)})
  if not args.name and 'statistics re-estimated' not in found['rows']:
    images = folder_of(args.data, args.workdir, '', 0)
    keep('statistics re-estimated', {'right': score(recalibrated(network, images), folders)})
  trials = {args.name: (args.argument, args.images, args.count, args.steps, tuple(args.fields))} if args.name else {
    name: TRIALS[name] for name in args.trials.split(';') if name
  }  # fmt: skip
  for seed in map(int, args.seeds.split(',')):
    for name, trial in trials.items():
      if f'{name}, seed {seed}' not in found['rows']:
        began = time.monotonic()
        try:
          keep(f'{name}, seed {seed}', teach(start, args.data, args.workdir, name, trial, seed))
        except (ValueError, OSError, FloatingPointError, Preempted) as error:
          sys.exit(f'error: {name}: {error}')
        print(f'{name}, seed {seed}: {(time.monotonic() - began) / 60:.1f} minutes in all')
  show(found)


if __name__ == '__main__':
  main()
