"""Writes a trained network as files that run without resjax: ONNX, StableHLO, a bundle, or weights for torch.

resjax export --workdir=runs/resnet50 --format=bundle

A bundle has the network at all resolutions as ONNX over the same weights, labels, thresholds, costs and an example that
runs it. onnx and stablehlo are the network alone, at one resolution or at all. torch is a state dict, of one resolution
in torchvision's layout, of several in that of RS-Net's authors: safetensors, or with --out=FILE.pth what torch reads.
--dtype=int8 writes ONNX, or a bundle, that computes in int8, its ranges set on images as resjax calibrate takes them.
packed are the variables of a quantised network, its weights as codes of a few bits (resjax.exporting.packed reads it).
"""

import argparse
import contextlib
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from resjax.commands import calibrate, outputs
from resjax.commands import options as shared
from resjax.resolution import Branch, Resolution, check_distinct
from resjax.routing import Budget
from resjax.telling import flag, say, shown

if TYPE_CHECKING:
  from resjax.network import Network
  from resjax.trained import Trained

FORMATS = ('onnx', 'stablehlo', 'bundle', 'torch', 'packed')

# Of a bundle, where none are named: those that its calibration reaches.
_BUDGETS = '0.3,0.4,0.5,0.6,0.7,0.8,0.9'

# Images that int8's ranges are set on, at most.
_RANGES = 256

# What stands in a folder that was exported, a bundle's calibration among it.
_OURS = re.compile(r'.*\.(onnx|stablehlo)|weights\.bin|manifest\.json|example\.py|costs\.json|dial\.npz')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Describes the arguments."""
  about = f"for --dtype=int8: {shared.IMAGES}; default: the run's"
  parser.add_argument('images', nargs='*', type=shared.image, metavar='IMAGE', help=about)
  parser.add_argument('--workdir', required=True, type=shared.path, help='of the run that trained the network')
  parser.add_argument('--step', type=shared.step, help='of the checkpoint; default: the latest')
  parser.add_argument('--format', choices=FORMATS, required=True, help='what is written')
  parser.add_argument(
    '--resolution', type=shared.resolution, help='one alone, in pixels: 160, or 128x192; default: all'
  )
  parser.add_argument('--dtype', choices=('float32', 'int8'), help='of the computation; int8: of onnx and bundle')
  parser.add_argument('--softmax', action='store_true', help='probabilities instead of logits (onnx, stablehlo)')
  parser.add_argument(
    '--budgets', help=f'that a bundle is set to, shares or multiply-adds, where calibrated ({_BUDGETS})'
  )
  parser.add_argument('--no-costs', action='store_true', help='measure no cost table for a bundle')
  parser.add_argument(
    '--with', dest='more', choices=('stablehlo',), help='what a bundle has besides; it has the weights once more'
  )
  parser.add_argument('--out', type=shared.path, help='the file or folder; default: one in the workdir')
  parser.add_argument('--overwrite', action='store_true', help='replace what is there')


def run(options: argparse.Namespace) -> None:
  """Exports, and says what was written."""
  import jax
  from absl import logging

  from resjax import trained

  logging.set_verbosity(logging.WARNING)
  check(options)
  found = trained.read(options.workdir, step=options.step)
  network = chosen(found.network, options.resolution, options.format)
  out = (
    pathlib.Path(options.out)
    if options.out
    else pathlib.Path(options.workdir) / named(network, options.format, options.resolution)
  )
  with whole(out, options.overwrite) as part:
    write(network, part, options, found, out.suffix)
  size = sum(path.stat().st_size for path in [out, *out.rglob('*')] if path.is_file())
  one = sum(leaf.nbytes for leaf in jax.tree.leaves(network.view(network.resolutions[0])))
  say(f'In {out}: {size / 1e6:,.2f} MB, {size / one:.3f} times the weights of one resolution')


def check(options: argparse.Namespace) -> None:
  """Raises ValueError where an option does not belong to the format."""
  of = {'softmax': ('onnx', 'stablehlo'), 'budgets': ('bundle',), 'no_costs': ('bundle',), 'more': ('bundle',)}
  of |= {'dtype': ('onnx', 'bundle')}
  for name, formats in of.items():
    if getattr(options, name) and options.format not in formats:
      expected, name = ' or '.join(formats), name.replace('more', 'with')
      raise ValueError(f'--{name.replace("_", "-")}: got it with --format={options.format}, expected {expected}')
  if options.images and options.dtype != 'int8':
    raise ValueError(f'IMAGE: got {shown(options.images[0])} without --dtype=int8, expected none')
  if options.more and options.dtype == 'int8':
    raise ValueError('--with: got stablehlo with --dtype=int8, expected ONNX alone')


def chosen(network: 'Network', resolution: Resolution | None, kind: str) -> 'Network':
  """Returns the network that is written; what is done to it is said on standard error."""
  if resolution is not None:
    trained, (network, note) = network.resolutions, network.at(resolution)
    if resolution not in trained:
      say(note, sys.stderr)
    (branch,) = network.resolutions
    if isinstance(branch, Branch):  # elsewhere it is a network of this size, and nothing else
      from resjax import switchable

      alone = switchable.share(network.view(branch), (branch.size,))
      network = network.replace(variables=alone, resolutions=(branch.size,))
  check_distinct(network.resolutions)
  if kind in ('onnx', 'bundle') and getattr(network.model, 'dtype', 'float32') != 'float32':
    network = network.with_dtype('float32')
    print('written to compute in float32, where the run computes in bfloat16', file=sys.stderr)
  return network


def named(network: 'Network', kind: str, resolution: Resolution | None) -> str:
  """Returns what a file or folder is called where nothing was said of it but, or not even, the resolution."""
  if kind == 'bundle':
    return 'bundle'
  one = len(network.resolutions) == 1
  base = shared.pixels(resolution or network.resolutions[0]) if one else 'network'
  if kind == 'torch':
    return f'{base}.safetensors'
  folder = (network.predictor is not None and kind != 'packed') or (kind == 'onnx' and not one)
  return kind if folder else f'{base}.{kind}'


def write(network: 'Network', part: pathlib.Path, options: argparse.Namespace, found: 'Trained', suffix: str) -> None:
  """Writes what was asked for to a new file or folder.

  Args:
    network: Of which it is.
    part: The new file or folder.
    options: As `add_arguments` describes them.
    found: The run that it is of.
    suffix: Of the name that was asked for.

  Raises:
    ValueError: The network can't be written so, or what that needs is not installed.
  """
  if options.format == 'torch':
    return torch(network, part, found.origin, suffix)
  if options.format == 'packed':
    from resjax.exporting import packed

    return packed.write(network, part)
  if options.format == 'stablehlo':
    from resjax.exporting import stablehlo

    return stablehlo.write(network, part, softmax=options.softmax)
  shared.needs('onnx', '--format')
  from resjax.exporting import onnx

  crops = calibrate.crops(network, options, found, _RANGES) if options.dtype == 'int8' else None
  if options.format == 'onnx':
    return onnx.write(network, part, softmax=options.softmax, ranges=crops)
  from resjax.exporting import bundle

  set_to, more = knobs(network, options), options.more == 'stablehlo'
  bundle.write(network, part, knobs=set_to, origin=found.origin, stablehlo=more, ranges=crops)
  if not options.no_costs:
    costs(part)


def torch(network: 'Network', part: pathlib.Path, origin: dict[str, Any] | None, suffix: str) -> None:
  """Writes a state dict; safetensors also say how images are prepared, and what the classes are."""
  from safetensors import numpy

  from resjax.interop import torch as layout

  one = len(network.resolutions) == 1
  tensors = layout.state_dict(network, network.resolutions[0]) if one else layout.rsnets_state_dict(network)
  if suffix not in ('.pth', '.pt'):
    part.write_bytes(numpy.save(tensors, layout.metadata(network, (origin or {}).get('license'))))
    return
  shared.needs('torch', '--out')
  import torch

  torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, part)


def knobs(network: 'Network', options: argparse.Namespace) -> dict[tuple[str, Budget], float]:
  """Returns what the routers are set to for each budget; none where the run has no calibration.

  Raises:
    ValueError: A budget that was named is in milliseconds, or beyond every router; or the calibration is damaged.
    FileNotFoundError: Budgets are named, and there is no calibration.
  """
  from resjax import routing
  from resjax.inference import calibrating

  workdir = pathlib.Path(options.workdir)
  if not options.budgets and not (workdir / calibrating.FILE).is_file():
    say(f'not calibrated, so no router is set: resjax calibrate {flag("workdir", workdir)}', sys.stderr)
    return {}
  if len(network.resolutions) == 1:
    return {}
  columns = calibrating.read(workdir, network)
  each, own = tuple(map(float, network.macs)), network.predictor.macs if network.predictor else 0
  names = [name for name in routing.names_for(network.predictor is not None) if _is_its_knob(name, each, own)]
  found: dict[tuple[str, Budget], float] = {}
  for budget in map(Budget.parse, (options.budgets or _BUDGETS).split(',')):
    if budget.timed:
      raise ValueError(f'--budgets: got {budget}, expected shares or multiply-adds: milliseconds are of one machine')
    reasons = []
    for name in names:
      router = routing.kind_of(name).of(each, own, columns)
      try:
        found[name, budget] = calibrating.met(router, columns, budget, max(network.macs)).knob
      except ValueError as error:
        reasons.append(str(error).removeprefix('budget: '))
    if options.budgets and not any((name, budget) in found for name in names):
      raise ValueError(f'--budgets: {"; ".join(reasons)}')
  return found


def _is_its_knob(name: str, costs: tuple[float, ...], predictor: float) -> bool:
  """Whether a knob is all that a router takes from a calibration."""
  from resjax import routing

  try:
    routing.kind_of(name).of(costs, predictor, None)
  except FileNotFoundError:
    return False
  return True


def costs(folder: pathlib.Path) -> None:
  """Measures what a bundle's programs cost on this machine, where ONNX Runtime is installed."""
  from resjax.inference import Classifier

  if missing := shared.missing('onnxruntime'):
    print(f'no cost table without {missing}', file=sys.stderr)
    return
  Classifier.load(folder).engines  # noqa: B018  measures, and keeps the table in the folder


@contextlib.contextmanager
def whole(out: pathlib.Path, overwrite: bool) -> Iterator[pathlib.Path]:
  """Yields where a file or folder is to be written; it is in its place when it is whole, or not at all.

  Raises:
    FileExistsError: Something is there, and may not be replaced, or a folder holds what no export wrote.
    FileNotFoundError: There is no folder to write to.
  """
  out, named = out.resolve(), out
  if out.exists() and not overwrite:
    raise FileExistsError(f'--out: {named} is there already, expected another, or --overwrite')
  if out.exists() and not (out.is_file() or out.is_dir()):
    raise FileExistsError(f'--out: {named} is no file, expected one, or a folder')
  if others := [path.name for path in (out.iterdir() if out.is_dir() else ()) if not _exported(path)]:
    raise FileExistsError(f'--out: {named} holds {shown(min(others))}, which no export wrote; expected another folder')
  outputs.check_folder(named)
  part, old = (out.with_name(f'{out.name}.{os.getpid()}.{kind}') for kind in ('part', 'old'))
  try:
    yield part
    if out.exists():
      out.rename(old)
    try:
      part.rename(out)
    except OSError:
      if old.exists():
        old.rename(out)
      raise
  finally:
    for left in (part, old):
      shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def _exported(path: pathlib.Path) -> bool:
  """Whether a file in a folder is of an export."""
  return path.is_file() and bool(_OURS.fullmatch(path.name))
