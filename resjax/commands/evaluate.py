"""Scores a trained or imported network on images with labels: at each resolution, all together, and class by class.

resjax evaluate --workdir=runs/mine
resjax evaluate --workdir=runs/mobilenet --data=photos/val --resolution=160
resjax evaluate --workdir=runs/inet_224 --workdir=runs/inet_160

--data is a folder with a folder of images for each class, named as the network's classes or by their numbers; or a
split of the run's own data, such as train, or of TFDS train[:10%]. Nothing is trained, and the run's results stay.
Several workdirs of the same classes are scored as an ensemble, on the data of the first.
"""

import argparse
import csv
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from resjax.commands import options as shared
from resjax.commands import outputs, sizes
from resjax.telling import cell, naming, printable, say

MEANS = ('logits', 'probabilities')  # as of measuring.together
_MOST_CLASSES = 12  # that are printed; classes.csv has all
_COLUMNS = 120  # that the table of classes needs

# What is written into the folder, and how that begins.
_BEGINS = {
  'classes.csv': b'class,images,',
  'confusion.csv': b'"true class, taken for:"',
  'confusion.png': b'\x89PNG',
  'evaluation.json': b'{',
  'mistakes.csv': b'image,label,guess,',
  'mistakes.png': b'\x89PNG',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Describes the arguments."""
  shared.add_workdir(parser, several=True)
  shared.add_max_pixels(parser)
  shared.add_data(parser)
  parser.add_argument(
    '--data',
    type=shared.image,
    help="a folder of class folders, or a split of the run's data; default: data.eval_split",
  )
  sizes.add_arguments(parser)
  parser.add_argument(
    '--mean', choices=MEANS, default='logits', help='of several workdirs: what their answers are the mean of (logits)'
  )
  parser.add_argument(
    '--out', type=shared.path, help='folder of the tables and pictures; default: evaluation in the workdir'
  )
  parser.add_argument(
    '--json', type=shared.path, help='write the figures to this file; default: evaluation.json in that folder'
  )
  parser.add_argument(
    '--mistakes', type=shared.positive, default=25, help='images that are named and shown (%(default)s)'
  )
  parser.add_argument('--raw', action='store_true', help='CSV: no apostrophe before names that spreadsheets compute')


def run(options: argparse.Namespace) -> None:
  """Scores, shows and writes."""
  from resjax import checkpoint
  from resjax.data.classes import labels_of
  from resjax.inference import runtimes
  from resjax.measuring import evaluation, together

  out = pathlib.Path(options.out or pathlib.Path(options.workdir[0]) / 'evaluation')
  check_out(out, options.json)
  workdirs, networks, config = loaded(options)
  network: Any = networks[0]
  meta = checkpoint.load_meta(options.workdir, step=options.step)
  source, data = opened(options.data, config, options.workdir, network.class_names, imported=bool(meta.get('origin')))
  classes = labels_of(source.class_names, network.class_names, data)
  with naming(out):
    out.mkdir(parents=True, exist_ok=True)
  with shared.bar(len(source), 'scoring') as seen:
    how: dict[str, Any] = {'max_batch': options.max_batch, 'runtime': runtimes.named(options.runtime), 'seen': seen}
    if len(networks) == 1:
      result = evaluation.evaluate(network, source, classes, **how)
    else:
      result = together.evaluate(networks, workdirs, source, classes, mean=options.mean, **how)
  mean = f', the ensemble by the mean of {options.mean}' * (len(networks) > 1)
  show(result, f'{" and ".join(workdirs)} on {data}{mean}')
  numbers = pathlib.Path(options.json or out / 'evaluation.json')
  figures = evaluation.summary(result) | {'workdir': str(options.workdir), 'step': meta['step'], 'data': data}
  figures['crop_fraction'] = network.preprocessing.crop_fraction
  if len(networks) > 1:
    figures |= {'workdirs': workdirs, 'mean': options.mean}
  with naming(numbers):
    numbers.write_text(json.dumps(figures, indent=1) + '\n', encoding='utf-8')
  with naming(out):
    write(result, figures['classes'], network, source, out, options.mistakes, options.raw)
  say(f'In {out}: classes.csv, confusion.csv, confusion.png, mistakes.csv, mistakes.png; the figures in {numbers}')


def check_out(out: pathlib.Path, numbers: str | None) -> None:
  """Checks before any work is done that what is written replaces nothing but what this command wrote.

  Raises:
    ValueError: There is something else.
    OSError: It could not be written.
  """
  if numbers:
    outputs.check_writable(numbers)
  if out.is_dir():
    for name, begins in _BEGINS.items():
      outputs.check_writable(out / name, begins)
  elif os.path.lexists(out):
    raise ValueError(f'--out: got {out}, expected a folder')


def loaded(options: argparse.Namespace) -> tuple[list[str], list[Any], Any]:
  """Returns the workdirs that are named, their networks as the options want them, and the first one's config.

  Of `options` itself `workdir` becomes the first.

  Raises:
    ValueError: A workdir is named twice; or as of `shared.load`.
  """
  workdirs = list(options.workdir)
  if len({os.path.realpath(workdir) for workdir in workdirs}) != len(workdirs):
    raise ValueError(f'--workdir: got {", ".join(workdirs)}, expected each of them once')
  found = []
  for options.workdir in workdirs:
    found.append(shared.load(options))
  options.workdir = workdirs[0]
  return workdirs, [sizes.asked(classifier.network, options) for classifier, _ in found], found[0][1]


def opened(
  data: str | None, config: Any, workdir: str, class_names: Sequence[str], *, imported: bool
) -> tuple[Any, str]:
  """Returns the images with labels that are meant, and what to call them.

  Args:
    data: A folder, or a split of the run's own data; None: the one that the run was scored on.
    config: Of the run.
    workdir: Where it is from.
    class_names: Of the network.
    imported: Whether the network was imported; it has no data then, unless fields name some.

  Raises:
    ValueError: There are no such data.
    FileNotFoundError: They are not there.
  """
  from resjax.data import sources, unlabelled

  if data is not None and os.path.isdir(data):
    return unlabelled.ClassFolders(data, class_names), f'the folder {data}'
  if imported and config.data.source == 'tfds' and not config.data.dir:
    got = 'nothing' if data is None else f'{data!r}, no folder'
    raise ValueError(f'--data: got {got}, and {workdir} holds an imported network; expected a folder of class folders')
  split = data or config.data.eval_split
  try:
    source = sources.create(config, split)
  except FileNotFoundError as error:
    raise FileNotFoundError(f'--data: got {split!r}, no folder, and as a split: {error}') from None
  shared.tell_other_data(workdir, config, split, source)
  return source, f'the split {split}'


def show(result: Any, title: str) -> None:
  """Prints what was found: accuracy in each way, and class by class."""
  from rich.table import Table
  from rich.text import Text

  from resjax.measuring import evaluation
  from resjax.report import table

  console = Console(width=max(_COLUMNS, Console().width))
  figures = evaluation.summary(result)
  console.print()
  console.print(Text(printable(title), style='bold'), soft_wrap=True)
  console.print(table.accuracy(figures))
  by_class = sorted(figures['classes'].items(), key=lambda item: item[1]['top1'][result.ways[0]])
  shown = Table(title='top-1 % by class, the lowest first', title_justify='left', title_style='bold', box=None)
  for column in ('class', 'images', *result.ways, 'most often taken for'):
    shown.add_column(column, justify='right' if column in ('images', *result.ways) else 'left')
  for name, entry in by_class[:_MOST_CLASSES]:
    cells = (f'{100 * share:.1f}' for share in entry['top1'].values())
    shown.add_row(Text(printable(name)), f'{entry["images"]:,}', *cells, Text(printable(entry['taken_for'] or '')))
  console.print(shown)
  if len(by_class) > _MOST_CLASSES:
    console.print(f'and {len(by_class) - _MOST_CLASSES} classes more in classes.csv', style='dim')
  for name, reason in result.unreadable:
    say(f'{name}: {reason}', sys.stderr)
  unreadable = f'; {len(result.unreadable):,} could not be read' if result.unreadable else ''
  console.print(
    f'{len(result.labels):,} images, each once, each resolution from the full image{unreadable}', style='dim'
  )


def write(
  result: Any, classes: dict[str, Any], network: Any, source: Any, out: pathlib.Path, most: int, raw: bool = False
) -> None:
  """Writes the tables and pictures.

  Args:
    result: An `Evaluation`.
    classes: Of its summary.
    network: That was scored.
    source: On which.
    out: Folder of the files.
    most: Mistakes that are named and shown.
    raw: Names in CSV files stand as they are, else as `telling.cell` makes them.
  """
  from resjax.data.crops import evaluation_crops
  from resjax.report import confusion, mistakes

  names, way = result.class_names, result.ways[0]
  matrix = result.confusion()
  confusion.write(matrix, names, out / 'confusion.csv', raw=raw)
  accuracy = f'top-1 {100 * result.top(1)[way]:.1f} % of {len(result.labels):,} images, {_how(way)}'
  confusion.draw(matrix, names, accuracy).savefig(out / 'confusion.png')
  with open(out / 'classes.csv', 'w', newline='', encoding='utf-8', errors='backslashreplace') as file:
    writer = csv.writer(file)
    writer.writerow(['class', 'images', *(f'top1_{name}' for name in result.ways), 'most_often_taken_for'])
    for name, entry in classes.items():
      shares = (f'{share:.6f}' for share in entry['top1'].values())
      texts = (text if raw else cell(text) for text in (name, entry['taken_for'] or ''))
      writer.writerow([next(texts), entry['images'], *shares, next(texts)])
  rows = mistakes.surest(
    result.labels, result.guesses[:, 0], result.ranks, result.odds[:, 0],
    most=most, ways=result.ways, name_of=result.images.__getitem__, class_names=names,
  )  # fmt: skip
  mistakes.write(rows, out / 'mistakes.csv', raw=raw)
  crop, numbers = evaluation_crops(network.preprocessing, network.resolutions[:1]), result.numbers
  crops = [crop(source[int(numbers[row['number']])]['image'])[0] for row in rows]
  title = f'The surest of the mistakes, {_how(way)}: what it is, and what it was taken for'
  mistakes.draw(rows, crops, title if rows else 'No mistakes').savefig(out / 'mistakes.png')


def _how(way: str) -> str:
  """What pictures call a way."""
  return f'{way} px' if way[0].isdigit() else way
