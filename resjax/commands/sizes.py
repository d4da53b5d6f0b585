"""A trained network at other sizes than its own, or with images cropped otherwise: options of some subcommands."""

import argparse
import dataclasses
import sys
from typing import Any

from resjax.commands import options as shared
from resjax.resolution import name, rank


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Describes the arguments."""
  parser.add_argument(
    '--resolution',
    type=shared.resolution,
    action='append',
    help='this one instead of its own, trained or not: 160, or 128x192; several: --resolution=160 --resolution=96',
  )
  parser.add_argument(
    '--crop-fraction',
    type=shared.fraction,
    help="the crop's share of the resized image, at most 1: how large things look; default: as in the training",
  )


def asked(network: Any, options: argparse.Namespace) -> Any:
  """Returns a network as the options want it, and says what its BatchNorm is at each size; the same one without them.

  Raises:
    ValueError: A size stands twice.
  """
  if options.crop_fraction is not None:
    preprocessing = dataclasses.replace(network.preprocessing, crop_fraction=options.crop_fraction)
    network = network.replace(preprocessing=preprocessing)
  if options.resolution is None:
    return network
  sizes = sorted(options.resolution, key=rank, reverse=True)
  if len(set(map(name, sizes))) != len(sizes):
    raise ValueError(f'--resolution: got {", ".join(map(name, sizes))}, expected each of them once')
  network, notes = network.at_all(sizes)
  for note in notes:
    print(note, file=sys.stderr)
  return network


def differs(options: argparse.Namespace) -> bool:
  """Whether the options want something else than what was trained: what was kept with a run is not of that."""
  return options.crop_fraction is not None or options.resolution is not None
