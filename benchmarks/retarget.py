"""A network of one resolution taught the smaller ones by itself, on photographs without labels: what buys what.

MobileNetV2 as torchvision has it, taught on a flat folder of photographs and scored on two folders that it never saw,
1,000-way, at every size: as it comes, with statistics re-estimated without training, and by every trial of `TRIALS`.

Command:  python benchmarks/retarget.py --data=../shared/data [--trials='all, private'] [--seeds=0,1,2]
            [--name=mine --fields=optimizer.learning_rate=1e-5 --fields=...] [--workdir=runs/retarget]

The data folder holds weights/mobilenet_v2_imagenet.pth, photos_unlabelled/, nette1000/<class number>/ and photos152/
(images/ and labels.csv). Each row is a file in WORKDIR/rows, so that what is finished is not repeated, and processes
started side by side in one workdir share the work. A seed draws the photographs, their order, crops and flips, through
the numbers that they get; `config.seed` stays, so that the program that one seed compiles serves the others.
"""

import argparse
import concurrent.futures
import contextlib
import csv
import fcntl
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
# what is learned from those favours that test.
Trial = tuple[str, str, int, int, tuple[str, ...]]
QUICK = ('resolutions=(224,128,96)', 'batch_size=8', 'log_steps=20')
FAST = (*QUICK, 'optimizer.learning_rate=5e-5')
TRIALS: dict[str, Trial] = {
  'all': ('', '', 0, 240, FAST),
  'all, the teacher alone': ('', '', 0, 240, (*FAST, 'distillation=none')),
  '1,000 of all': ('', '', 1000, 240, FAST),
  '250 of all': ('', '', 250, 240, FAST),
  'a and b': ('', 'ab', 0, 240, FAST),
  'a and b, a third of the rate, three times as long': ('', 'ab', 0, 720, (*QUICK, 'optimizer.learning_rate=1.5e-5')),
  'all, private': ('private', '', 0, 240, QUICK),
  'a and b, private': ('private', 'ab', 0, 240, QUICK),
  'all, batch statistics': ('', '', 0, 240, (*FAST, 'optimizer.statistics=batch')),
  'all, averaged': ('', '', 0, 240, (*FAST, 'optimizer.ema_decay=0.99')),
  'all, random crops': ('', '', 0, 240, (*FAST, 'data.crop_area=(0.08,1.0)', 'data.crop_ratio=(0.75,1.3333)')),
  'all, three times as long': ('', '', 0, 720, FAST),
  'recipe': ('', '', 0, 625, ()),
}


def folder_of(data: pathlib.Path, workdir: pathlib.Path, begin: str, count: int, seed: int = 0) -> pathlib.Path:
  """Returns a folder of links to some of the photographs without labels; the seed draws which, and their order."""
  folder = workdir / 'images' / f'{begin or "all"}-{count or "all"}-{seed}'
  if not folder.is_dir():
    files = sorted(p for p in (data / 'photos_unlabelled').iterdir() if p.name[0] in (begin or p.name[0]))
    chosen = np.random.default_rng(seed).permutation(len(files))[: count or None]
    folder.mkdir(parents=True)
    for number, place in enumerate(chosen.tolist()):
      os.symlink(files[place].resolve(), folder / f'{number:05d}-{files[place].name}')
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


@functools.cache
def crops_of(preprocessing: preprocess.Preprocessing, names: tuple[str, ...], folder: pathlib.Path) -> Any:
  """Returns a labelled folder: uint8 crops `[N, r, r, 3]` of every size, from the full images, and labels `[N]`."""
  source, crop = unlabelled.ClassFolders(str(folder), names), evaluation_crops(preprocessing, SIZES)
  with concurrent.futures.ThreadPoolExecutor() as pool:
    rows = list(pool.map(lambda i: (crop(source[i]['image']), source[i]['label']), range(len(source))))
  return tuple(np.stack(size) for size in zip(*(crops for crops, _ in rows))), np.array([label for _, label in rows])


@functools.cache
def _logits(model: Any) -> Any:
  options = compiling.options(jax.devices()[0].platform, 'inference')
  return jax.jit(lambda plain, x: run(model, plain, x, train=False)[0], compiler_options=options)


def score(network: Network, folders: dict[str, pathlib.Path]) -> dict[str, dict[str, int]]:
  """Returns how many images of each folder the network is right on at each size, BatchNorm that of the nearest."""
  found = {}
  for name, folder in folders.items():
    right = dict.fromkeys(map(str, SIZES), 0)
    crops, labels = crops_of(network.preprocessing, network.class_names, folder)
    for size, images in zip(SIZES, crops):
      plain = network.at(size, 'nearest')[0].view(size)
      for first in range(0, len(labels), BATCH):
        some = images[first : first + BATCH]
        padded = np.concatenate([some, np.zeros((BATCH - len(some), *some.shape[1:]), np.uint8)])
        (inputs,) = preprocess.prepare((padded,), (size,), network.preprocessing.normalize)
        said = np.asarray(_logits(network.model)(plain, inputs)).argmax(-1)[: len(some)]
        right[str(size)] += int((said == labels[first : first + BATCH]).sum())
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
  start: pathlib.Path, data: pathlib.Path, workdir: pathlib.Path, name: str, trial: Trial, seed: int
) -> dict[str, Any]:
  """Returns a trial's numbers: fields, steps, seconds and what it is right on afterwards."""
  argument, begin, count, steps, fields = trial
  folder = folder_of(data, workdir, begin, count, seed)
  recipe = f'retarget:{argument}' if argument else 'retarget'
  made = recipes.make(recipe, [f'--config.{field}' for field in fields])
  made.init.checkpoint = str(start)
  made.data.dir, made.data.eval_dir = str(folder), str(photos152(data, workdir))
  made.epochs = steps / (len(list(folder.iterdir())) // made.batch_size)
  if not any(field.startswith('optimizer.warmup_epochs') for field in fields):
    made.optimizer.warmup_epochs = made.epochs / 10
  made.checkpoint.every_epochs = max(0.01, made.epochs / 2)
  config.validate(made)
  place = workdir / 'trials' / place_of(name, seed)
  result = train_and_evaluate(made, place)
  network = trained.load(place)
  found = score(network, {'nette1000': data / 'nette1000', 'photos152': photos152(data, workdir)})
  return {'name': name, 'seed': seed, 'right': found, 'steps': steps, 'batch': made.batch_size,
          'seconds': result['train_seconds'], 'recipe': recipe, 'images': folder.name, 'fields': list(fields),
          'resolutions': list(made.resolutions), 'machine': machine()}  # fmt: skip


def place_of(name: str, seed: int) -> str:
  """Returns the name of a trial's workdir."""
  return f'{name}, seed {seed}'.replace(', ', '-').replace(' ', '_')


def machine() -> str:
  """Returns the processor, how many of it, and the versions."""
  lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines() if pathlib.Path('/proc/cpuinfo').exists() else []
  names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
  versions = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in ('jax', 'flax', 'optax', 'numpy'))
  return (
    f'{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {(names or [platform.processor()])[0]}, '
    f'Python {platform.python_version()}, {versions}'
  )


def show(rows: list[dict[str, Any]]) -> None:
  """Prints the table: a line for each trial, mean and standard deviation over its seeds."""
  print('\n'.join(sorted({row['machine'] for row in rows})) + '\n')
  tests = ('nette1000', 'photos152')
  print(
    '| | steps, minutes | seeds | ' + ' | '.join(f'{test} {size}' for test in (*tests, 'all') for size in SIZES) + ' |'
  )
  print('|---' * (3 + 3 * len(SIZES)) + '|')
  for name in dict.fromkeys(row['name'] for row in rows):
    ours = [row for row in rows if row['name'] == name]
    right = np.array([[[row['right'][test][str(size)] for size in SIZES] for test in tests] for row in ours])
    right = np.concatenate([right, right.sum(1, keepdims=True)], 1).reshape(len(ours), -1)
    spread = right.std(0, ddof=min(1, len(ours) - 1))
    cells = [f'{m:.0f}' + (f' ± {s:.0f}' if len(ours) > 1 else '') for m, s in zip(right.mean(0), spread)]
    minutes = np.mean([row.get('seconds', 0) for row in ours]) / 60
    cost = f'{ours[0]["steps"]}, {minutes:.1f}' if 'steps' in ours[0] else '–'
    print(f'| {name} | {cost} | {len(ours)} | ' + ' | '.join(cells) + ' |')


@contextlib.contextmanager
def claimed(file: pathlib.Path, wait: bool = False) -> Iterator[bool]:
  """Yields whether no other process is in here with this file; with `wait`, waits until none is."""
  with file.open('w') as opened:
    try:
      fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
      alone = True
    except BlockingIOError:
      alone = False
    yield alone


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
  own = (args.argument, args.images, args.count, args.steps, tuple(args.fields))
  trials = {args.name: own} if args.name else {name: TRIALS[name] for name in args.trials.split(';') if name}
  compiling.keep_memory()
  compiling.keep_compiled_programs()
  rows, claims, start = args.workdir / 'rows', args.workdir / 'claims', args.workdir / 'start'
  for folder in (rows, claims):
    folder.mkdir(parents=True, exist_ok=True)

  def keep(place: str, row: dict[str, Any]) -> None:
    (rows / f'{place}.json').write_text(json.dumps(row, indent=1) + '\n')

  with claimed(args.workdir / 'lock', wait=True):
    if not start.exists():
      weights = args.data / 'weights' / 'mobilenet_v2_imagenet.pth'
      importing.save(importing.read(weights, 'mobilenetv2', resolutions=SIZES), start)
    folders = {'nette1000': args.data / 'nette1000', 'photos152': photos152(args.data, args.workdir)}
    seeds = [int(seed) for seed in args.seeds.split(',')]
    for seed in seeds:
      for images in {('', 0), *(trial[1:3] for trial in trials.values())}:
        folder_of(args.data, args.workdir, *images, seed)
  with claimed(claims / 'untrained') as ours:
    if ours and not (rows / '1-re-estimated.json').exists():
      network, images = trained.load(start), folder_of(args.data, args.workdir, '', 0, seeds[0])
      keep('0-as_it_comes', {'name': 'as it comes', 'right': score(network, folders), 'machine': machine()})
      found = score(recalibrated(network, images), folders)
      keep('1-re-estimated', {'name': 'statistics re-estimated', 'right': found, 'machine': machine()})
  for seed in seeds:
    for name, trial in trials.items():
      place = place_of(name, seed)
      with claimed(claims / place) as ours:
        if not ours or (rows / f'{place}.json').exists():
          continue
        began = time.monotonic()
        try:
          keep(place, teach(start, args.data, args.workdir, name, trial, seed))
        except (ValueError, OSError, FloatingPointError, Preempted) as error:
          sys.exit(f'error: {name}: {error}')
        print(f'{name}, seed {seed}: {(time.monotonic() - began) / 60:.1f} minutes in all')
  show([json.loads(file.read_text()) for file in sorted(rows.iterdir())])


if __name__ == '__main__':
  main()
