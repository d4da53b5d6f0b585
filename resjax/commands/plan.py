"""Says, before a TPU pod is rented, what a recipe's training step will need on it.

The step is compiled for the pod by XLA's own compiler, which comes with libtpu (pip install -e '.[tpu]'); no TPU and
no data are needed. With --batch or --no-search it is compiled once; otherwise a search for the largest batch
compiles it a few times. Compiling takes minutes of CPU time.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import time
from typing import Any

import jax
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from resjax import config as configuration
from resjax import report
from resjax.commands import options as shared
from resjax.commands import outputs
from resjax.planning import needs, topology
from resjax.report.table import macs_text
from resjax.resolution import at_widths
from resjax.resolution import name as key_of

EPILOG = """\
  resjax plan --config=rsnet_r18 --topology=v5e-256 --batch=8192 --config.model.dtype=bfloat16
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds what the command takes; `--config.FIELD=VALUE` besides."""
  parser.epilog = EPILOG
  parser.add_argument('--config', required=True, help='a recipe: a name, such as rsnet_r18, or a file')
  parser.add_argument('--topology', required=True, help=f'one of {", ".join(topology.NAMES)}')
  parser.add_argument('--batch', type=shared.positive, help="images of a step over all chips; by default the recipe's")
  parser.add_argument(
    '--search',
    action=argparse.BooleanOptionalAction,
    help='look for the largest batch that fits; by default where --batch is not given',
  )
  parser.add_argument(
    '--quick', action='store_true', help='compile with little optimisation: sooner, the memory is not quite the same'
  )
  parser.add_argument(
    '--utilization',
    type=shared.fraction,
    default=topology.UTILIZATION,
    help='assumed share of the peak rate; default %(default)s',
  )
  parser.add_argument('--json', type=shared.path, help='write the plan to this file too')


def run(options: argparse.Namespace) -> None:
  """Prints the plan.

  Raises:
    ValueError: A field or option does not fit.
    OSError: libtpu is not there, or the file cannot be written.
  """
  if options.json:
    outputs.check_writable(options.json)
  jax.config.update('jax_platforms', 'cpu')  # where there is a TPU, it stays free
  if options.quick:
    jax.config.update('jax_optimization_level', 'O0')
  result = make(options)
  Console().print(render(result))
  if options.json:
    pathlib.Path(options.json).write_text(json.dumps(result, indent=1) + '\n')


def make(options: argparse.Namespace) -> dict[str, Any]:
  """Returns the plan as JSON values: bytes, multiply-adds, images."""
  config = configuration.filled(configuration.load(options.config, options.fields))
  chip, chips = topology.chip_of(options.topology), topology.chips_of(options.topology)
  batch = config.batch_size if options.batch is None else options.batch
  if batch < 1 or batch % chips:
    name = 'config.batch_size' if options.batch is None else '--batch'
    raise ValueError(f'{name}: got {batch}, expected a multiple of the {chips} chips of {options.topology}')
  devices, begin = topology.devices_of(options.topology), time.monotonic()
  versions = report.versions() | {'libtpu': libtpu_version()}

  def measure(per_chip: int) -> needs.Need:
    Console(stderr=True).print(f'compiling for {per_chip} images on each chip ...', style='dim')
    return needs.need(config, devices, per_chip, chip.memory)

  first = measure(batch // chips)
  forward, step = needs.multiply_adds(config, first.per_chip)
  result = {
    'topology': options.topology,
    'chips': chips,
    'chip': {'memory': chip.memory, 'peak_macs_per_second': chip.peak},
    'batch_size': batch,
    'need': dataclasses.asdict(first) | {'programs': [_program(program) for program in first.programs]},
    'macs': {'forward_per_image': forward // first.per_chip, 'per_chip': step, 'step': step * chips},
    'utilization': options.utilization,
    'images_per_second': batch * options.utilization * chip.peak / step,
    'quick': options.quick,
  }
  if options.search or (options.search is None and options.batch is None):
    fits, refused, measured = needs.largest(measure, first, chip.memory)
    memory = {str(n.per_chip): n.memory for n in sorted(measured, key=lambda n: n.per_chip)}
    result['largest'] = {'per_chip': fits, 'refused': refused, 'memory': memory}
  return result | {
    'seconds': time.monotonic() - begin,
    'versions': versions,
    'config': configuration.to_json(config),
  }


def libtpu_version() -> str:
  """Returns the version of the compiler, or where it is where it came without a package."""
  try:
    return importlib.metadata.version('libtpu')
  except importlib.metadata.PackageNotFoundError:
    return os.environ.get('TPU_LIBRARY_PATH', 'unknown')


def _program(program: needs.ProgramNeed) -> dict[str, Any]:
  """A program's fields and its memory in all."""
  return dataclasses.asdict(program) | {'memory': program.memory}


def render(result: dict[str, Any]) -> Group:
  """Returns a plan, as `make` returns it, as something that rich prints."""
  need, config = result['need'], result['config']
  branches = ', '.join(map(key_of, at_widths(configuration.from_json(config))))
  title = (
    f'{pathlib.PurePath(config["model"]["name"])} at {branches} px, '
    f'{config["model"]["dtype"]}, on {result["topology"]}: {result["chips"]} chips, '
    f'{need["per_chip"]} images on each, {result["batch_size"]:,} in a step'
  )
  parts: list[RenderableType] = [Text(), Text(title, style='bold')]
  if need['programs']:
    parts.append(_memory(result))
    parts.append(Text(_collectives(result)))
  if not need['fits']:
    parts.append(Text(_verdict(result), style='yellow'))
  counts = result['macs']
  parts += [
    Text(
      f'multiply-adds: {macs_text(counts["forward_per_image"])} forward for an image; '
      f'{counts["step"] / 1e12:,.2f} T a step, {macs_text(counts["per_chip"])} on each chip'
    ),
    Text(
      f'images a second: {result["images_per_second"]:,.0f} at {100 * result["utilization"]:.0f} % of the peak rate '
      f'(assumed), {result["images_per_second"] / result["chips"]:,.0f} on each chip'
    ),
  ]
  if found := result.get('largest'):
    tried = ', '.join(f'{images}: {_gib(memory)}' for images, memory in found['memory'].items())
    parts.append(Text(f'largest batch that fits: {found["per_chip"]} images on each chip', style='bold'))
    parts.append(Text(f'  compiled, GiB: {tried}; {found["refused"]} do not fit'))
  parts.append(Text(_assumptions(result), style='dim'))
  return Group(*parts)


def _memory(result: dict[str, Any]) -> Table:
  """The memory of each program, GiB."""
  table = Table(box=box.SIMPLE_HEAD)
  table.add_column('GiB on each chip')
  columns = ('arguments', 'outputs', 'temporaries', 'code', 'held', 'memory')
  for column in (*columns[:-1], 'in all', 'of'):
    table.add_column(column, justify='right')
  for program in result['need']['programs']:
    row = (_gib(program[column]) for column in columns)
    table.add_row(program['name'], *row, _gib(result['chip']['memory']))
  return table


def _verdict(result: dict[str, Any]) -> str:
  """That the batch does not fit."""
  return (
    f'does not fit: a program needs at least {_gib(result["need"]["memory"])} GiB on each chip, '
    f'which has {_gib(result["chip"]["memory"])}'
  )


def _collectives(result: dict[str, Any]) -> str:
  """What a step sends."""
  kinds: dict[str, int] = {}
  for program in result['need']['programs']:
    for kind, size in program['collectives'].items():
      kinds[kind] = kinds.get(kind, 0) + size
  listed = ', '.join(f'{kind} {size / 1e6:.1f} MB' for kind, size in kinds.items()) or 'none'
  return f'collectives a step, on each chip: {listed}'


def _assumptions(result: dict[str, Any]) -> str:
  """What the figures rest on."""
  peak = 2 * result['chip']['peak_macs_per_second'] / 1e12
  level = 'with little optimisation (--quick)' if result['quick'] else 'as training does'
  return (
    f'Compiled {level} by libtpu {result["versions"]["libtpu"]}, jax {result["versions"]["jax"]}; not run. '
    'Memory is what one step needs: a batch that waits for its turn and the evaluation come on top. '
    'The bytes of collectives are the sizes of their results; a ring sends about twice that. '
    'Backward counts as twice forward. '
    f'Peak rate of a chip: documentation of Cloud TPU ({peak:.0f} TFLOPS in bfloat16).'
  )


def _gib(size: int) -> str:
  return f'{size / topology.GIB:.2f}'
