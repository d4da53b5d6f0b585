"""`resjax train --dry-run`: the config as it will be, what differs and why, what the workdir holds; nothing is run."""

import pathlib
import subprocess
import sys
import tarfile

import pytest

from resjax import cli, recipes
from resjax import config as configuration
from resjax.recipes import default

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def stored(tmp_path):
  """A finished run: the quickstart's network, at two sizes."""
  with tarfile.open(ROOT / 'tests' / 'stored' / '0.1.0.tar.gz') as archive:
    archive.extractall(tmp_path, filter='data')
  return tmp_path / '0.1.0' / 'rsnet'


# The stored run's, on top of the recipe.
FIELDS = """resolutions=(16,8) model.width=0.25 model.num_classes=4 batch_size=8 epochs=2.0
data.source=fake data.size=24
data.eval_split=val eval.batch_size=8 eval.every_epochs=0 checkpoint.every_epochs=1.0 optimizer.warmup_epochs=0.0
optimizer.learning_rate=0.01""".split()


def dry(workdir, capsys, *more):
  cli.main(['train', '--config=quickstart', f'--workdir={workdir}', '--dry-run', *more])
  return capsys.readouterr().out


def test_every_field_is_shown_with_what_it_differs_from(tmp_path, capsys):
  out = dry(tmp_path / 'new', capsys, '--config.epochs=7', '--config.seed=3', '--config.batch_size=256')
  shown, workdir = out.split('\n\n')
  lines = {line.split(' = ')[0]: line.split(' = ')[1] for line in shown.splitlines()}
  assert {name.removeprefix('config.') for name in lines} == configuration.flatten(default.get_config()).keys()
  assert ' '.join(lines['config.epochs'].split()) == '7.0 # set here, 3.5 in the recipe; default 120.0'
  assert ' '.join(lines['config.seed'].split()) == '3 # set here, 0 in the recipe; default 0'
  assert ' '.join(lines['config.batch_size'].split()) == '256 # set here, 64 in the recipe'
  assert ' '.join(lines['config.data.crop'].split()) == "'full' # default 'random_resized'"
  assert lines['config.data.pyramid'] == "'device'" and workdir == f'--workdir={tmp_path}/new: holds no run yet\n'
  assert not list(tmp_path.iterdir())


def test_what_the_workdir_holds_is_said(stored, capsys):
  same = [f'--config.{field}' for field in FIELDS]
  assert dry(stored, capsys, *same).endswith('rsnet: holds a run, finished, at step 6; it has this config\n')
  more = dry(stored, capsys, *same, '--config.epochs=4')
  assert more.endswith(': holds a run, finished, at step 6; refused without --extend:\n  config.epochs: 2.0 -> 4.0\n')
  assert '; extended:\n  config.epochs: 2.0 -> 4.0\n' in dry(stored, capsys, *same, '--config.epochs=4', '--extend')
  with pytest.raises(SystemExit, match='^error: workdir .* holds another network'):
    dry(stored, capsys, *same, '--config.model.width=1', '--extend')


def test_neither_data_nor_devices_are_needed(stored):
  command = [sys.executable, ROOT / 'main.py', '--config=rsnet_r50', '--dry-run', f'--workdir={stored}']
  environment = {'JAX_PLATFORMS': 'none', 'PYTHONPATH': str(ROOT)}
  done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=stored.parent)
  assert done.returncode == 0 and 'config.model.name = ' in done.stdout and 'holds a run, finished' in done.stdout


def test_a_recipe_of_ones_own_is_compared_with_itself(tmp_path, capsys, monkeypatch):
  (tmp_path / 'own.py').write_text(
    'from resjax.recipes import quickstart\n\ndef get_config(size="8"):\n  config = quickstart.get_config()\n'
    '  config.batch_size = int(size)\n  return config\n'
  )
  monkeypatch.chdir(tmp_path)
  cli.main(['train', '--config=own.py:16', '--dry-run'])
  out = capsys.readouterr().out
  assert 'config.batch_size = 16' in out and 'set here' not in out and '--workdir=runs/own: holds no run yet' in out
  assert recipes.name_of('own.py:16') == 'own'
