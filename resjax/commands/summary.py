"""Shows what a network is made of: parameters, multiply-adds and activations by layer and resolution.

resjax summary --config=rsnet_r18 --config.resolutions=(160,96)
resjax summary --workdir=runs/photos --depth=2

Neither data nor devices are needed, and of a workdir only the config is read. Activations are the outputs of all layers
for one image, whether a program keeps them or not; what a training step takes in all says `resjax plan`.
"""

import argparse
import json
import pathlib
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from resjax import config as configuration
from resjax import recipes
from resjax.commands import options as shared
from resjax.commands import outputs
from resjax.telling import printable

UNITS = {'macs': 'parameters, M multiply-adds', 'activations': 'activations, MB'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Describes the arguments."""
  parser.add_argument('--config', help=f'a file, or one of {", ".join(recipes.NAMES)}; --config.FIELD=VALUE besides')
  parser.add_argument('--workdir', type=shared.path, help='of a run, or of an imported network')
  parser.add_argument('--depth', type=shared.positive, default=1, help='1: blocks (1); 2 and more: the layers in them')
  parser.add_argument('--json', type=shared.path, help='write the numbers to this file, too')


def run(options: argparse.Namespace) -> None:
  """Prints the table.

  Raises:
    ValueError: Neither a config nor a workdir is given, or both.
    OSError: There is no such workdir, or the file can't be written.
  """
  if (options.config is None) == (options.workdir is None):
    got = 'neither' if options.config is None else 'both'
    raise ValueError(f'--config, --workdir: got {got}, expected one of them, for example --config=quickstart')
  if options.workdir and options.fields:
    raise ValueError(f'{options.fields[0]}: got a field with --workdir, expected --config beside it')
  if options.json:
    outputs.check_writable(options.json)
  from resjax.measuring import summary

  result = summary.of_config(of_options(options), options.depth)
  tables = render(result)
  width = max(Console(width=10_000).measure(table).maximum for table in tables)
  console = Console(width=max(Console().width, width))  # no number is cut short
  for table in tables:
    console.print(table)
  print(parameters(result['parameters']))
  if size := result.get('size'):
    print(packed(size))
  if options.json:
    pathlib.Path(options.json).write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')


def of_options(options: argparse.Namespace) -> Any:
  """Returns the config that is meant."""
  if options.config is not None:
    return configuration.filled(configuration.load(options.config, options.fields))
  import jax

  from resjax import checkpoint

  jax.config.update('jax_platforms', 'cpu')  # accelerators stay free, and need not be there
  return configuration.complete(checkpoint.load_meta(options.workdir), options.workdir)


def render(result: dict[str, Any]) -> list[Table]:
  """Returns the layers as tables: parameters and multiply-adds; activations; the same of a predictor."""
  from resjax.measuring import summary

  parts = [_table(result['layers'], result['total'], kind) for kind in UNITS]
  if result['predictor'] is not None:
    parts.append(_table(result['predictor'], summary.added('all', result['predictor']), 'macs', 'predictor'))
  return parts


def _table(layers: list[dict[str, Any]], total: dict[str, Any], kind: str, of: str = 'layer') -> Table:
  """What layers have of one kind."""
  table = Table(box=box.SIMPLE_HEAD, show_footer=True)
  table.add_column(f'{of}: {UNITS[kind]}', footer='all', no_wrap=True)
  kept = ('shared', 'private') if kind == 'macs' else ()
  for column in kept:
    table.add_column(column, footer=f'{total[column]:,}', justify='right', no_wrap=True)
  for resolution, number in total[kind].items():
    table.add_column(f'{resolution} px', footer=f'{number / 1e6:,.2f}', justify='right', no_wrap=True)
  for layer in layers:
    counts = [f'{layer[column]:,}' if layer[column] else '' for column in kept]
    work = [f'{number / 1e6:,.2f}' if number else '' for number in layer[kind].values()]
    table.add_row(Text(printable(layer['name'] or '(outside of modules)')), *counts, *work)
  return table


def parameters(count: dict[str, int]) -> str:
  """Returns how many parameters there are, and where."""
  private = f'{count["sets"]} x {count["private"]:,} private'
  if count['all_sets'] != count['sets'] * count['private']:  # those of other widths have fewer channels
    private = f'{count["all_sets"]:,} private in {count["sets"]} sets'
  parts = [f'{count["shared"]:,} shared', private]
  parts.append(f'{count["alpha"]} of alpha')
  if count['predictor']:
    parts.append(f'{count["predictor"]:,} of the predictor')
  return f'{count["all"]:,} parameters: {", ".join(parts)}'


def packed(size: dict[str, Any]) -> str:
  """Returns how large a quantised network is."""
  bits = 'no quantised weights' if size['bits'] is None else f'{size["weights"]:,} weights of {size["bits"]} bits'
  return f'{bits}: {size["packed"] / 1e6:,.2f} MB packed, {size["plain"] / 1e6:,.2f} MB in float32, which it runs in'
