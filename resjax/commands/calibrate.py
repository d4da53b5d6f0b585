"""Sets the budget dial: runs images without labels at every resolution and keeps what the routers read of them.

resjax calibrate --workdir=runs/drnet_quickstart
"""

import argparse

from resjax.commands import options as shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Describes the arguments."""
  parser.add_argument(
    'images', nargs='*', metavar='IMAGE', help="files or folders; default: the run's eval.calibration_split"
  )
  shared.add_workdir(parser)


def run(options: argparse.Namespace) -> None:
  """Calibrates, and says which budgets can be met."""
  from resjax.data import sources
  from resjax.inference import calibrating, images

  classifier, config = shared.load(options)
  if options.images:
    wanted = images.items(options.images)
  elif config.eval.calibration_split:
    wanted = images.of_source(sources.create(config, config.eval.calibration_split))
  else:
    raise ValueError('IMAGE: none given, and the run has no eval.calibration_split; expected files or folders')
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
