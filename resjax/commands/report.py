"""Measures a trained network and writes what was found as one HTML page, with the numbers in report.json beside it.

resjax report --workdir=runs/drnet_quickstart
resjax report --workdir=runs/inet_224 --resolution=224 --resolution=160 --resolution=96
"""

import argparse
import datetime
import json
import pathlib
import shlex
import sys
from typing import Any

from resjax.commands import options as shared
from resjax.commands import outputs, sizes
from resjax.routing import Budget
from resjax.telling import say, shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Describes the arguments."""
  shared.add_workdir(parser)
  shared.add_max_pixels(parser)
  shared.add_data(parser)
  sizes.add_arguments(parser)
  parser.add_argument('--out', type=shared.path, help='the page; default: report.html in the workdir')
  parser.add_argument('--images', type=shared.positive, default=10_000, help='that are scored at most (10000)')
  parser.add_argument('--rounds', type=shared.positive, default=5, help='of the measurement of seconds (5)')
  parser.add_argument(
    '--budget', help='of the shares by class and the gallery, as in resjax predict; default: as trained, or 0.5'
  )


def run(options: argparse.Namespace) -> None:
  """Studies the network, and writes the page and its numbers."""
  from resjax import report
  from resjax.data import sources
  from resjax.inference import Classifier, calibrating
  from resjax.inference import origin as origins
  from resjax.measuring import study
  from resjax.report import page

  out = pathlib.Path(options.out or pathlib.Path(options.workdir) / 'report.html')
  if out.suffix != '.html' or out.is_dir() or out.with_suffix('.json').name in ('results.json', 'costs.json'):
    raise ValueError(f'--out: got {out}, expected a file named *.html, other than results.html and costs.html')
  outputs.check_writable(out, b'<!doctype html>')
  outputs.check_writable(out.with_suffix('.json'))
  if options.budget is not None:
    Budget.parse(options.budget)  # before any work
  classifier, config = shared.load(options)
  if shared.without_data(config, options.workdir):
    raise ValueError(
      f'--config.data: none given, and {options.workdir} holds an imported network; expected images with labels: '
      '--config.data.source=folder --config.data.dir=DIR'
    )
  own = not sizes.differs(options)
  result = reported(report.read(options.workdir)) if own else None
  if not own:
    how = {'max_batch': options.max_batch, 'runtime': options.runtime}
    classifier = Classifier(sizes.asked(classifier.network, options), **how)
    config.eval.crop_fraction = classifier.network.preprocessing.crop_fraction
  source = sources.create(config, config.data.eval_split)
  if config.data.classes and tuple(source.class_names) != classifier.network.class_names:
    raise ValueError(
      f"config.data.classes: got {shown(config.data.classes)}, expected the network's classes, in their order (resjax "
      'evaluate scores some of them)'
    )
  shared.tell_other_data(options.workdir, config, config.data.eval_split, source, options.step)
  reference, origin = study.reference_of(classifier, config, images=options.images, say=tell)
  if origin == calibrating.FILE and (known := calibrating.origin(options.workdir)):
    origin += f', made on {origins.shown(*known, config.data.eval_split, source)}'
    tell(f'calibration: {origin}')
  found, pictures = study.study(
    classifier, source, reference, images=options.images, rounds=options.rounds, budget=options.budget, say=tell
  )
  found['calibration']['origin'] = origin
  found |= made(options, classifier, config) | {'reported': result}
  numbers = out.with_suffix('.json')
  numbers.write_text(json.dumps(found, indent=1, allow_nan=False) + '\n', encoding='utf-8')
  out.write_text(page.render(found, pictures), encoding='utf-8', errors='backslashreplace')
  say(f'In {out}; the numbers in {numbers}')


def tell(line: str) -> None:
  """Tells what takes long."""
  say(line, sys.stderr)


def made(options: argparse.Namespace, classifier: Any, config: Any) -> dict[str, Any]:
  """What the page was made with."""
  from resjax import config as configuration
  from resjax import recipes
  from resjax.report import results

  values = configuration.to_json(config)
  fields = configuration.flatten(values)
  default = configuration.flatten(configuration.to_json(recipes.make('default')))
  changed = {k: v for k, v in fields.items() if default.get(k) != v}
  given = [f'--{name.replace("_", "-")}={value}' for name, values in vars(options).items()
           if name not in ('command', 'fields') and values is not None
           for value in (map(shared.pixels, values) if name == 'resolution' else [values])]  # fmt: skip
  given += options.fields
  identity = classifier.engines.engine.runtime.identity
  return {
    'title': results.title({'method': values['method'], 'config': values}),
    'split': config.data.eval_split,
    'command': shlex.join(['resjax', 'report', *given]),
    'date': datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%d %H:%M UTC'),
    'machine': {k: getattr(identity, k) for k in ('machine', 'processors', 'device', 'devices')},
    'dtype': identity.dtype,
    'versions': results.versions(),
    'config': fields,
    'changed': changed,
  }


def reported(results: dict[str, Any] | None) -> dict[str, Any] | None:
  """Top-1 of each resolution as the run's own evaluation found it, and on how many images."""
  if results is None:
    return None
  entries = results['resolutions']
  return {
    'pyramid': results['config']['eval']['pyramid'],
    'top1': {name: entry['top1'] for name, entry in entries.items()},
    'images': max(entry['images'] for entry in entries.values()),
  }
