"""The package stands on its own: a wheel, installed in a fresh environment, trains away from the checkout."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TINY = (
  '--config.resolutions=(16,8)',
  '--config.model.width=0.25',
  '--config.model.num_classes=4',
  '--config.data.source=fake',
  '--config.data.eval_split=val',
  '--config.data.size=16',
  '--config.batch_size=8',
  '--config.eval.batch_size=8',
  '--config.epochs=1',
)


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
  """An environment with the wheel, and with this environment's packages; an empty folder."""
  root = tmp_path_factory.mktemp('wheel')
  source, environment, elsewhere = root / 'source', root / 'venv', root / 'elsewhere'
  source.mkdir()
  elsewhere.mkdir()
  for name in ('pyproject.toml', 'requirements.txt', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, source)
  shutil.copytree(ROOT / 'resjax', source / 'resjax', ignore=shutil.ignore_patterns('__pycache__'))
  pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q']
  build = ['wheel', '--no-deps', '--no-build-isolation', '--no-index', f'--wheel-dir={root}', source]
  subprocess.run([*pip, *build], check=True)
  venv.create(environment, with_pip=False)
  (wheel,) = root.glob('*.whl')
  subprocess.run([*pip, f'--python={environment}', 'install', '--no-deps', '--no-index', wheel], check=True)
  (packages,) = environment.glob('lib/python*/site-packages')
  (packages / 'rest.pth').write_text(sysconfig.get_path('purelib') + '\n')
  return environment / 'bin', elsewhere


def run(installed, command, *arguments):
  """Runs a command of the environment in the empty folder; returns what it prints."""
  bin, elsewhere = installed
  env = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
  done = subprocess.run([bin / command, *arguments], cwd=elsewhere, env=env, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stdout


def test_the_wheel_has_its_version_its_types_and_its_page(installed):
  code = (
    'import importlib.metadata, pathlib, resjax, resjax.report as r; root = pathlib.Path(resjax.__file__).parent;'
    'print(resjax.__version__ == importlib.metadata.version("resjax"), (root / "py.typed").is_file(),'
    ' all((pathlib.Path(r.__file__).parent / f).is_file() for f in ("page.html.j2", "evidence.html.j2", "style.css")),'
    ' root)'
  )
  *found, root = run(installed, 'python', '-c', code).split()
  assert found == ['True'] * 3 and pathlib.Path(root).is_relative_to(installed[0].parent)


@pytest.mark.slow
def test_a_recipe_is_trained_by_its_name_and_the_result_shown_again(installed):
  out = run(installed, 'resjax', 'train', '--config=quickstart', *TINY)
  workdir = installed[1] / 'runs' / 'quickstart'
  results = json.loads((workdir / 'results.json').read_text())
  assert list(results['resolutions']) == ['16', '8'] and 'In runs/quickstart: results.json' in out
  code = (
    'import resjax; config = resjax.config.load("quickstart", {fields});'
    'print(resjax.train_and_evaluate(config, "runs/quickstart")["params"])'
  ).replace('{fields}', repr(list(TINY)))
  shown = run(installed, 'python', '-c', code)
  assert 'runs/quickstart holds this run, finished' in shown and shown.split()[-1] == str(results['params'])
