"""No room is too large: the lines of files and of functions."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILE, FUNCTION = 300, 60  # lines at most


def too_long(path, source):
  """The file where it is too long, and its functions that are, inner ones counted with the outer: one line each."""
  lines = len(source.splitlines())
  found = [f'{path}: {lines} lines, expected at most {FILE}'] if lines > FILE else []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != 'get_config':  # a list of fields
      lines = node.end_lineno - node.lineno + 1
      if lines > FUNCTION:
        found.append(f'{path}:{node.lineno} {node.name}: {lines} lines, expected at most {FUNCTION}')
  return found


def function(name, lines):
  return f'def {name}():\n' + '  pass\n' * (lines - 1)


def test_what_is_too_long_is_named():
  assert too_long('a.py', function('f', 60) * 5) == []
  assert too_long('a.py', function('f', 60) * 5 + '\n') == ['a.py: 301 lines, expected at most 300']
  assert too_long('a.py', 'import os\n' + function('g', 61)) == ['a.py:2 g: 61 lines, expected at most 60']


@pytest.mark.parametrize('folder', ['resjax', 'configs', 'benchmarks', 'tests'])
def test_no_file_and_no_function_is_too_long(folder):
  paths = sorted((ROOT / folder).rglob('*.py'))
  assert paths
  found = [line for path in paths for line in too_long(path.relative_to(ROOT), path.read_text())]
  assert not found, '\n'.join(found)


def test_the_command_is_short():
  assert too_long('main.py', (ROOT / 'main.py').read_text()) == []
