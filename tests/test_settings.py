"""A setting does what it says, or is refused in one line that names it: configs, their fields as typed, all options."""

import argparse
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from resjax import cli, ending, home, models, recipes, report, resolution
from resjax import config as configuration
from resjax.recipes import default
from resjax.training import run

FIELDS = configuration.flatten(default.get_config())

ODD = [
  *('', ' ', '-1', '0', '1', '2.5', 'nan', 'inf', '-inf', '1e400', '2147483648', '9' * 30, '9' * 5000, 'many', 'True'),
  *('None', '[8]', '(8, 8, 8)', '(8.7,)', '(True,)', '(16, 8)', '("a",)', '{}', '[]', '(' * 200, '((1,), 2)',
  'é\u202e', '\ud800'),
  *('~nobody.here/x', 'a\nb', 'a,b', '1,2', '160', '128x192', '100000',
  '0x10', '-', '--', '=', '\\', "'", '50ms', 'gs://a'),
]  # fmt: skip
VALUES = [
  *(0, -1, 1, 2.5, 10**400, 2**31, 2**63, True, False, None, float('nan'), float('inf'), -float('inf'), '', 'many'),
  *('a\0b', 'a\nb', '\ud800', (), (8, 8, 8), (8.7,), (True,), (16, 8), (2**31,), (100_000,), ('a',), ((),), [8], {}),
  *((('stage1_*', 0.5),), ((1, 2),), (float('nan'), 1.0), (0.1, 10**400), 'balanced', ('balanced',), b'x', 1j),
]

# The least that a command wants besides the option that is tried.
LEAST = {
  'benchmark': ['--config=quickstart'],
  'calibrate': ['--workdir=w'],
  'evaluate': ['--workdir=w'],
  'export': ['--workdir=w', '--format=onnx'],
  'import': ['w', '--workdir=w'],
  'plan': ['--config=quickstart', '--topology=v5e-8'],
  'predict': ['w', '--workdir=w'],
  'prune': ['--workdir=w', '--ratio=0.5', '--out=o'],
  'recalibrate': ['--workdir=w', '--out=o'],
  'report': ['--workdir=w'],
  'serve': ['--workdir=w'],
  'study': ['quickstart'],
  'summary': [],
  'train': ['--config=quickstart'],
}
NO_PATHS = {'--budget', '--budgets', '--routers', '--router', '--coordinator', '--topology', '--mix', '--resolutions',
            '--batches', '--scopes', '--model', '--mean', '--std', '--host', '--config'}  # fmt: skip


def one_line(error, name):
  """Whether a refusal is in one line that names what is refused."""
  text = str(error)
  assert '\n' not in text and name in text and len(text) < 1000, text


@given(st.sampled_from(sorted(FIELDS)), st.sampled_from(VALUES))
@settings(max_examples=600, derandomize=True, deadline=None)
def test_a_config_is_valid_or_one_line_names_a_field(field, value):
  config = ConfigDict(default.get_config(), type_safe=False)
  section, _, name = field.rpartition('.')
  part = config
  for word in section.split('.') if section else ():
    part = part[word]
  part._fields[name] = value  # past what ConfigDict itself refuses
  try:
    configuration.validate(config)
  except ValueError as error:
    one_line(error, 'config.')
  else:
    like = FIELDS[field]
    kind = (tuple, list) if isinstance(like, tuple) else (int, float) if isinstance(like, float) else type(like)
    assert isinstance(value, kind) and (isinstance(like, bool) or not isinstance(value, bool)), (field, value)


@given(st.lists(st.tuples(st.sampled_from([*sorted(FIELDS), 'a.b.c', 'data', 'seed.x', 'epoch', '']),
                          st.sampled_from(ODD) | st.text(max_size=6),
                          st.sampled_from(['--config.{}={}', '--noconfig.{}={}', '--config.{} {}'])),
                max_size=3))  # fmt: skip
@settings(max_examples=400, derandomize=True, deadline=None)
def test_fields_are_set_or_one_line_names_one(fields):
  arguments = [word for name, text, form in fields for word in form.replace('{}', name, 1).split(' ')]
  texts = iter([text for _, text, _ in fields])
  arguments = [word.replace('{}', next(texts)) if '{}' in word else word for word in arguments]
  try:
    configuration.load('quickstart', arguments)
  except ValueError as error:
    one_line(error, 'config')


def options_of(command):
  """The options of a command, and those that take a value."""
  found = []

  class Parser(cli._Parser):
    def add_argument(self, *names, **options):
      action = super().add_argument(*names, **options)
      found.append(action)
      return action

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(cli, '_Parser', Parser)
    patch.setattr(Parser, 'add_mutually_exclusive_group', lambda self, **_: self)
    cli.parsed([command, *LEAST[command]])
  return [action for action in found if action.option_strings and '-h' not in action.option_strings]


@pytest.mark.parametrize('command', sorted(cli.COMMANDS))
def test_an_option_is_taken_or_one_line_names_it(command, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  monkeypatch.setattr(argparse, '_', str)  # which looks for translations on the disk, word by word, in each parser
  for action in options_of(command):
    option = action.option_strings[0]
    least = [word for word in LEAST[command] if not word.startswith((f'{option}=', '--workdir'))]
    least += ['--workdir=w'] * (option not in ('--workdir', '--bundle', '--config') and '--workdir=w' in LEAST[command])
    for text in [*ODD, '~/x'] if action.nargs != 0 else ['1']:
      try:
        _, options = cli.parsed([command, *least, f'{option}={text}', *([f'{option}={text}'] if text == '1' else [])])
      except SystemExit as end:
        assert end.code == 2
        said = capsys.readouterr().err
        assert said.count('\n') == 1 and option in said and 'Traceback' not in said, said
      else:
        value = getattr(options, action.dest)
        if text == '~/x' and isinstance(value, str) and option not in NO_PATHS:
          assert value == str(tmp_path / 'home' / 'x'), option
        assert not isinstance(value, bool | float) or value == value


def test_an_option_that_is_not_known_is_asked_about(capsys):
  with pytest.raises(SystemExit):
    cli.main(['train', '--config=quickstart', '--wrkdir=x'])
  said = capsys.readouterr().err
  assert said == "error: unexpected argument '--wrkdir=x'. Did you mean --workdir?; see resjax --help\n"


@pytest.mark.parametrize('text', ['~/x', '~/[a]', '~'])
def test_a_path_begins_in_the_home_folder(text, monkeypatch):
  monkeypatch.setenv('HOME', '/h')
  assert home.expanded(text, 'w') == text.replace('~', '/h') and home.expanded(pathlib.Path(text), 'w')[:2] == '/h'
  for same in ('./~/x', 'a~b', 'gs://a/~', '/~'):
    assert home.expanded(same, 'w') == same
  monkeypatch.setenv('HOME', '')  # which Python takes for the root of the disk
  with pytest.raises(ValueError, match='^w: got .*, expected the home of a user'):
    home.expanded(text, 'w')


def test_what_is_called_so_comes_before_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / '~a.pth').touch()
  assert home.present('~a.pth', 'source') == '~a.pth'
  with pytest.raises(ValueError, match='^source: got .~b.pth'):
    home.present('~b.pth', 'source')


def test_no_folder_is_made_of_a_user_that_is_not(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ValueError, match="^workdir: got '~nobody.here/x', expected the home of a user; a folder of that"):
    report.read('~nobody.here/x')
  assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('accumulate', 'steps', 'result'),
  [(1, 10.4, 10), (4, 10.0, 8), (10, 10.0, 10), (50, 1.0, 'accumulate: got 50, expected at most the 1 batches'),
   (11, 10.0, 'accumulate: got 11'), (1, 0.3, 1),
   (1, 3e9, 'config.epochs: got 1, expected fewer: that is 3,000,000,000 batches')],
)  # fmt: skip
def test_a_run_is_as_long_as_it_was_said_to_be(accumulate, steps, result):
  config = default.get_config()
  config.optimizer.accumulate, config.epochs = accumulate, 1.0
  if isinstance(result, int):
    assert run._updates(config, steps) == result
  else:
    with pytest.raises(ValueError, match=result):
      run._updates(config, steps)


def test_sides_are_bounded_where_they_are_read_and_where_they_are_used():
  for act in (
    lambda: resolution.parse('100000'),
    lambda: resolution.sides(2**31),
    lambda: resolution.parse('9' * 5000),
  ):
    with pytest.raises(ValueError, match='expected at most 16384 pixels'):
      act()
  assert resolution.sides(resolution.MOST) == (16384, 16384)


@pytest.mark.parametrize(
  ('text', 'said'),
  [('x = (', 'SyntaxError'), ('import nothing_here', 'imports nothing_here, which is not here'),
   ('def get_config():\n  return 1 / 0\n', 'ZeroDivisionError: division by zero, line 2 of'),
   ('get_config = lambda: 3', 'returned 3, expected a ConfigDict'), ('', 'AttributeError')],
)  # fmt: skip
def test_a_recipe_of_ones_own_that_fails_is_named_in_one_line(text, said, tmp_path):
  (tmp_path / 'own.py').write_text(text)
  with pytest.raises(ValueError, match=said) as error:
    recipes.make(tmp_path / 'own.py')
  one_line(error.value, 'own.py')
  with pytest.raises(ValueError, match='quickstart fails .TypeError'):
    recipes.make('quickstart:3')


def test_no_memory_is_one_line_and_a_fault_of_the_program_is_shown_whole():
  assert ending.line_of(MemoryError('Unable to allocate 3 TiB\nmore')).startswith('not enough memory: Unable to alloc')
  assert ending.line_of(RuntimeError('RESOURCE_EXHAUSTED: Out of memory')).startswith('not enough memory: RESOURCE')
  assert ending.line_of(ValueError('a:\n  b')) == 'a: b' and ending.line_of(KeyError('a')) is None


def test_every_number_of_a_config_has_a_range():
  numbers = {name for name, value in FIELDS.items() if isinstance(value, int | float) and not isinstance(value, bool)}
  assert numbers <= configuration.checks._RANGES.keys() and models.MODELS
