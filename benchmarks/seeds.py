"""What this did, `resjax study` does: one recipe with several seeds. It says what to type."""

import shlex
import sys


def command(arguments: list[str]) -> str:
  """Returns what to type in the place of this script with its arguments."""
  recipe = next((a.partition('=')[2] for a in arguments if a.lstrip('-').startswith('config=')), 'RECIPE')
  rest = [a for a in arguments if not a.lstrip('-').startswith('config=')]
  seeds = [] if any(a.lstrip('-').startswith('seeds') for a in rest) else ['--seeds=3']
  return f'resjax study {shlex.join([recipe, *seeds, *rest])}'


if __name__ == '__main__':
  sys.exit(f'error: benchmarks/seeds.py: expected {command(sys.argv[1:])}')
