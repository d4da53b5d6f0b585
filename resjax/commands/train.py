"""Trains and evaluates a network by a recipe.

resjax train --config=quickstart
resjax train --config=rsnet_r18 --workdir=runs/photos --config.data.source=folder --config.data.dir=photos

A recipe is one of the package, named, or a file of your own. Any of its fields can be set as --config.FIELD=VALUE;
resjax/recipes/default.py describes them all. The same command goes on where a stopped run left off, and shows the
result of a finished one; with --extend it goes on under another config: more epochs, another rate or batch size. Exit
codes: 0, done; 75, stopped by SIGTERM, to be started again; 130, stopped by Ctrl-C; 1, an error; 2, arguments that are
not known.
"""

import argparse
import contextlib
import faulthandler
import pathlib
import sys
from typing import Any

from resjax import config as configuration
from resjax import ending, recipes
from resjax.commands import options as shared
from resjax.recipes import default
from resjax.telling import printable, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Describes the arguments."""
  parser.add_argument('--config', help=f'a file, or one of {", ".join(recipes.NAMES)}; --config.FIELD=VALUE besides')
  parser.add_argument('--workdir', type=shared.path, help="the run's folder; default: runs/<name of the recipe>")
  parser.add_argument(
    '--extend',
    action='store_true',
    help="go on with the workdir's run under this config; epochs: of the whole run",
  )
  parser.add_argument(
    '--other-data', action='store_true', help="go on also where the data are not those that the workdir's run had"
  )
  parser.add_argument(
    '--dry-run', action='store_true', help='print the config as it will be, and what the workdir holds; nothing is run'
  )
  parser.add_argument('--coordinator', help='several hosts: HOST:PORT of process 0')
  parser.add_argument(
    '--processes', type=shared.positive, help='several hosts: how many processes; 1: do not look for a cluster'
  )
  parser.add_argument(
    '--process_id', '--process-id', type=shared.step, help='several hosts: which process this is, from 0'
  )


def run(options: argparse.Namespace) -> None:
  """Runs to the end, from where the run stands; bad input ends in one line.

  Raises:
    ValueError: The recipe or a field of it does not fit.
    FileNotFoundError: There is no such recipe.
  """
  if options.config is None:
    raise ValueError('--config is missing, for example --config=quickstart')
  config = configuration.load(options.config, options.fields)
  workdir = options.workdir or pathlib.Path('runs', recipes.name_of(options.config))
  if options.dry_run:
    config, recipe = planned(config, recipes.make(options.config), workdir)
    print('\n'.join(fields(config, recipe, default.get_config())))
    print()
    for text in f'--workdir={printable(str(workdir))}: {standing(config, workdir, options.extend)}'.split('\n'):
      say(text)
    return

  with ending.importing():  # after what ends in a second where it is wrong
    from absl import flags, logging

    from resjax import checkpoint, compiling
    from resjax.training import hosts, preemption
    from resjax.training.loop import train_and_evaluate

  faulthandler.enable()
  logging.use_absl_handler()
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # or absl's first line is on flags
  logging.set_verbosity(logging.WARNING)
  compiling.keep_compiled_programs()
  compiling.keep_memory()
  with checkpoint.news_only():  # also while the last line is said
    try:
      hosts.join(options.coordinator, options.processes, options.process_id)
      train_and_evaluate(config, workdir, extend=options.extend, other_data=options.other_data)
    except (Exception, KeyboardInterrupt) as error:
      if isinstance(error, KeyboardInterrupt) or ending.interrupted():
        say(f'Stopped; what was saved in {workdir} is good: the same command goes on', sys.stderr)
        ending.at_once(130)
      gone = isinstance(error, BrokenPipeError) and not hosts.many()
      if gone or (line := ending.line_of(error)) is None:
        raise
      hosts.leave(f'error: {line}')
    except preemption.Preempted:
      hosts.leave_together(
        f'Stopped by SIGTERM: the same command goes on from what is saved in {workdir}', preemption.EXIT_CODE
      )


def planned(config: Any, recipe: Any, workdir: str | pathlib.Path) -> tuple[Any, Any]:
  """Returns a config and its recipe with what the first leaves to its start in both, as far as that is there."""
  import jax

  jax.config.update('jax_platforms', 'cpu')  # accelerators stay free, and need not be there
  with contextlib.suppress(FileNotFoundError):
    config, opened = configuration.settled(config, workdir), config
    values = configuration.flatten(config)
    with recipe.ignore_type():
      recipe.update_from_flattened_dict({field: values[field] for field in configuration.left(opened)})
  return config, recipe


def fields(config: Any, recipe: Any, usual: Any) -> list[str]:
  """Returns a line for each field of a config: its value, and where that differs the recipe's and the default one.

  Args:
    config: As it will be.
    recipe: As the recipe alone makes it.
    usual: The default.
  """
  now, then, always = (configuration.flatten(each) for each in (config, recipe, usual))
  settings = {field: f'config.{field} = {value!r}' for field, value in now.items()}
  width = max(len(setting) for setting in settings.values() if len(setting) < 60)
  lines = []
  for field, setting in settings.items():
    set_here = [f'set here, {then[field]!r} in the recipe'] if now[field] != then.get(field) else []
    not_usual = [f'default {always[field]!r}'] if field in always and always[field] != now[field] else []
    said = '; '.join(set_here + not_usual)
    lines.append(f'{setting:{width}}  # {said}' if said else setting)
  return lines


def standing(config: Any, workdir: str | pathlib.Path, extend: bool) -> str:
  """Returns what a workdir holds, and what a config will make of it.

  Raises:
    ValueError: What it holds is damaged, or of a newer version.
    OSError: The disk does not let it be read.
  """
  from resjax import checkpoint

  try:
    meta = checkpoint.load_meta(workdir)
  except FileNotFoundError:
    return 'holds no run yet' + ', expected one to extend' * extend
  if meta.get('origin'):
    return 'holds an imported network, expected another folder to train in'
  stored = configuration.to_json(configuration.complete(meta, workdir))
  changed = configuration.changed(stored, config)
  held = f'holds a run, {"finished" if meta.get("finished") else "not finished"}, at step {meta["step"]}'
  if not changed:
    return f'{held}; it has this config'
  if extend:
    configuration.check_extension(changed, f'workdir {workdir}')
  lines = [f'config.{field}: {old!r} -> {new!r}' for field, (old, new) in changed.items()]
  return '\n  '.join([f'{held}; {"extended" if extend else "refused without --extend"}:', *lines])
