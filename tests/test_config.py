"""Wrong fields end in one line; configs survive JSON; a run goes on only with its own config."""

import json
import pathlib
import subprocess
import sys

import pytest

import configs.rsnet_r18
from resjax import config as configuration
from resjax import formats, recipes
from resjax.recipes import default

ROOT = pathlib.Path(__file__).parents[1]


def test_every_recipe_has_a_file_in_configs_that_gives_the_same():
  files = {path.stem for path in (ROOT / 'configs').glob('*.py')} - {'__init__'}
  assert files == set(recipes.NAMES) and {'default', 'quickstart', 'drnet_r50'} <= files
  for name in recipes.NAMES:
    assert configuration.load(ROOT / 'configs' / f'{name}.py') == configuration.load(name)


def test_files_of_ones_own_go_on_as_they_were(tmp_path):
  (tmp_path / 'own.py').write_text(
    'from configs import rsnet_r18\n\ndef get_config(size="8"):\n  config = rsnet_r18.get_config()\n'
    '  config.batch_size = int(size)\n  return config\n'
  )
  assert configuration.load(tmp_path / 'own.py').batch_size == 8
  assert configuration.load(f'{tmp_path}/own.py:16', ['--config.epochs=1']).batch_size == 16
  assert recipes.name_of(f'{tmp_path}/own.py:16') == 'own' and recipes.name_of('rsnet_r18') == 'rsnet_r18'
  assert configs.rsnet_r18.get_config is recipes.rsnet_r18.get_config


def test_where_there_is_no_folder_configs_one_line_says_what_to_type(tmp_path, monkeypatch):
  (tmp_path / 'own.py').write_text('from configs import default\nget_config = default.get_config\n')
  monkeypatch.setattr(sys, 'path', [path for path in sys.path if path not in ('', str(ROOT))])
  for name in [name for name in sys.modules if name.split('.')[0] == 'configs']:
    monkeypatch.delitem(sys.modules, name)
  with pytest.raises(ValueError, match='own.py imports from configs, .* expected `from resjax.recipes import') as error:
    configuration.load(tmp_path / 'own.py')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', recipes.NAMES)
def test_every_recipe_is_valid_and_survives_json(name):
  config = configuration.load(name)
  text = json.dumps(configuration.to_json(config))
  again = configuration.from_json(json.loads(text))
  assert again.to_dict() == config.to_dict() and isinstance(again.resolutions, tuple)
  assert configuration.differences(json.loads(text), config) == []


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('resolutions', (96, 224), r'config.resolutions: got \(96, 224\), expected the highest first'),
    ('resolutions', (), 'config.resolutions: got .* expected one or more positive integers'),
    ('resolutions', (32, -8), 'config.resolutions: got .* expected one or more positive integers'),
    ('resolutions', (16, 8, 16), r'config.resolutions: got \(16, 8, 16\), expected the highest first'),
    ('private', 'bias', "config.private: got 'bias', expected one of all, affine, statistics, none"),
    ('distillation', 'chain', "config.distillation: got 'chain', expected one of full, vanilla, none"),
    ('model.name', 'resnet19', "config.model.name: got 'resnet19', expected one of resnet18, "),
    ('data.flip', 'often', "config.data.flip: got 'often', expected one of none, shared, independent"),
    ('batch_size', 0, 'config.batch_size: got 0, expected more than 0'),
    ('epochs', -1.0, 'config.epochs: got -1.0, expected more than 0'),
    ('distillation_weight', -0.1, 'config.distillation_weight: got -0.1, expected 0 or more'),
    ('label_smoothing', 1.0, 'config.label_smoothing: got 1.0, expected 0 or more and less than 1'),
    ('data.crop_area', (0.5, 0.2), 'config.data.crop_area: .* expected 0 < lowest <= highest <= 1'),
    ('data.crops', 'different', "config.data.pyramid: got 'device' .* expected 'host'"),
    ('epochs', float('inf'), 'config.epochs: got inf, expected more than 0'),
    ('seed', 2**32, r'config.seed: got 4294967296, expected 0 or more and less than 2\*\*32'),
    ('data.crop_area', ('a', 1.0), 'config.data.crop_area: .* expected 0 < lowest <= highest <= 1'),
    ('parallel', 'jit', "config.parallel: got 'jit', expected one of shard_map, pmap"),
  ],
)
def test_a_wrong_value_is_named_in_one_line(field, value, message):
  config = default.get_config()
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=message) as error:
    configuration.validate(config)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      lambda c: c.optimizer.update(rate=3),
      'config.optimizer.rate: no such field. Did you mean config.optimizer.rates',
    ),
    (lambda c: c.data.__delattr__('dir'), 'config.data.dir: missing, expected every field of resjax/recipes'),
  ],
)
def test_a_config_has_the_fields_of_the_default(change, message):
  config = default.get_config()
  change(config)
  with pytest.raises(ValueError, match=message):
    configuration.validate(config)


@pytest.mark.parametrize(
  ('fields', 'read'),
  [
    (['--config.batch_size', '3'], lambda c: c.batch_size == 3),
    (['--config.drnet.frozen'], lambda c: c.drnet.frozen is True),
    (['--noconfig.drnet.frozen'], lambda c: c.drnet.frozen is False),
    (['--config.data.dir=2024'], lambda c: c.data.dir == '2024'),
    (['--config.epochs=3'], lambda c: isinstance(c.epochs, float) and c.epochs == 3),
    (['--config.resolutions=(160,)'], lambda c: c.resolutions == (160,)),
    (['--config.resolutions=64', '--config.resolutions=32'], lambda c: c.resolutions == (64, 32)),
    (['--config.resolutions=64', '--config.resolutions=(32,16)'], lambda c: c.resolutions == (32, 16)),
  ],
)
def test_a_field_gets_the_type_that_it_has(fields, read):
  assert read(recipes.make('default', fields))


def stored(number=None, **changes):
  """A run's config as it was saved with some format; a field that is None was not known then."""
  fields = configuration.to_json(default.get_config()) | changes
  values = {'config': {name: value for name, value in fields.items() if value is not None}}
  return values if number is None else values | {'format': number}


@pytest.mark.parametrize('number', [None, 0, formats.FORMAT])
def test_a_config_stored_before_a_field_came_is_completed(number):
  saved = stored(number, memory=None, optimizer={'learning_rate': 0.5}, resolutions=[32, 8])
  config = configuration.complete(saved, 'here')
  assert config.memory == 'joint' and config.resolutions == (32, 8)
  assert config.optimizer.learning_rate == 0.5 and config.optimizer.momentum == 0.9
  again = default.get_config()
  again.resolutions, again.optimizer.learning_rate = (32, 8), 0.5
  configuration.check_same(saved, again, 'here')
  again.optimizer.momentum = 0.8
  with pytest.raises(ValueError, match='config .config.optimizer.momentum: 0.9 there, 0.8 here.: give its config'):
    configuration.check_same(saved, again, 'here')


@pytest.mark.parametrize('budget', [0.6, 5e6])
def test_a_budget_that_left_the_predictor_out_is_brought_to_count_it(budget):
  fields = {'method': 'drnet', 'model.name': 'resnet_small', 'model.num_classes': 10, 'resolutions': (32, 16, 8)}
  made = default.get_config()
  made.update_from_flattened_dict(fields | {'drnet.budget': budget, 'drnet.predictor.size': 16})
  before = {'config': configuration.to_json(made)}
  network = budget * 12_501_632 if budget <= 1 else budget
  assert configuration.complete(before, 'here').drnet.budget == network + 69_312
  assert configuration.complete(before | {'format': 1}, 'here').drnet.budget == budget


def test_what_the_method_does_not_read_may_differ():
  again = default.get_config()
  again.drnet.eta = 0.3
  configuration.check_same(stored(1), again, 'here')
  again.method = 'drnet'
  with pytest.raises(ValueError, match='config.drnet.eta: 0.2 there, 0.3 here; config.method'):
    configuration.check_same(stored(1), again, 'here')


@pytest.mark.parametrize(
  ('saved', 'message'),
  [
    (stored(1, speed=3), 'run/5: got config.speed, no field of this version: a newer resjax wrote it'),
    (stored(formats.FORMAT + 1), f'run/5: got format {formats.FORMAT + 1}, expected at most {formats.FORMAT}: a newer'),
  ],
)
def test_what_a_newer_version_stored_is_refused_in_one_line(saved, message):
  with pytest.raises(ValueError, match=message) as error:
    configuration.complete(saved, 'run/5')
  assert '\n' not in str(error.value)


def test_fields_of_a_recipes_own_were_read_by_nothing_and_are_left_out():
  assert configuration.complete(stored(0, note='mine'), 'here') == default.get_config()


def test_every_format_has_its_upgrade_and_only_older_ones_get_it(monkeypatch):
  assert len(configuration.stored._UPGRADES) == formats.FORMAT

  def renamed(fields):
    return {'drnet.eta' if name == 'drnet.weight' else name: value for name, value in fields.items()}

  monkeypatch.setattr(configuration.stored, '_UPGRADES', (renamed,))
  saved = stored(0, drnet={'weight': 0.7})
  assert configuration.complete(saved, 'here').drnet.eta == 0.7
  with pytest.raises(ValueError, match='config.drnet.weight, no field of this version'):
    configuration.complete(saved | {'format': 1}, 'here')


def test_differences_name_the_fields_and_leave_out_the_free_ones():
  saved = stored()
  config = default.get_config()
  config.data.workers = 7
  config.log_steps = 3
  config.eval.batch_size = 5
  configuration.check_same(saved, config, 'here')
  config.model.name = 'resnet50'
  config.seed = 4
  with pytest.raises(ValueError, match='here holds a run with another config') as error:
    configuration.check_same(saved, config, 'here')
  assert "config.model.name: 'resnet18' there, 'resnet50' here; config.seed: 0 there, 4 here" in str(error.value)


def run_main(*arguments):
  done = subprocess.run(
    [sys.executable, 'main.py', *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=ROOT
  )
  return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
  ('arguments', 'expected'),
  [
    ([], '--config is missing, for example --config=quickstart'),
    (['--config=configs/nothing.py'], '--config: no file configs/nothing.py, expected a recipe'),
    (
      ['--config=configs/quickstart.py', '--config.epoch=3'],
      '--config.epoch: no such field. Did you mean config.epochs?',
    ),
    (['--config=configs/quickstart.py', '--config.batch_size=many'], 'batch_size'),
    (
      ['--config=configs/quickstart.py', '--config.resolutions=(8,32)'],
      'config.resolutions: got (8, 32), expected the',
    ),
    (['--config=configs/quickstart.py', 'batch_size=3'], "unexpected argument 'batch_size=3'"),
  ],
)
def test_the_command_says_in_one_line_what_is_wrong(arguments, expected, tmp_path):
  code, out, err = run_main(*arguments, f'--workdir={tmp_path}')
  assert code != 0
  assert expected in err
  assert 'Traceback' not in err and not any(tmp_path.iterdir())


def test_a_weight_where_nobody_teaches_is_refused():
  config = default.get_config()
  config.distillation, config.distillation_weight = 'none', 0.3
  with pytest.raises(ValueError, match=r"^config\.distillation_weight: got 0\.3 with distillation='none', expected 1"):
    configuration.validate(config)
