"""Sets the budget dial: runs images without labels at every resolution and keeps what the routers read of them.

resjax calibrate --workdir=runs/drnet_quickstart
"""

import argparse
import pathlib
import re
import sys
from typing import TYPE_CHECKING, Any

from resjax.commands import options as shared
from resjax.telling import flag, say

if TYPE_CHECKING:
  import numpy as np

  from resjax.network import Network
  from resjax.trained import Trained

# Images that are taken by themselves at most.
_IMAGES = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Describes the arguments."""
  parser.add_argument(
    'images',
    nargs='*',
    type=shared.image,
    metavar='IMAGE',
    help=f"{shared.IMAGES}; default: images of the run's own data",
  )
  shared.add_workdir(parser, bundles=True)
  shared.add_max_pixels(parser)
  shared.add_data(parser)


def run(options: argparse.Namespace) -> None:
  """Calibrates, and says which budgets can be met."""
  from resjax.inference import calibrating, origin

  shared.check_images_or_data(options)
  named = shared.images(options.images)
  classifier, config = shared.load(options, bundles=True)
  wanted, made_on = (named, None) if named else of_run(config, options.workdir)
  before = replaced(options.workdir)
  with shared.bar(len(wanted), 'calibrating') as seen:
    count = classifier.calibrate(wanted, seen, made_on)
  if before is not None:
    say(f'in the place of a calibration on {origin.shown(*before)}')
  left_out = f' ({len(wanted) - count:,} left out)' if count < len(wanted) else ''
  print(f'{count:,} images{left_out}; budgets that can be met, as shares of {classifier.resolutions[0]} px:')
  largest, columns = max(classifier.network.macs), classifier.calibrated
  for name in classifier.engines.routers:
    low, high = calibrating.limits(classifier.engines.router(name, columns), columns)
    print(f'  {name:10}  {low / largest:.3f} to {high / largest:.3f}')
  where = pathlib.Path(options.workdir, calibrating.FILE)
  say(f'In {where}; now: resjax predict IMAGE ... {flag("workdir", options.workdir)} --budget=0.6')


def replaced(workdir: str) -> Any:
  """Returns `calibrating.origin` of a calibration that is there already; None also where that is damaged."""
  from resjax.inference import calibrating

  try:
    return calibrating.origin(workdir)
  except ValueError:
    return None


def of_run(config: Any, workdir: str) -> tuple[list[Any], Any]:
  """Returns images of a run's own data, and their `Origin`: `eval.calibration_split`, or those that `split_of` finds.

  Raises:
    ValueError: An imported network, or a bundle, has no data.
    FileNotFoundError: The data are not there.
  """
  from resjax.data import sources
  from resjax.inference import images
  from resjax.inference.origin import Origin
  from resjax.measuring import study

  if config is None:
    raise ValueError(f'IMAGE: none given, and {workdir} is a bundle; expected files or folders')
  if shared.without_data(config, workdir):
    raise ValueError(
      f'IMAGE: none given, and {workdir} holds an imported network; expected files or folders: '
      f'resjax calibrate IMAGE ... --workdir={workdir}'
    )
  split = config.eval.calibration_split
  if split:
    source = sources.create(config, split)
    return images.of_source(source), Origin.of_split(source, split)
  split, why = split_of(config.data.train_split, config.data.eval_split)
  source = sources.create(config, split)
  shared.tell_other_data(workdir, config, split, source)
  numbers = study.sample(len(source), _IMAGES)
  say(f'calibrating on {len(numbers):,} images of {split}, {why}')
  return images.of_source(source, numbers), Origin.of_split(source, split)


def crops(network: 'Network', options: argparse.Namespace, found: 'Trained', most: int) -> 'np.ndarray':
  """Returns crops of the largest resolution, to set int8's ranges on: of images that are named, or of the run's own.

  Args:
    network: Says how images are cropped.
    options: `images` and `workdir`.
    found: The run.
    most: Images; of more, these are drawn, always the same.

  Raises:
    ValueError: There are none, or ONNX Runtime is not installed.
    FileNotFoundError: The run's data are not there.
  """
  from resjax.data.crops import evaluation_crops
  from resjax.inference.images import chunks
  from resjax.inference.runtime import processors
  from resjax.measuring import study

  if missing := shared.missing('onnxruntime'):
    raise ValueError(f"--dtype: got int8, which needs {missing}: pip install 'resjax[ort]'")
  wanted = shared.images(options.images)
  if not wanted and shared.without_data(found.config, options.workdir):
    raise ValueError(f'IMAGE: none given, and {options.workdir} holds an imported network; expected files or folders')
  wanted = wanted or of_run(found.config, options.workdir)[0]
  wanted = [wanted[number] for number in study.sample(len(wanted), most)]
  crop = evaluation_crops(network.preprocessing, (network.resolutions[0],))
  (chunk,) = chunks(wanted, lambda image: crop(image)[0], size=len(wanted), threads=processors())
  shared.tell_left_out(chunk)
  say(f'ranges of int8 set on {len(chunk.crops):,} images', sys.stderr)
  return chunk.crops


def split_of(train: str, evaluation: str) -> tuple[str, str]:
  """Returns a split to calibrate on where none is named, and what to say of it: what training left, or evaluation's.

  Never images that were trained on: the network is surer of those than of others, and budgets would be missed.

  Args:
    train: The split that was trained on; of some, such as 'train[:90%]', the rest was kept apart.
    evaluation: The split that is scored.
  """
  found = re.fullmatch(r'(\w+)\[(?::(\d+%?)|(\d+%?):)\]', train)
  if found:
    name, end, begin = found.groups()
    return (f'{name}[{end}:]' if end else f'{name}[:{begin}]'), 'kept apart in training'
  return evaluation, 'the evaluation split, without its labels: its own images will meet a budget a little too well'
