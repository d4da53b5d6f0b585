"""What importing costs, and which way imports run."""

import ast
import graphlib
import pathlib
import re
import subprocess
import sys
import tarfile

import pytest

import resjax

ROOT = pathlib.Path(__file__).parents[1]


def loaded_after(code):
  listing = f'{code}\nimport sys\nprint(*sorted({{name.split(".")[0] for name in sys.modules}}))'
  done = subprocess.run([sys.executable, '-c', listing], capture_output=True, text=True, cwd=ROOT, check=True)
  return set(done.stdout.split())


def test_importing_resjax_loads_no_data_library():
  assert not loaded_after('import resjax') & {
    'grain',
    'tensorflow_datasets',
    'sklearn',
    'matplotlib',
    'tensorflow',
  }


def test_importing_parses_no_flags_and_changes_no_logger(tmp_path):
  """For each public name; nor does a network that is read. What absl does to its own logger, Orbax has it do."""
  with tarfile.open(ROOT / 'tests' / 'stored' / '0.1.0.tar.gz') as archive:
    archive.extractall(tmp_path, filter='data')
  code = (
    f'WORKDIR = {str(tmp_path / "0.1.0" / "rsnet")!r}'
    + """
import logging
loggers = [logging.getLogger(name) for name in (None, 'absl', 'asyncio', 'jax', 'orbax')]
state = lambda: [(l.level, list(l.handlers), list(l.filters)) for l in loggers]
before = state()
import pytest

import resjax
assert state() == before, state()
import resjax.checkpoint, resjax.commands.train
for name in resjax.__all__:
  getattr(resjax, name)
  assert state()[0] == before[0], name
resjax.trained.load(WORKDIR)
assert state()[0] == before[0]
assert [l.filters for l in loggers] == [[]] * len(loggers)
from absl import flags
assert not flags.FLAGS.is_parsed() and 'config' not in flags.FLAGS
"""
  )
  assert loaded_after(code)


def test_what_trains_and_predicts_is_imported_where_it_is_used():
  names = '[name.split(".")[0] for name in sys.modules]'
  code = f'import resjax, sys; assert "grain" not in {names}; assert resjax.train_and_evaluate and resjax.Classifier'
  assert 'grain' in loaded_after(code)
  with pytest.raises(AttributeError, match="module 'resjax' has no attribute 'Clasifier'"):
    resjax.Clasifier  # noqa: B018


def test_training_loads_no_tensorflow():
  loaded = loaded_after('import resjax.training.loop, resjax.data.tfds')
  assert 'tensorflow_datasets' in loaded and not loaded & {'tensorflow', 'clu'}


def imports_of(path):
  """The rooms of resjax that a file imports from."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module and node.module.split('.')[0] == 'resjax':
      parts = node.module.split('.')[1:]
      yield from [parts[0]] if parts else [alias.name for alias in node.names]
    if isinstance(node, ast.Import):
      yield from (a.name.split('.')[1] for a in node.names if a.name.startswith('resjax.'))


def floors():
  """The rooms, modules and folders of resjax, by floor: one above the highest of those that they import."""
  rooms = {}
  for path in sorted((ROOT / 'resjax').rglob('*.py')):
    room = path.relative_to(ROOT / 'resjax').with_suffix('').parts[0]
    rooms.setdefault(room, set()).update(set(imports_of(path)) - {room})
  del rooms['__init__']

  def floor(room, above=()):
    assert room not in above, f'a circle of imports: {" -> ".join([*above, room])}'
    return 1 + max((floor(other, (*above, room)) for other in rooms[room] & rooms.keys()), default=-1)

  found = {}
  for room in sorted(rooms):
    found.setdefault(floor(room), []).append(room)
  return found


def test_imports_run_one_way_and_the_picture_of_them_is_true():
  found = floors()
  picture = '\n'.join(f'{number}  {"  ".join(found[number])}' for number in sorted(found, reverse=True))
  text = (ROOT / 'docs' / 'architecture.md').read_text(encoding='utf-8')
  (shown,) = re.findall(r'<!-- floors -->\n```\n(.*?)\n```\n<!-- end of floors -->', text, re.DOTALL)
  assert shown == picture


def test_no_two_files_import_each_other_not_even_inside_of_a_function():
  paths = sorted((ROOT / 'resjax').rglob('*.py'))
  files = {'.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path for path in paths}
  del files['resjax']  # its names are of all floors
  graph = {module: set() for module in files}
  for module, path in files.items():
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.ImportFrom) and node.module:
        names = {f'{node.module}.{alias.name}' for alias in node.names}
        graph[module] |= {name if name in files else node.module for name in names} & files.keys()
  graphlib.TopologicalSorter(graph).prepare()


def test_training_and_inference_know_nothing_of_each_other():
  for here, there in (('training', 'inference'), ('inference', 'training')):
    files = sorted((ROOT / 'resjax' / here).rglob('*.py'))
    assert not [path for path in files if there in imports_of(path)]
