"""Measures images per second and latency, at one resolution and routed, and how much of the saving is real.

resjax benchmark --workdir=runs/drnet_quickstart --budget=0.6
resjax benchmark --config=rsnet_r18 --resolutions=224,160,96 --mix=0.4,0.3,0.3

With --workdir, a trained and calibrated network with its routers. With --config, a freshly initialised one: the mix
says how many images run at each resolution, and where the figures are end to end, a predictor runs on every image and
its choice is replaced by the mix. `real / theory` is the speed-up over every image at the largest resolution, measured
in the same rounds, over the speed-up in multiply-adds.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from resjax.commands import options as shared
from resjax.commands import outputs
from resjax.resolution import Resolution, at_widths, plain
from resjax.routing import Budget, choosable
from resjax.telling import shown

_IMAGES = 256  # that are kept in memory; larger rounds take some again
# Compiler options of a program that takes longer to optimise than to run.
_RUNS_ONCE = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}
_COLUMNS = 120  # that the table needs


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Describes the arguments."""
  which = parser.add_mutually_exclusive_group(required=True)
  shared.add_network(which)
  which.add_argument('--config', help='a recipe: a name, such as rsnet_r18, or a file; --config.FIELD=VALUE besides')
  parser.add_argument('--step', type=shared.step, help='of the checkpoint; default: the latest')
  parser.add_argument('--budget', help='with --workdir: mean cost of an image, as for resjax predict (0.6)')
  parser.add_argument('--routers', help='with --workdir: some of ' + ','.join(choosable()) + '; default: all it has')
  parser.add_argument('--resolutions', help="with --config: highest first; default: the recipe's")
  parser.add_argument('--mix', help='with --config: shares of the resolutions; default: equal ones')
  parser.add_argument('--batches', default='1,8,32,128', help='images of a call (%(default)s)')
  parser.add_argument('--scopes', default='network,arrays,encoded', help='what is measured (%(default)s)')
  parser.add_argument(
    '--rounds', type=shared.positive, default=5, help='that count, after one that does not (%(default)s)'
  )
  parser.add_argument('--round-images', type=shared.batch, default=16, help='in a round at least (%(default)s)')
  parser.add_argument('--max-batch', type=shared.batch, default=64, help='images of the largest program (%(default)s)')
  shared.add_dtype(parser)
  shared.add_runtime(parser)
  shared.add_max_pixels(parser)
  parser.add_argument('--threads', type=shared.batch, help='that decode; default: one for each processor')
  parser.add_argument(
    '--images',
    type=shared.image,
    help="a file or folder; default: the run's evaluation images, with --config two photographs' parts",
  )
  parser.add_argument('--json', type=shared.path, help='write the figures to this file')


def run(options: argparse.Namespace) -> None:
  """Measures and shows."""
  check(options)
  batches = numbers(
    options, 'batches', int, 'positive integers such as 1,8,32, at most 65536', lambda n: 0 < n <= 2**16
  )
  begin = time.monotonic()
  prepare = of_workdir if options.workdir else of_config
  classifier, pool, routed, notes = prepare(options, max(*batches, options.round_images))
  from resjax.measuring import benchmark

  engines = classifier.engines
  say(f'ready in {time.monotonic() - begin:.0f} s; {len(batches)} batch sizes, {options.rounds} rounds each')
  found = benchmark.run(
    engines,
    pool,
    routed,
    scopes=options.scopes.split(','),
    batches=shared.progress(batches, len(batches), 'measuring'),
    rounds=options.rounds,
    images=options.round_images,
  )
  result = description(options, engines, notes) | found
  show(result)
  if options.json:
    pathlib.Path(options.json).write_text(json.dumps(result, indent=1) + '\n')


def check(options: argparse.Namespace) -> None:
  """Raises ValueError where options contradict each other, or OSError where there is no place for the figures."""
  from resjax.measuring import benchmark

  mine, others = ('workdir', ('mix', 'resolutions')) if options.workdir else ('config', ('budget', 'routers', 'step'))
  for name in others:
    if getattr(options, name) is not None:
      raise ValueError(f'--{name}: got {getattr(options, name)} with --{mine}, expected it with the other alone')
  for name, known in (('scopes', benchmark.SCOPES), ('routers', choosable())):
    for word in (getattr(options, name) or next(iter(known))).split(','):
      if word not in known:
        raise ValueError(f'--{name}: got {word!r}, expected some of {",".join(known)}')
  if options.json:
    outputs.check_writable(options.json)


def numbers(
  options: argparse.Namespace, name: str, kind: type, expected: str, fits: Callable[[Any], bool]
) -> tuple[Any, ...]:
  """Returns the comma-separated numbers of an option.

  Raises:
    ValueError: One is none, or does not fit; names the option and what was expected.
  """
  text = getattr(options, name)
  try:
    found = tuple(kind(word) for word in text.split(','))
    tuple(map(float, found))  # none is beyond all floats
  except (ValueError, OverflowError):
    found = ()
  if not found or not all(math.isfinite(n) and fits(n) for n in found):
    raise ValueError(f'--{name}: got {shown(text)}, expected {expected}')
  return found


def mix_of(options: argparse.Namespace, resolutions: tuple[Resolution, ...]) -> tuple[float, ...]:
  """Returns the shares of the resolutions.

  Raises:
    ValueError: They are not one for each resolution, or do not sum to 1.
  """
  if options.mix is None:
    return (1 / len(resolutions),) * len(resolutions)
  mix = numbers(options, 'mix', float, 'shares such as 0.4,0.3,0.3', lambda share: share >= 0)
  if len(mix) != len(resolutions):
    raise ValueError(f'--mix: got {len(mix)} shares, expected one for each resolution of {resolutions}')
  if abs(sum(mix) - 1) > 1e-6:
    raise ValueError(f'--mix: got {options.mix}, which sums to {sum(mix):.6g}, expected 1')
  return mix


def of_config(options: argparse.Namespace, most: int) -> tuple[Any, Any, Callable[[int], list[Any]], list[str]]:
  """Returns a fresh network with a predictor, images, the mix's ways, and what to say of it."""
  import jax

  from resjax import compiling, drnet, models, recipes, trained
  from resjax import config as configuration
  from resjax.inference import Classifier
  from resjax.inference.opening import limited
  from resjax.measuring import benchmark
  from resjax.measuring.pool import Pool, photographs
  from resjax.models.predictor import PREDICTORS

  fields = [*options.fields, '--config.method=drnet', '--config.data.crops=same', '--config.sandwich=0']
  if options.resolutions is not None:
    sizes = numbers(options, 'resolutions', int, 'pixels such as 224,160,96', lambda r: r > 0)
    fields.append(f'--config.resolutions={sizes}')
  made = recipes.make(options.config, fields)  # of an RS-Net the predictor is not meant: it looks at what there is
  if not made.drnet.predictor.size and PREDICTORS[made.drnet.predictor.name][1] > made.resolutions[0]:
    fields.append(f'--config.drnet.predictor.size={made.resolutions[0]}')
  config = configuration.filled(configuration.load(options.config, fields))
  mix = mix_of(options, at_widths(config))
  options.mix = ','.join(f'{share:g}' for share in mix)
  compiling.keep_compiled_programs()
  count = min(most, _IMAGES)
  wanted = shared.images([options.images]) if options.images else photographs(config.resolutions[0], count)
  model = models.from_config(config)
  init = jax.jit(lambda key: drnet.init(model, config, key), compiler_options=_RUNS_ONCE)
  variables = init(jax.random.key(0))
  network = limited(trained.of_config(config, variables), options.max_pixels)
  pool = Pool(wanted[:count], network, threads=options.threads or os.cpu_count() or 1)
  say('compiling the programs and measuring their costs ...')
  classifier = Classifier(network, max_batch=options.max_batch, dtype=options.dtype, runtime=options.runtime)
  engines = classifier.engines

  def routed(count: int) -> list[Any]:
    return [benchmark.by_mix(engines, mix, scope, count) for scope in benchmark.SCOPES]

  name, cost = config.drnet.predictor.name, engines.predictor_macs / 1e6
  note = f'mix {options.mix}; end to end, predictor {name!r} ({cost:.2f} M) runs, and its choice is replaced by the mix'
  return classifier, pool, routed, [f'a freshly initialised {config.model.name}, {note}']


def of_workdir(options: argparse.Namespace, most: int) -> tuple[Any, Any, Callable[[int], list[Any]], list[str]]:
  """Returns a trained network, images, its routers' ways, and what to say of it."""
  import numpy as np

  from resjax.data import sources
  from resjax.inference import images
  from resjax.measuring import benchmark
  from resjax.measuring.pool import Pool

  options.budget = options.budget or '0.6'
  budget = Budget.parse(options.budget)
  classifier, config = shared.load(options)
  classifier.calibrated  # noqa: B018  raises before minutes are spent on compiling
  if options.images:
    wanted = shared.images([options.images])[: min(most, _IMAGES)]
  else:
    if shared.without_data(config, options.workdir):
      raise ValueError(
        f'--images: none given, and {options.workdir} holds an imported network; expected a file or folder'
      )
    source = sources.create(config, config.data.eval_split)
    order = np.random.default_rng(0).permutation(len(source))
    wanted = images.of_source(source, order[: min(most, _IMAGES)].tolist())
  pool = Pool(wanted, classifier.network, threads=options.threads or os.cpu_count() or 1)
  say('compiling the programs and measuring their costs ...')
  names = options.routers.split(',') if options.routers else classifier.engines.routers
  options.routers = ','.join(names)
  rules = [classifier.router(name, budget) for name in names]
  promote = None if budget.timed else False  # as resjax predict does

  def routed(count: int) -> list[Any]:
    return [way for rule in rules for way in benchmark.by_router(classifier.engines, pool, rule, promote, count)]

  note = f'{options.workdir}, budget {options.budget}, {len(wanted)} images'
  return classifier, pool, routed, [note, *classifier.notes]


def description(options: argparse.Namespace, engines: Any, notes: list[str]) -> dict[str, Any]:
  """Returns what the figures depend on."""
  from resjax import report
  from resjax.measuring import benchmark

  engine = engines.engine
  return {
    'machine': dataclasses.asdict(engine.runtime.identity),
    'versions': report.versions(),
    'dtype': engine.runtime.identity.dtype,
    'resolutions': list(map(plain, engine.resolutions)),
    'mix': options.mix,
    'budget': options.budget,
    'max_batch': engine.buckets[-1],
    'warm_up_rounds': benchmark.WARM_UP,
    'rounds': options.rounds,
    'costs': {'buckets': list(engine.buckets), 'seconds': engine.costs.seconds.tolist()},
    'scopes': {scope: benchmark.SCOPES[scope] for scope in options.scopes.split(',')},
    'notes': notes,
  }


def show(result: dict[str, Any]) -> None:
  """Prints a table for each scope, and what the figures depend on."""
  console = Console(width=max(_COLUMNS, Console().width))
  for scope, meaning in result['scopes'].items():
    table = Table(title=f'{scope}: {meaning}', title_justify='left', box=box.SIMPLE_HEAD, padding=(0, 1))
    for column in ('', 'batch', 'images/s', '[quartiles]', 'p50 ms', 'p95 ms', 'M macs', 'speed-up', 'real / theory'):
      table.add_column(column, justify='right' if column else 'left', no_wrap=True)
    for entry in sorted(result['static'] + result['routed'], key=lambda entry: entry['batch']):
      if entry['scope'] == scope:
        table.add_row(*cells(entry))
    console.print(table)
  machine, versions = result['machine'], result['versions']
  where = f'{machine["machine"]}, {machine["processors"]} processors, {machine["devices"]} x {machine["device"]}'
  how = f'{result["warm_up_rounds"]} round of warm-up, medians of {result["rounds"]} rounds in turns, [quartiles]'
  software = ', '.join(f'{name} {versions[name]}' for name in ('python', 'jax', 'jaxlib', 'flax'))
  what = f'{machine["runtime"]}, {result["dtype"]}, programs of up to {result["max_batch"]} images; {software}'
  console.print(Text('\n'.join([*result['notes'], where, what, how]), style='dim'), soft_wrap=True)


def cells(entry: dict[str, Any]) -> list[str]:
  """Returns a row of the table."""
  low, high = entry['images_per_second_quartiles']
  at = entry.get('resolution')  # as JSON holds it: a branch by its name
  row = [
    entry['router'] if at is None else f'{at if isinstance(at, str) else shared.pixels(at)} px',
    str(entry['batch']),
    f'{entry["images_per_second"]:,.1f}',
    f'[{low:,.1f}, {high:,.1f}]',
    f'{entry["p50_ms"]:,.1f}',
    f'{entry["p95_ms"]:,.1f}',
    f'{entry["macs"] / 1e6:,.1f}',
  ]
  if 'router' not in entry:
    return row
  low, high = entry['real_over_theoretical_quartiles']
  return [
    *row,
    f'{entry["speedup"]:.2f} of {entry["theoretical_speedup"]:.2f}',
    f'{entry["real_over_theoretical"]:.2f} [{low:.2f}, {high:.2f}]',
  ]


def say(line: str) -> None:
  """Prints progress on standard error."""
  Console(stderr=True).print(line, style='dim', highlight=False)
