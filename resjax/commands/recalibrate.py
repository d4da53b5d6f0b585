"""Sets a trained network's BatchNorm statistics to those of images, as the workdir of a finished run.

resjax recalibrate --workdir=runs/drnet --out=runs/drnet_all_sizes
resjax recalibrate photos --workdir=runs/mine --resolution=96 --out=runs/mine_photos

For a network that DRNet trained after another one, each of whose sizes has the statistics of the images that were sent
to it alone; and for images of another kind than those of the training. Take some hundreds; no labels are needed.
Weights and the predictor's choice stay as they are. A calibration has to be made anew: resjax calibrate.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from resjax.commands import options as shared
from resjax.commands import outputs
from resjax.telling import flag, say

if TYPE_CHECKING:
  from resjax.inference.images import Chunk, Item
  from resjax.network import Network
  from resjax.resolution import Resolution

_IMAGES = 1_024  # of the run's own, at most
_CHUNK = 64  # images that are read together


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

  from resjax import trained, unseen
  from resjax.exporting import bundle
  from resjax.inference import passes
  from resjax.inference.opening import limited

  shared.check_data_fields(options.fields)
  shared.check_images_or_data(options)
  outputs.check_new_run(options.out)
  logging.set_verbosity(logging.WARNING)
  named = shared.images(options.images)
  if bundle.is_bundle(options.workdir):
    raise ValueError(f'--workdir: got {options.workdir}, a bundle, expected one of a run')
  found = trained.read(options.workdir, step=options.step, fixed=False)
  network: Any = limited(found.network, options.max_pixels)
  sizes = _asked(network, options)
  config = shared.with_data(found.config, options.fields)
  wanted = named or _of_run(config, options.workdir, options.step)
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
  shared.tell_unfinished(found)
  network = found.network.replace(variables=variables)
  trained.save(dataclasses.replace(found, network=network, finished=True), options.out)
  data = ' --data=DIR' if shared.without_data(found.config, options.workdir) else ''
  say(f'In {options.out}; now: resjax evaluate {flag("workdir", options.out)}{data}')


def _asked(network: 'Network', options: argparse.Namespace) -> 'list[Resolution]':
  """Which of the network's sizes are meant, the highest first.

  Raises:
    ValueError: One is not the network's, or all have the same statistics.
  """
  from resjax.resolution import name
  from resjax.switchable import SHARED_SET, set_of

  own = {name(size): size for size in network.resolutions}
  for size in options.resolution or ():
    if name(size) not in own:
      others = 'others: Classifier.recalibrate, docs/resolutions.md'
      raise ValueError(f'--resolution: got {name(size)}, expected some of {", ".join(own)} ({others})')
  if any(set_of(network.variables, size) == SHARED_SET for size in network.resolutions):
    raise ValueError(f'--workdir: {options.workdir} has one BatchNorm for all sizes, expected one for each')
  names = {name(size) for size in options.resolution or network.resolutions}
  return [size for key, size in own.items() if key in names]


def _of_run(config: Any, workdir: str, step: int | None) -> 'list[Item]':
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
  split = config.data.train_split
  source = sources.create(config, split)
  shared.tell_other_data(workdir, config, split, source, step)
  numbers = study.sample(len(source), _IMAGES)
  say(f'recalibrating on {len(numbers):,} images of {split}', sys.stderr)
  return images.of_source(source, numbers)


def _cropped(network: 'Network', wanted: 'list[Item]', size: 'Resolution') -> 'Iterator[Chunk]':
  """Images in chunks, cropped at a size as evaluation crops them."""
  from resjax.data.crops import evaluation_crops
  from resjax.inference.images import chunks
  from resjax.inference.runtime import processors

  crop = evaluation_crops(network.preprocessing, (size,))
  return chunks(wanted, lambda image: crop(image)[0], size=_CHUNK, threads=processors())


def _seen(chunks: 'Iterator[Chunk]', seen: Any, *, told: bool) -> 'Iterator[Chunk]':
  """The same chunks; their images are counted, and what could not be read is said where it is to be told.

  Raises:
    ValueError: None could be read.
  """
  count, readable = 0, 0
  for chunk in chunks:
    if told:
      shared.tell_left_out(chunk)
    seen(len(chunk.names))
    count, readable = count + len(chunk.names), readable + len(chunk.crops)
    yield chunk
  if not readable:
    raise ValueError(f'IMAGE: none of {count:,} could be read, expected some to take statistics of')
