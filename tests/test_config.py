"""Wrong fields end in one line; configs survive JSON; a run goes on only with its own config."""

import json
import pathlib
import subprocess
import sys

import pytest

from configs import default, inet_r18, parallel_r18, quickstart, rsnet_mobilenetv2, rsnet_r18, rsnet_r50
from resjax import config as configuration

ROOT = pathlib.Path(__file__).parents[1]
RECIPES = [default, quickstart, rsnet_r18, rsnet_r50, rsnet_mobilenetv2, inet_r18, parallel_r18]


@pytest.mark.parametrize('recipe', RECIPES, ids=lambda r: r.__name__)
def test_every_recipe_is_valid_and_survives_json(recipe):
  config = recipe.get_config()
  configuration.validate(config)
  text = json.dumps(configuration.to_json(config))
  again = configuration.from_json(json.loads(text))
  assert again.to_dict() == config.to_dict() and isinstance(again.resolutions, tuple)
  assert configuration.differences(json.loads(text), config) == []


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('resolutions', (96, 224), r'config.resolutions: got \(96, 224\), expected the highest first'),
    ('resolutions', (), 'config.resolutions: got .* expected one or more distinct positive integers'),
    ('resolutions', (32, -8), 'config.resolutions: got .* expected one or more distinct positive integers'),
    ('distillation', 'chain', "config.distillation: got 'chain', expected one of full, vanilla, none"),
    ('model.name', 'resnet19', "config.model.name: got 'resnet19', expected one of resnet18, "),
    ('data.flip', 'often', "config.data.flip: got 'often', expected one of none, shared, independent"),
    ('batch_size', 0, 'config.batch_size: got 0, expected more than 0'),
    ('epochs', -1.0, 'config.epochs: got -1.0, expected more than 0'),
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


def test_differences_name_the_fields_and_leave_out_the_free_ones():
  saved = configuration.to_json(default.get_config())
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
    ([], '--config is missing, for example --config=configs/quickstart.py'),
    (['--config=configs/nothing.py'], '--config: no file configs/nothing.py, expected a recipe'),
    (['--config=configs/quickstart.py', '--config.epoch=3'], 'Did you mean "epochs" instead of "epoch"'),
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
