"""What importing costs, and which way imports run."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# A module may import those before it, and its own folder.
ORDER = [
  {'compiling', 'losses', 'macs', 'models', 'resize', 'routers', 'report'},
  {'dial', 'preprocess', 'switchable'},
  {'gumbel', 'rsnet', 'unseen'},
  {'estimators'},
  {'drnet'},
  {'config', 'data'},
  {'checkpoint'},
  {'training', 'inference'},
  {'measuring', 'planning'},
  {'commands'},
  {'cli'},
]


@pytest.fixture(scope='module')
def loaded():
  """The packages that are there after each of three imports, one after another in a process of its own."""
  steps = {'library': 'resjax', 'sources': 'resjax.data.sources', 'training': 'resjax.training.loop, resjax.data.tfds'}
  code = 'import sys\n'
  for names in steps.values():
    code += f'import {names}\nprint(*{{name.split(".")[0] for name in sys.modules}})\n'
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, check=True)
  return dict(zip(steps, map(set, map(str.split, done.stdout.splitlines())), strict=True))


HEAVY = {'grain', 'tensorflow', 'tensorflow_datasets', 'sklearn', 'array_record'}


def test_importing_resjax_loads_no_data_library(loaded):
  assert 'resjax' in loaded['library'] and not loaded['library'] & (HEAVY | {'matplotlib'})
  assert not loaded['sources'] & HEAVY


def test_training_loads_no_tensorflow(loaded):
  assert 'tensorflow_datasets' in loaded['training'] and not loaded['training'] & {'tensorflow', 'clu'}


def imports_of(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module and node.module.split('.')[0] == 'resjax':
      parts = node.module.split('.')[1:]
      yield from [parts[0]] if parts else [alias.name for alias in node.names]
    if isinstance(node, ast.Import):
      yield from (a.name.split('.')[1] for a in node.names if a.name.startswith('resjax.'))


@pytest.mark.parametrize('path', sorted((ROOT / 'resjax').rglob('*.py')), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
  parts = path.relative_to(ROOT / 'resjax').with_suffix('').parts
  if parts[0] == '__init__':
    return
  level = next(i for i, names in enumerate(ORDER) if parts[0] in names)
  allowed = {parts[0]}.union(*ORDER[:level])
  assert set(imports_of(path)) <= allowed
