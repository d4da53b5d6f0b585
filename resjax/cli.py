"""The `resjax` command: one subcommand for each file of resjax/commands."""

import argparse
import importlib
import sys

# Subcommand: what `resjax --help` says of it. Its module has `add_arguments(parser)` and `run(options)`.
COMMANDS: dict[str, str] = {
  'benchmark': 'measure images per second, and how much of the saving is real',
  'calibrate': 'set the budget dial of a trained network',
  'plan': 'what a training step will need on a TPU pod',
  'predict': 'classify images, each at the resolution that a budget allows',
  'report': 'measure a trained network and show what was found as a page',
}


def main(arguments: list[str] | None = None) -> None:
  """Runs the subcommand that the arguments name; bad input ends in one line and exit code 1.

  Args:
    arguments: What follows `resjax`; by default those of the process.
  """
  arguments = sys.argv[1:] if arguments is None else arguments
  parser = argparse.ArgumentParser('resjax', description='One image network, any resolution, any budget.')
  subparsers = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
  for name, summary in COMMANDS.items():
    subparser = subparsers.add_parser(name, help=summary, add_help=name in arguments[:1], allow_abbrev=False)
    if name in arguments[:1]:  # the others' modules, and what those import, stay unread
      command = importlib.import_module(f'resjax.commands.{name}')
      subparser.description, subparser.formatter_class = command.__doc__, argparse.RawDescriptionHelpFormatter
      command.add_arguments(subparser)
  options, fields = parser.parse_known_args(arguments)
  unknown = [field for field in fields if not field.startswith('--config.')]
  if unknown or (fields and not hasattr(options, 'config')):
    parser.error(f'unknown arguments: {" ".join(unknown or fields)}')
  options.fields = fields
  try:
    command.run(options)
  except (ValueError, OSError, FloatingPointError) as error:
    sys.exit(f'error: {error}')
  except KeyboardInterrupt:
    sys.exit(130)


if __name__ == '__main__':
  main()
