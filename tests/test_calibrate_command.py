"""`resjax calibrate` finds images by itself: a split for it, what training kept apart, or the evaluation split."""

import json

import networks
import pytest

from resjax import checkpoint, cli, inference, models
from resjax import config as configuration
from resjax.commands import calibrate
from resjax.recipes import default


@pytest.mark.parametrize(
  ('train', 'found'),
  [
    ('train', 'val'),
    ('train[:90%]', 'train[90%:]'),
    ('train[:4000]', 'train[4000:]'),
    ('train[10%:]', 'train[:10%]'),
    ('train[10%:90%]', 'val'),
    ('train+extra', 'val'),
  ],
)
def test_images_that_were_trained_on_are_never_taken(train, found):
  split, why = calibrate.split_of(train, 'val')
  assert split == found
  assert why.startswith('the evaluation split' if split == 'val' else 'kept apart')


@pytest.fixture
def workdir(tmp_path, monkeypatch):
  """The workdir of a tiny network of fake images."""
  monkeypatch.setitem(models.MODELS, 'tiny', lambda **options: networks.tiny().model)
  config = default.get_config()
  config.resolutions, config.model.name, config.model.num_classes = (16, 8), 'tiny', 5
  config.data.source, config.data.size, config.data.eval_split = 'fake', 30, 'val'

  def make(**fields):
    for field, value in fields.items():
      config.eval[field] = value
    meta = {'format': 1, 'config': configuration.to_json(config), 'class_names': [], 'finished': True}
    checkpoint.write(tmp_path / 'run', networks.tiny().variables, meta)
    return tmp_path / 'run'

  return make


def test_a_run_is_calibrated_on_its_evaluation_images_and_says_so(workdir, capsys):
  path = workdir()
  cli.main(['calibrate', f'--workdir={path}', '--max-batch=8'])
  out = capsys.readouterr().out
  assert out.startswith('calibrating on 30 images of val, the evaluation split, without its labels: ')
  assert '30 images; budgets that can be met' in out
  assert len(inference.Classifier.load(path).calibrated['energy']) == 30


def test_a_split_for_it_comes_first(workdir, capsys):
  path = workdir(calibration_split='other')
  cli.main(['calibrate', f'--workdir={path}', '--max-batch=8'])
  assert capsys.readouterr().out.startswith('30 images; budgets that can be met')


def test_no_more_images_are_taken_than_are_needed(workdir, capsys, monkeypatch):
  monkeypatch.setattr(calibrate, '_IMAGES', 9)
  cli.main(['calibrate', f'--workdir={workdir()}', '--max-batch=8'])
  assert capsys.readouterr().out.startswith('calibrating on 9 images of val')


def test_images_and_the_place_of_others_are_not_taken_together(workdir):
  with pytest.raises(SystemExit, match=r'^error: --config\.data\.size=3: got with IMAGE, expected one of the two'):
    cli.main(['calibrate', 'a.png', f'--workdir={workdir()}', '--config.data.size=3'])


def test_the_package_is_a_command():
  import subprocess
  import sys

  done = subprocess.run([sys.executable, '-m', 'resjax', '--help'], capture_output=True, text=True, check=True)
  assert 'import' in done.stdout and done.stdout.startswith('usage: resjax')
  assert json.dumps(sorted(cli.COMMANDS)) == json.dumps(list(cli.COMMANDS))
