"""Sets a trained network's BatchNorm statistics to those of images, as the workdir of a finished run.

resjax recalibrate --workdir=runs/drnet --out=runs/drnet_all_sizes
resjax recalibrate photos --workdir=runs/mine --resolution=96 --out=runs/mine_photos

For a network that DRNet trained, whose sizes have the statistics of the images that were sent to them alone, and for
images of another kind than those that were trained on. No labels are needed; weights and choice stay as they are.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from resjax.commands import options as shared
from resjax.telling import flag, printable, say

if TYPE_CHECKING:
  from resjax.inference.images import Chunk, Item
  from resjax.network import Network
  from resjax.resolution import Resolution

_IMAGES = 1_024  # of the run's own, at most


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Describes the arguments."""
  about = f"{shared.IMAGES}; default: {_IMAGES:,} of the run's training images"
  parser.add_argument('images', nargs='*', type=shared.image, metavar='IMAGE', help=about)
  parser.add_argument('--workdir', required=True, type=shared.path, help='of a run, or of an imported network')
  parser.add_argument('--step', type=shared.step, help='of the checkpoint; default: the latest')
  parser.add_argument(
    '--resolution',
    type=shared.resolution,
    action='append',
    help='one of its own, several: --resolution=160 --resolution=96; default: all',
  )
  parser.add_argument('--batch', type=shared.batch, default=64, help='images that are normalised together (64)')
  parser.add_argument('--out', required=True, type=shared.path, help='of the network, a new folder')
  shared.add_max_pixels(parser)
  shared.add_data(parser)


def run(options: argparse.Namespace) -> None:
  """Recalibrates, and says what was done at each size.

  Raises:
    ValueError: There is no image to do it by, or the network has no statistics of its own at each size.
    FileExistsError: There is a run in the new folder.
    OSError: A folder can't be read or written.
  """
  import dataclasses

  from absl import logging

  from resjax import checkpoint, trained, unseen
  from resjax.inference import passes
  from resjax.inference.opening import limited

  shared.check_data_fields(options.fields)
  logging.set_verbosity(logging.WARNING)
  named = shared.images(options.images)
  checkpoint.check_new(options.out)
  found = trained.read(options.workdir, step=options.step, fixed=False)
  network: Any = limited(found.network, options.max_pixels)
  sizes = _asked(network, options.resolution)
  wanted = named or _of_run(shared.with_data(found.config, options.fields), options.workdir)
  with shared.bar(len(wanted) * len(sizes), 'recalibrating') as seen:
    batches = {
      size: passes.inputs(
        _seen(_cropped(network, wanted, size), seen, told=size == sizes[0]),
        size,
        network.preprocessing.normalize,
        options.batch,
      )
      for size in sizes
    }
    variables, lines = unseen.recalibrate_all(network.model, network.variables, batches)
  print('\n'.join(lines))
  network = found.network.replace(variables=variables)
  trained.save(dataclasses.replace(found, network=network, finished=True), options.out)
  say(f'In {options.out}; now: resjax evaluate {flag("workdir", options.out)}')


def _asked(network: 'Network', asked: 'list[Resolution] | None') -> 'list[Resolution]':
  """Which of the network's sizes are meant, the highest first.

  Raises:
    ValueError: One is not the network's.
  """
  from resjax.resolution import name

  own = {name(size): size for size in network.resolutions}
  for size in asked or ():
    if name(size) not in own:
      raise ValueError(f'--resolution: got {name(size)}, expected some of {", ".join(own)}, which {_OTHERS}')
  names = {name(size) for size in asked or network.resolutions}
  return [size for key, size in own.items() if key in names]


_OTHERS = 'the network was trained at (others: Classifier.recalibrate, docs/resolutions.md)'


def _of_run(config: Any, workdir: str) -> 'list[Item]':
  """Some of the images that a run was trained on, always the same.

  Raises:
    ValueError: An imported network has no data.
  """
  from resjax.data import sources
  from resjax.inference import images
  from resjax.measuring import study

  if shared.without_data(config, workdir):
    raise ValueError(
      f'IMAGE: none given, and {workdir} holds an imported network; expected files or folders: '
      f'resjax recalibrate IMAGE ... --workdir={workdir} --out=DIR'
    )
  source = sources.create(config, config.data.train_split)
  numbers = study.sample(len(source), _IMAGES)
  say(f'recalibrating on {len(numbers):,} images of {config.data.train_split}', sys.stderr)
  return images.of_source(source, numbers)


def _cropped(network: 'Network', wanted: 'list[Item]', size: 'Resolution') -> 'Iterator[Chunk]':
  """Images in chunks, cropped at a size as evaluation crops them."""
  from resjax.data.crops import evaluation_crops
  from resjax.inference.images import chunks

  crop = evaluation_crops(network.preprocessing, (size,))
  return chunks(wanted, lambda image: crop(image)[0], size=64, threads=os.cpu_count() or 1)


def _seen(chunks: 'Iterator[Chunk]', seen: Any, *, told: bool) -> 'Iterator[Chunk]':
  """The same chunks; their images are counted, and what could not be read is said where it is to be told."""
  for chunk in chunks:
    for name, error in zip(chunk.names, chunk.errors):
      if error is not None and told:
        say(f'{printable(name)}: {printable(error)}; left out', sys.stderr)
    seen(len(chunk.names))
    yield chunk
