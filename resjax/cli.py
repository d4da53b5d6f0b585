"""The `resjax` command: one subcommand for each file of resjax/commands."""

import argparse
import importlib
import io
import keyword
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from resjax import ending
from resjax.fields import SYNTAX, near
from resjax.telling import shown

# Subcommand: what `resjax --help` says of it. Its module has `add_arguments(parser)` and `run(options)`.
COMMANDS: dict[str, str] = {
  'benchmark': 'measure images per second, and how much of the saving is real',
  'calibrate': 'set the budget dial of a trained network',
  'evaluate': 'score a network on a split or a folder of images with labels',
  'export': 'write a trained network as files that run anywhere',
  'import': 'make a pretrained network of torch resolution-switchable',
  'plan': 'what a training step will need on a TPU pod',
  'predict': 'classify images, each at the resolution that a budget allows',
  'prune': 'take filters out of a trained network: a smaller one, which is trained on',
  'recalibrate': "set a trained network's BatchNorm statistics to those of images",
  'report': 'measure a trained network and show what was found as a page',
  'serve': 'answer images over HTTP, at the resolution that a budget or a deadline allows',
  'study': 'put claims to the test: arms, seeds, intervals, verdicts',
  'summary': 'show what a network is made of',
  'train': 'train and evaluate a network by a recipe',
}

_FIELD = re.compile(r'--?(no)?config\.')


class _Parser(argparse.ArgumentParser):
  """A parser that says in one line what is wrong."""

  def error(self, message: str) -> NoReturn:
    self.exit(2, f'error: {" ".join(message.split())}; see {self.prog} --help\n')


def main(arguments: list[str] | None = None) -> None:
  """Runs the subcommand that the arguments name; bad input ends in one line and exit code 1.

  Args:
    arguments: What follows `resjax`; by default those of the process, which then is ended by Ctrl-C without clean-up.
  """
  given = sys.argv[1:] if arguments is None else arguments
  ending.open_streams()
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')  # names that the terminal has no letters for
  if arguments is None:
    ending.listen()
    ending.pass_over_coroutines()
  try:
    with ending.importing():
      run, options = parsed(given)
    _check_said(options)
    run(options)
    sys.stdout.flush()
  except BrokenPipeError:
    _end_quietly()
  except KeyboardInterrupt:
    _stop(arguments)
  except Exception as error:
    if ending.interrupted():
      _stop(arguments)
    if (line := ending.line_of(error)) is None:
      raise
    sys.exit(f'error: {line}')
  finally:
    if arguments is None:
      ending.nothing_more()


def _stop(arguments: list[str] | None) -> NoReturn:
  """Ends as Ctrl-C does."""
  if arguments is not None:
    sys.exit(130)
  print('Stopped', file=sys.stderr)
  ending.at_once(130)


def parsed(arguments: list[str]) -> tuple[Callable[[argparse.Namespace], None], argparse.Namespace]:
  """Returns what runs a subcommand, and its options with the `fields` that are set; ends where one is wrong.

  Args:
    arguments: What follows `resjax`.
  """
  parser = _Parser('resjax', description='One image network, any resolution, any budget.')
  subparsers = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
  for name, summary in COMMANDS.items():
    subparser = subparsers.add_parser(name, help=summary, add_help=name in arguments[:1], allow_abbrev=False)
    if name in arguments[:1]:  # the others' modules, and what those import, stay unread
      module = name + '_' * keyword.iskeyword(name)
      command = importlib.import_module(f'resjax.commands.{module}')
      subparser.description, subparser.formatter_class = command.__doc__, argparse.RawDescriptionHelpFormatter
      command.add_arguments(subparser)
      known = [option for action in subparser._actions for option in action.option_strings]
  options, fields = parser.parse_known_args(arguments)
  takes_fields = hasattr(options, 'config')
  unknown = [field for before, field in zip(['', *fields], fields) if not (takes_fields and _is_field(before, field))]
  if unknown:
    hint = near(unknown[0].partition('=')[0], known) or f'; {SYNTAX}' * takes_fields
    parser.error(f'unexpected argument {shown(unknown[0])}{hint}')
  options.fields = fields
  return command.run, options


def _check_said(options: argparse.Namespace) -> None:
  """Refuses options without a value: as a path, that would be the current folder."""
  for name, value in vars(options).items():
    if value == '' or (isinstance(value, list) and '' in value):
      raise ValueError(f'{name.replace("_", "-")}: got an empty text, expected a value (this folder is called .)')


def _end_quietly() -> NoReturn:
  """Ends as a program does that SIGPIPE ends: who read the output, such as `head`, has gone."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is written at the end goes nowhere
  sys.exit(141)


def _is_field(before: str, argument: str) -> bool:
  """Whether an argument sets a field, or is the value of the field that the argument before it names."""
  value_is_next = _FIELD.match(before) and '=' not in before and not argument.startswith('-')
  return bool(_FIELD.match(argument) or value_is_next)


if __name__ == '__main__':
  main()
