"""Takes filters out of a trained network: a smaller plain network, as the workdir of a finished run.

resjax prune --workdir=runs/quickstart --ratio=0.5 --out=runs/pruned
resjax prune --workdir=runs/quickstart --ratio=0.5 --criterion=scale --out=runs/pruned

Pruned are the channels inside residual blocks. The network then goes through all that others do, and is trained on:
the line that is printed at the end says with which fields.
"""

import argparse

from resjax.commands import options as shared
from resjax.commands import outputs
from resjax.telling import flag, say, shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Describes the arguments."""
  parser.add_argument('--workdir', required=True, type=shared.path, help='of a run, or of an imported network')
  parser.add_argument('--step', type=shared.step, help='one of those saved (the latest)')
  parser.add_argument('--ratio', required=True, type=_ratio, help='the share of the channels that go, 0 to below 1')
  parser.add_argument(
    '--criterion',
    choices=('l1', 'scale'),
    default='l1',
    help="l1: of the smallest absolute weights, in each layer; scale: of BatchNorm's smallest scales, of all layers",
  )
  parser.add_argument('--out', required=True, type=shared.path, help='of the smaller network, a new folder')


def run(options: argparse.Namespace) -> None:
  """Prunes, and says what is left.

  Raises:
    ValueError: It is not a network that can be pruned.
    FileExistsError: There is a run in the new folder.
    OSError: A folder can't be read or written.
  """
  import dataclasses

  from absl import logging

  from resjax import pruning, trained

  logging.set_verbosity(logging.WARNING)
  outputs.check_new_run(options.out)
  found = trained.read(options.workdir, step=options.step, fixed=False)
  network = pruning.pruned(found.network, options.ratio, options.criterion)
  inner = network.model.inner  # type: ignore[union-attr]
  config = found.config.copy_and_resolve_references()
  config.model.inner = inner
  shared.tell_unfinished(found)
  trained.save(dataclasses.replace(found, network=network, config=config, finished=True), options.out)
  for resolution, before, after in zip(network.resolutions, found.network.macs, network.macs):
    print(f'{resolution} px: {after:,} of {before:,} multiply-adds')
  sizes = [_size(each.variables['params']) for each in (network, found.network)]
  print(f'{sizes[0]:,} of {sizes[1]:,} parameters')
  fields = [flag('config.init.checkpoint', options.out), flag('config.model.inner', str(inner).replace(' ', ''))]
  say(f'In {options.out}; now: resjax evaluate {flag("workdir", options.out)}')
  say(f'to train it on: resjax train {" ".join(fields)}')


def _size(params: object) -> int:
  """How many numbers there are."""
  import jax

  return sum(leaf.size for leaf in jax.tree.leaves(params))


def _ratio(text: str) -> float:
  """Reads a number, 0 or more and below 1."""
  try:
    found = float(text)
  except ValueError:
    found = -1.0
  if not 0 <= found < 1:
    raise argparse.ArgumentTypeError(f'got {shown(text)}, expected 0 or more, and less than 1')
  return found
