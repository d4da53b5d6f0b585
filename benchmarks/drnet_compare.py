"""What this did, a study does: trainings, estimators and budgets of DRNet, with several seeds. It says what to type."""

import shlex
import sys


def command(arguments: list[str]) -> str:
  """Returns what to type in the place of this script with its arguments."""
  rest = [argument for argument in arguments if argument.startswith(('--seeds=', '--workdir='))]
  return f'resjax study {shlex.join(["configs/studies/drnet.py", *(rest or ["--seeds=3"])])}'


if __name__ == '__main__':
  sys.exit(f'error: benchmarks/drnet_compare.py: expected {command(sys.argv[1:])}')
