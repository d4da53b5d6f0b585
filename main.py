"""Trains and evaluates: python main.py --config=configs/quickstart.py [--workdir=DIR] [--config.FIELD=VALUE ...].

Exit codes: 0, done; 75, stopped by SIGTERM, to be started again; 1, an error.
"""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file('config', help_string='A recipe, such as configs/quickstart.py.')
WORKDIR = flags.DEFINE_string('workdir', None, "The run's folder; default runs/<name of the config file>.")
COORDINATOR = flags.DEFINE_string('coordinator', None, 'Several hosts: HOST:PORT of process 0.')
PROCESSES = flags.DEFINE_integer('processes', None, 'Several hosts: how many processes; 1: do not look for a cluster.')
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Several hosts: which process this is, from 0.')


def parse(argv: list[str]) -> list[str]:
  """Returns the arguments that are no flags; a field that no config has ends in one line."""
  try:
    return app.parse_flags_with_usage(argv)
  except (AttributeError, TypeError, ValueError, SyntaxError) as error:
    message = ' '.join(str(error).strip('\'"').replace("\\'", "'").replace('\\n', ' ').split())
    sys.exit(f'error: a --config.FIELD=VALUE that does not fit: {message}')


def main(argv: list[str]) -> None:
  """Runs the config that the flags name; bad input ends in one line."""
  if len(argv) > 1:
    sys.exit(f'error: unexpected argument {argv[1]!r}: fields are set as --config.FIELD=VALUE')
  if not flags.FLAGS['config'].present:
    sys.exit('error: --config is missing, for example --config=configs/quickstart.py')
  recipe = config_flags.get_config_filename(flags.FLAGS['config'])
  if not pathlib.Path(recipe).is_file():
    sys.exit(f'error: --config: no file {recipe}, expected a recipe such as configs/quickstart.py')

  from resjax import compiling  # after the flags, which end in a second where they are wrong
  from resjax.training import hosts, preemption
  from resjax.training.loop import train_and_evaluate

  logging.set_verbosity(logging.WARNING)
  workdir = WORKDIR.value or pathlib.Path('runs', pathlib.Path(recipe).stem)
  compiling.keep_compiled_programs()
  try:
    hosts.join(COORDINATOR.value, PROCESSES.value, PROCESS_ID.value)
    train_and_evaluate(CONFIG.value, workdir)
  except (ValueError, OSError, FloatingPointError) as error:
    hosts.leave(f'error: {error}')
  except preemption.Preempted:
    hosts.leave_together(
      f'Stopped by SIGTERM: the same command goes on from what is saved in {workdir}', preemption.EXIT_CODE
    )
  except KeyboardInterrupt:
    hosts.leave(f'Stopped; what was saved in {workdir} is good: the same command goes on', 130)


if __name__ == '__main__':
  app.run(main, flags_parser=parse)
