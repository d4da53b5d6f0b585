"""Classifies images with a trained network, at one resolution or each at the one that a budget allows.

resjax predict photos/ --workdir=runs/drnet_quickstart --budget=0.6 --top-k=5 --output=out.csv
"""

import argparse
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from resjax.commands import options as shared
from resjax.commands import outputs
from resjax.routing import Budget, choosable
from resjax.telling import printable, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Describes the arguments."""
  parser.add_argument('images', nargs='+', type=shared.image, metavar='IMAGE', help=shared.IMAGES)
  shared.add_workdir(parser, bundles=True)
  shared.add_max_pixels(parser)
  parser.add_argument('--resolution', type=shared.resolution, help='one for all, in pixels: 160, or 128x192')
  parser.add_argument(
    '--budget', help="mean cost of an image: a share of the largest's (0.6), multiply-adds (9e8) or milliseconds (12ms)"
  )
  parser.add_argument(
    '--router',
    help='; '.join(f'{name}: {kind.help}' for name, kind in choosable().items()) + '; default: the first it has',
  )
  parser.add_argument(
    '--follow', action='store_true', help='keep these images on the budget, also where the calibration was of others'
  )
  parser.add_argument(
    '--unseen-by', choices=('interpolate', 'nearest'), default='interpolate', help='BatchNorm of sizes not trained'
  )
  parser.add_argument('--top-k', type=shared.positive, default=1, metavar='K', help='name so many classes (1)')
  parser.add_argument(
    '--output',
    type=shared.path,
    metavar='FILE',
    help='write the predictions to this file: .csv, .jsonl or .parquet; with --format a folder/, for a file of each '
    'shard',
  )
  parser.add_argument(
    '--format',
    choices=('csv', 'jsonl', 'parquet'),
    help="default: by the file's ending, or lines to read",
  )
  parser.add_argument('--csv', type=shared.path, metavar='FILE', help='the same as --output=FILE --format=csv')
  parser.add_argument('--raw', action='store_true', help='CSV: no apostrophe before names that spreadsheets compute')
  parser.add_argument(
    '--shard',
    type=shared.shard,
    default=(0, 1),
    metavar='I/N',
    help='every N-th image from the I-th on: one part a host',
  )


def run(options: argparse.Namespace) -> None:
  """Predicts, writes, and says what could not be read."""
  begin = time.monotonic()
  path, kind = place(options)
  index, count = options.shard
  wanted = shared.images(options.images)[index::count]
  options.max_batch = enough(len(wanted), options.max_batch, options.budget)
  classifier, _ = shared.load(options, bundles=True)
  stream = classifier.stream(
    wanted,
    resolution=options.resolution,
    budget=options.budget,
    router=options.router,
    follow=options.follow,
    unseen_by=options.unseen_by,
    top_k=options.top_k,
  )
  made_on = calibration(options) if options.budget is not None else ''
  found = []
  with output(path, kind, options.top_k, options.raw) as write:
    for prediction in shared.progress(stream, len(wanted), 'predicting'):
      found.append(prediction)
      write(prediction)
  summary(found, classifier, time.monotonic() - begin)
  if made_on:
    say(made_on, sys.stderr)
  counts = classifier.counts
  if counts.fixed or counts.promoted:
    print(
      f'{counts.promoted} images ran at a higher resolution than was chosen, and {counts.fixed} of {counts.batches} '
      'batches at one: faster than in groups',
      file=sys.stderr,
    )
  if path:
    say(f'In {path}', sys.stderr)
  bad = [p for p in found if p.error is not None]
  if bad:
    sys.exit(f'error: {len(bad)} of {len(found)} images could not be read')


def enough(images: int, most: int, budget: str | None) -> int:
  """Returns the images of the largest program: no more than it takes, for each is compiled and measured at the start.

  Args:
    images: That are predicted.
    most: That it may have.
    budget: One of milliseconds goes by the times of the largest.
  """
  if budget is not None and Budget.parse(budget).timed:
    return most
  return min(most, 1 << max(0, images - 1).bit_length())


def calibration(options: argparse.Namespace) -> str:
  """What a budget was set on; nothing where that is in a bundle."""
  from resjax.inference import calibrating, origin

  known = calibrating.origin(options.workdir)
  return '' if known is None else f'budget {options.budget}: calibrated on {origin.shown(*known)}'


@contextlib.contextmanager
def output(path: str | None, kind: str | None, top_k: int, raw: bool = False) -> Iterator[Any]:
  """Yields what writes a prediction: into a file, as lines of a format, or as a line for the reader."""
  if path is None and kind is None:
    yield lambda p: p.error is None and print(line(p))
    return
  from resjax.inference import writing

  with writing.writer(path, kind or 'csv', top_k, raw=raw) as write:
    yield write


def line(p: Any) -> str:
  """A prediction for the reader."""
  classes = ', '.join(f'{printable(guess.label)}  {100 * guess.probability:.1f} %' for guess in p.top)
  return f'{printable(p.image)}  {classes}  {shared.pixels(p.resolution)} px  {p.macs / 1e6:,.2f} M'


def place(options: argparse.Namespace) -> tuple[str | None, str | None]:
  """Returns the file to write to, or None, and its format, or None for lines to read.

  Raises:
    ValueError: Options contradict each other, the format can't be written, or the file holds something else.
    OSError: There is no such folder.
  """
  from resjax.inference import writing

  if options.csv and (options.output or options.format not in (None, 'csv')):
    other = f'--output={options.output}' if options.output else f'--format={options.format}'
    raise ValueError(f'--csv: got {options.csv} and {other}, expected --output=FILE alone, with --format')
  path = options.csv or options.output
  kind = 'csv' if options.csv else options.format
  if path is None and kind is None:
    return None, None
  kind = writing.format_of(path, kind)
  if path and (path.endswith('/') or os.path.isdir(path)):
    path = part_of(path, kind, *options.shard)
  if path:
    outputs.check_writable(path, writing.BEGINS[kind])
  return path, kind


def part_of(folder: str, kind: str, index: int, count: int) -> str:
  """Returns the file of a shard in a folder, which is made where it is not there.

  Raises:
    ValueError: The folder has files of other shards than these.
    OSError: It can't be made.
  """
  os.makedirs(folder, exist_ok=True)
  ending = f'-of-{count:05}.{kind}'
  if others := [name for name in sorted(os.listdir(folder)) if name.startswith('part-') and not name.endswith(ending)]:
    raise ValueError(f'--output: got {folder}, which has {others[0]}; expected a folder of files named part-*{ending}')
  return os.path.join(folder, f'part-{index:05}{ending}')


def summary(found: list[Any], classifier: Any, seconds: float) -> None:
  """Prints what the images cost, where they ran, and those that could not be read."""
  good = [p for p in found if p.error is None]
  for p in found:
    if p.error is not None:
      print(f'{printable(p.image)}: {printable(p.error)}', file=sys.stderr)
  if not good:
    return
  share = Counter(shared.pixels(p.resolution) for p in good)
  where = ', '.join(f'{100 * n / len(good):.1f} % at {r} px' for r, n in share.most_common())
  mean = sum(p.macs for p in good) / len(good)
  print(
    f'{len(good)} images in {seconds:.1f} s, start-up included; {where}; {mean / 1e6:,.2f} M multiply-adds each',
    file=sys.stderr,
  )
