"""Classifies images with a trained network, at one resolution or each at the one that a budget allows.

resjax predict photos/ --workdir=runs/drnet_quickstart --budget=0.6 --csv=out.csv
"""

import argparse
import contextlib
import csv
import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from resjax.commands import options as shared
from resjax.routing import DIALLED


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Describes the arguments."""
  parser.add_argument('images', nargs='+', metavar='IMAGE', help='a file, or a folder of files')
  shared.add_workdir(parser)
  parser.add_argument('--resolution', type=shared.resolution, help='one for all, in pixels: 160, or 128x192')
  parser.add_argument(
    '--budget', help="mean cost of an image: a share of the largest's (0.6), multiply-adds (9e8) or milliseconds (12ms)"
  )
  parser.add_argument(
    '--router', help='; '.join(f'{name}: {kind.help}' for name, kind in DIALLED.items()) + '; default: the first it has'
  )
  parser.add_argument(
    '--follow', action='store_true', help='keep these images on the budget, also where the calibration was of others'
  )
  parser.add_argument(
    '--unseen-by', choices=('interpolate', 'nearest'), default='interpolate', help='BatchNorm of sizes not trained'
  )
  parser.add_argument('--csv', help='write the predictions to this file')
  parser.add_argument(
    '--shard',
    type=shared.shard,
    default=(0, 1),
    metavar='I/N',
    help='every N-th image from the I-th on: one part a host',
  )


def run(options: argparse.Namespace) -> None:
  """Predicts, writes, and says what could not be read."""
  from resjax.inference import images

  begin = time.monotonic()
  if options.csv:
    shared.check_writable(options.csv)
  classifier, _ = shared.load(options)
  index, count = options.shard
  wanted = images.items(options.images)[index::count]
  stream = classifier.stream(
    wanted,
    resolution=options.resolution,
    budget=options.budget,
    router=options.router,
    follow=options.follow,
    unseen_by=options.unseen_by,
  )
  found = []
  with output(options.csv) as write:
    for prediction in shared.progress(stream, len(wanted), 'predicting'):
      found.append(prediction)
      write(prediction)
  summary(found, classifier, time.monotonic() - begin)
  counts = classifier.counts
  if counts.fixed or counts.promoted:
    print(
      f'{counts.promoted} images ran at a higher resolution than was chosen, and {counts.fixed} of {counts.batches} '
      'batches at one: faster than in groups',
      file=sys.stderr,
    )
  if options.csv:
    print(f'In {options.csv}', file=sys.stderr)
  bad = [p for p in found if p.error is not None]
  if bad:
    sys.exit(f'error: {len(bad)} of {len(found)} images could not be read')


@contextlib.contextmanager
def output(path: str | None) -> Iterator[Any]:
  """Yields what writes a prediction: a row of a CSV file, or a line for the reader."""
  if path is None:
    yield (
      lambda p: (
        p.error is None
        and print(
          f'{p.image}  {p.label}  {100 * p.probability:.1f} %  {shared.pixels(p.resolution)} px  {p.macs / 1e6:,.2f} M'
        )
      )
    )
    return
  with open(path, 'w', newline='') as file:
    fields = ['image', 'class_index', 'label', 'probability', 'resolution', 'macs', 'error']
    writer = csv.DictWriter(file, fields)
    writer.writeheader()
    yield lambda p: writer.writerow(dataclasses.asdict(p) | {'resolution': shared.pixels(p.resolution)})


def summary(found: list[Any], classifier: Any, seconds: float) -> None:
  """Prints what the images cost, where they ran, and those that could not be read."""
  good = [p for p in found if p.error is None]
  for p in found:
    if p.error is not None:
      print(f'{p.image}: {p.error}', file=sys.stderr)
  if not good:
    return
  share = Counter(shared.pixels(p.resolution) for p in good)
  where = ', '.join(f'{100 * n / len(good):.1f} % at {r} px' for r, n in share.most_common())
  mean = sum(p.macs for p in good) / len(good)
  print(
    f'{len(good)} images in {seconds:.1f} s, start-up included; {where}; {mean / 1e6:,.2f} M multiply-adds each',
    file=sys.stderr,
  )
