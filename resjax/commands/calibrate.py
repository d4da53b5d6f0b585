"""Sets the budget dial: runs images without labels at every resolution and keeps what the routers read of them.

resjax calibrate --workdir=runs/drnet_quickstart
"""

import argparse
import re
from typing import Any

from resjax.commands import options as shared

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
  from resjax.inference import calibrating

  named = shared.images(options.images)
  classifier, config = shared.load(options, bundles=True)
  wanted = named or of_run(config, options.workdir)
  with shared.bar(len(wanted), 'calibrating') as seen:
    count = classifier.calibrate(wanted, seen)
  print(f'{count:,} images; budgets that can be met, as shares of {classifier.resolutions[0]} px:')
  largest, columns = max(classifier.network.macs), classifier.calibrated
  for name in classifier.engines.routers:
    low, high = calibrating.limits(classifier.engines.router(name, columns), columns)
    print(f'  {name:10}  {low / largest:.3f} to {high / largest:.3f}')
  print(
    f'In {options.workdir}/{calibrating.FILE}; now: resjax predict IMAGE ... --workdir={options.workdir} --budget=0.6'
  )


def of_run(config: Any, workdir: str) -> list[Any]:
  """Returns images of a run's own data, and says which: `eval.calibration_split`, or those that `split_of` finds.

  Raises:
    ValueError: An imported network, or a bundle, has no data.
    FileNotFoundError: The data are not there.
  """
  from resjax.data import sources
  from resjax.inference import images
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
    return images.of_source(sources.create(config, split))
  split, why = split_of(config.data.train_split, config.data.eval_split)
  source = sources.create(config, split)
  shared.tell_other_data(workdir, config, split, source)
  numbers = study.sample(len(source), _IMAGES)
  print(f'calibrating on {len(numbers):,} images of {split}, {why}')
  return images.of_source(source, numbers)


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
