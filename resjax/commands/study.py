"""Puts the claims of a study to the test: its arms are trained with several seeds, and compared image by image.

resjax study configs/studies/main.py
resjax study configs/studies/main.py:photographs --data.dir=photos --seeds=3 --dry-run
resjax study drnet_quickstart --seeds=3

Runs that are finished are kept, each as one small file, and not repeated; several processes, and machines with a common
disk, share the work. A run that fails is told of, and the next one begins. Exit codes: 0, all is finished; 1, a run
failed, or an error; 75, stopped by SIGTERM, to be started again; 130, stopped by Ctrl-C. What a study is stands in
docs/studies.md.
"""

import argparse
import json
import pathlib
import shlex
import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from resjax import ending
from resjax.commands import options as shared
from resjax.telling import printable, say, shown

_MOST_SEEDS = 1_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Describes the arguments."""
  parser.add_argument('study', help='a file with get_study(), to which goes what follows a colon; or a recipe')
  parser.add_argument('--seeds', type=_seeds, help="how many, from 0 on, or which, as 0,3 or 2-4; default: the study's")
  parser.add_argument('--arms', type=_names, help='some of them by name, with commas between; default: all')
  parser.add_argument(
    '--data.dir',
    dest='data_dir',
    type=shared.path,
    help='images in place of the data: train/CLASS, val/CLASS',
  )
  parser.add_argument('--workdir', type=shared.path, help="of the runs; default: runs/studies/<the data's name>")
  parser.add_argument('--records', type=shared.path, help='of what they found; default: records in the workdir')
  parser.add_argument(
    '--dry-run', '--list', action='store_true', help='print what is finished, and the time that the rest will take'
  )
  parser.add_argument('--show', action='store_true', help='show what the finished runs say; nothing is run')
  parser.set_defaults(config=None)
  parser.epilog = 'Fields are set for all arms as --config.FIELD=VALUE.'


def run(options: argparse.Namespace) -> None:
  """Runs what is not finished, prints what was found and writes it.

  Raises:
    ValueError: The study, an arm of it or a field does not fit.
    FileNotFoundError: There is no such file, or the data are not there.
  """
  from resjax.evidence import definition, jobs

  study = definition.read(options.study, 'photographs' if options.data_dir else '')
  data, name = _folder(options.data_dir) if options.data_dir else ({}, study.scale)
  workdir = pathlib.Path(options.workdir or pathlib.Path('runs', 'studies', name))
  wanted = jobs.of_study(study, options.seeds or range(study.seeds), options.arms, options.fields, data)
  _run(options, study, wanted, workdir, pathlib.Path(options.records or workdir / 'records'))


def _run(
  options: argparse.Namespace, study: Any, wanted: list[Any], workdir: pathlib.Path, folder: pathlib.Path
) -> None:
  """Does what `run` does when all is known to fit."""
  with ending.importing():
    from absl import flags, logging

    from resjax import checkpoint, compiling
    from resjax.evidence import running, verdicts
    from resjax.training import preemption

  kept = running.Kept(folder)
  if options.dry_run:
    _list(wanted, kept)
    return
  logging.use_absl_handler()
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  logging.set_verbosity(logging.WARNING)
  outcome = running.Outcome()
  if not options.show:
    compiling.keep_compiled_programs()
    compiling.keep_memory()
    with checkpoint.news_only():
      try:
        running.check_data(wanted, kept)
        outcome = running.run_all(wanted, workdir, kept, lambda line: print(printable(line), flush=True))
      except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) or ending.interrupted():
          say(f'Stopped; what is finished is in {folder}: the same command goes on', sys.stderr)
          ending.at_once(130)
        raise
      except preemption.Preempted:
        say(f'Stopped by SIGTERM: the same command goes on from what is saved in {workdir}', sys.stderr)
        ending.at_once(preemption.EXIT_CODE)
  _tell(options, verdicts.findings(study, wanted, kept.all()), workdir)
  for job in outcome.taken:
    say(f'{running.name_of(job)}: another process has it, or what it starts from; the same command shows it later')
  if outcome.failed:
    lines = '; '.join(f'{running.name_of(job)}: {line}' for job, line in outcome.failed[:3])
    raise ValueError(f'{len(outcome.failed)} of {len(wanted)} runs failed ({lines})')


def _tell(options: argparse.Namespace, found: dict[str, Any], workdir: pathlib.Path) -> None:
  """Prints what was found and writes it: numbers, picture and page."""
  from resjax.report import evidence

  said = {
    name.replace('_', '.'): getattr(options, name) for name in ('seeds', 'arms', 'data_dir', 'workdir', 'records')
  }
  given = [options.study, *(f'--{name}={_text(value)}' for name, value in said.items() if value is not None)]
  found |= {'command': shlex.join(['resjax', 'study', *given, *options.fields])}
  evidence.show(found)
  stem = pathlib.Path(options.study.partition(':')[0]).stem
  workdir.mkdir(parents=True, exist_ok=True)
  place = workdir / stem
  place.with_suffix('.json').write_text(json.dumps(found, indent=1, allow_nan=False) + '\n', encoding='utf-8')
  evidence.save_picture(found, place.with_suffix('.png'))
  place.with_suffix('.html').write_text(evidence.render(found), encoding='utf-8', errors='backslashreplace')
  say(f'In {workdir}: {stem}.html, {stem}.png, {stem}.json')


def _list(wanted: list[Any], kept: Any) -> None:
  """Prints a line for each arm: how many runs are finished, and the time that the others will take."""
  from resjax.evidence import estimates
  from resjax.report.evidence import duration

  table = Table(title='runs', title_justify='left', title_style='bold', box=box.SIMPLE_HEAD)
  table.add_column('arm')
  for column in ('finished', 'to run', 'epochs', 'a run takes', 'left'):
    table.add_column(column, justify='right')
  rows = estimates.estimates(wanted, kept.all())
  for row in rows:
    each = 'not known' if row.seconds is None else duration(row.seconds) + '?' * (not row.measured)
    left = '' if row.seconds is None else duration(row.seconds * row.missing)
    cells = (str(row.finished), str(row.missing), f'{row.epochs:.4g}', each, left if row.missing else '')
    table.add_row(Text(printable(row.arm)), *cells)
  Console().print(table)
  known = [row.seconds * row.missing for row in rows if row.seconds is not None]
  unknown = sum(row.missing for row in rows if row.seconds is None)
  total = duration(sum(known)) + f', and {unknown} runs of which nothing is known' * bool(unknown)
  print(f'left, one after the other: {total} (? by multiply-adds and epochs, from other arms)')


def _folder(place: str) -> tuple[dict[str, Any], str]:
  """The fields that put a folder of images in the place of the data, and what it is called.

  Raises:
    FileNotFoundError: There is no such folder, or it has no classes.
  """
  from resjax.data.folders import classes_in
  from resjax.paths import path_of

  folder = path_of(place, '--data.dir')
  split = next((name for name in ('val', 'validation', 'test') if (folder / name).is_dir()), None)
  if split is None or not (folder / 'train').is_dir():
    raise FileNotFoundError(f'--data.dir: got {place}, expected a folder with train/CLASS and val/CLASS')
  fields = {'data.source': 'folder', 'data.name': '', 'data.dir': place, 'data.train_split': 'train'}
  classes = len(classes_in(folder / 'train'))
  return fields | {'data.eval_split': split, 'model.num_classes': classes}, folder.name


def _seeds(text: str) -> tuple[int, ...]:
  """Reads `5`, `0,3` or `2-4`."""
  if text.isdecimal() and 0 < int(text) <= _MOST_SEEDS:
    return tuple(range(int(text)))
  parts = [part.partition('-') for part in text.strip(',').split(',')]
  if ',' in text or '-' in text:
    ends = [(first, last if dash else first) for first, dash, last in parts]
    if all(a.isdecimal() and b.isdecimal() and int(a) <= int(b) < _MOST_SEEDS for a, b in ends):
      return tuple(dict.fromkeys(seed for a, b in ends for seed in range(int(a), int(b) + 1)))
  raise argparse.ArgumentTypeError(f'got {shown(text)}, expected how many, or which, such as 0,3 or 2-4')


def _names(text: str) -> tuple[str, ...]:
  """Reads names with commas between."""
  return tuple(dict.fromkeys(filter(None, (name.strip() for name in text.split(',')))))


def _text(value: Any) -> str:
  """An option as it can be given again."""
  return ','.join(map(str, value)) + ',' * (len(value) == 1) if isinstance(value, tuple) else str(value)
