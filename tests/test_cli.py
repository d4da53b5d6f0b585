"""The `resjax` command: one line for what is wrong, help without loading what is not asked for."""

import sys
import types

import pytest

from resjax import cli
from resjax import config as configuration


@pytest.fixture
def command(monkeypatch):
  """A subcommand that fails as its argument says."""
  module = types.ModuleType('resjax.commands.trial', 'What it does.')

  def add_arguments(parser):
    parser.add_argument('--config')
    parser.add_argument('--fail')

  def run(options):
    module.seen = options
    if options.fail:
      raise ValueError(options.fail)

  module.add_arguments, module.run = add_arguments, run
  monkeypatch.setitem(sys.modules, 'resjax.commands.trial', module)
  monkeypatch.setitem(cli.COMMANDS, 'trial', 'a trial')
  return module


def test_a_subcommand_gets_its_options_and_the_fields_of_a_config(command):
  cli.main(['trial', '--config=a.py', '--config.batch_size=8'])
  assert command.seen.config == 'a.py' and command.seen.fields == ['--config.batch_size=8']
  cli.main(['trial', '--config=a.py', '--config.batch_size', '8', '--noconfig.drnet.frozen'])
  assert command.seen.fields == ['--config.batch_size', '8', '--noconfig.drnet.frozen']


def test_bad_input_is_one_line(command):
  with pytest.raises(SystemExit, match=r'^error: size: 3, expected 4$'):
    cli.main(['trial', '--fail=size: 3, expected 4'])


@pytest.mark.parametrize(
  'arguments', [['trial', '--other=1'], ['trial', 'other'], ['trial', '--config.size=8', 'other'], ['none'], []]
)
def test_what_is_not_known_is_refused(command, arguments, capsys):
  with pytest.raises(SystemExit) as error:
    cli.main(arguments)
  assert error.value.code == 2
  assert (arguments or ['COMMAND'])[-1] in capsys.readouterr().err


def test_help_reads_no_command(monkeypatch, capsys):
  monkeypatch.setitem(cli.COMMANDS, 'absent', 'what it is for')
  with pytest.raises(SystemExit) as done:
    cli.main(['--help'])
  assert done.value.code == 0 and 'what it is for' in capsys.readouterr().out


def test_a_recipe_and_fields_on_top():
  config = configuration.load('configs/quickstart.py', ['--config.batch_size=64', '--config.resolutions=(16,8)'])
  assert config.batch_size == 64 and tuple(config.resolutions) == (16, 8)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (['--config.batch_sise=64'], r'--config\.batch_sise: no such field\. Did you mean config\.batch_size\?'),
    (['--config.nothing.size=64'], r'--config\.nothing\.size: no such field\. Did you mean config\.data\.size or'),
    (['--config.batch_size=many'], 'many'),
    (['--config.batch_size=0'], r'config\.batch_size: got 0, expected more than 0'),
    (['--config.drnet.frozen', 'word'], "unexpected argument 'word': fields are set as"),
  ],
)
def test_a_field_that_does_not_fit_is_named(fields, message):
  with pytest.raises(ValueError, match=message) as error:
    configuration.load('configs/quickstart.py', fields)
  assert '\n' not in str(error.value)


def test_a_recipe_that_is_not_there():
  with pytest.raises(FileNotFoundError, match=r'--config: no file configs/none\.py, expected a recipe'):
    configuration.load('configs/none.py')
