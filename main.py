"""Trains and evaluates: python main.py --config=configs/quickstart.py [--workdir=DIR] [--config.FIELD=VALUE ...]."""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from resjax.training import devices
from resjax.training.loop import train_and_evaluate

CONFIG = config_flags.DEFINE_config_file('config', help_string='A recipe, such as configs/quickstart.py.')
WORKDIR = flags.DEFINE_string('workdir', None, "The run's folder; default runs/<name of the config file>.")


def main(argv: list[str]) -> None:
  """Runs the config that the flags name; bad input ends in one line."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected argument {argv[1]!r}: fields are set as --config.FIELD=VALUE')
  if CONFIG.value is None:
    raise app.UsageError('--config is missing, for example --config=configs/quickstart.py')
  logging.set_verbosity(logging.WARNING)
  recipe = pathlib.Path(config_flags.get_config_filename(flags.FLAGS['config']).split(':')[0])
  workdir = WORKDIR.value or pathlib.Path('runs', recipe.stem)
  devices.keep_compiled_programs()
  try:
    train_and_evaluate(CONFIG.value, workdir)
  except (ValueError, FileNotFoundError, FloatingPointError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  app.run(main)
