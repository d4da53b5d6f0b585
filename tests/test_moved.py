"""Every public name of version 0.1 is there, or says what to type instead; tests/stored has the list of them."""

import importlib
import importlib.util
import pathlib
import pkgutil
import re
import subprocess
import sys

import pytest

from resjax import moved

LINES = (pathlib.Path(__file__).parent / 'stored' / 'names_0.1.0.txt').read_text().splitlines()
NAMES = {module: names.split() for module, names in (line.split(': ') for line in LINES)}


def test_every_name_is_there_or_says_what_to_type():
  """Also as `import resjax.routers` and `from resjax.routers import mix`, which ask in the same way."""
  gone = 0
  for module, names in NAMES.items():
    found = importlib.import_module(module)
    for name in names:
      try:
        assert getattr(found, name) is not None
      except ImportError as error:
        assert str(error) == f'{module}.{name} is gone since 0.2: type {moved.MOVED[module][name]}'
        gone += 1
  assert gone > 20 and sum(map(len, NAMES.values())) > 300


@pytest.mark.parametrize('module', moved.MOVED)
def test_what_moved_was_there_and_what_is_named_is_there_now(module):
  assert moved.MOVED[module].keys() <= set(NAMES[module])
  for now in moved.MOVED[module].values():
    parts = re.split(r'[(\[]', now.lstrip('='))[0].split('.')
    if parts[0] != 'resjax':
      continue
    places = ['.'.join(parts[:count]) for count in range(1, len(parts))]
    place = next(place for place in reversed(places) if importlib.util.find_spec(place))
    assert pkgutil.resolve_name(f'{place}:{".".join(parts)[len(place) + 1 :]}') is not None


# Each of its arguments is run as if resjax had not been imported, and said in a line: what it raises, or nothing.
EACH = """
import sys, traceback
for code in sys.argv[1:]:
  for name in [name for name in sys.modules if name.partition('.')[0] == 'resjax']:
    del sys.modules[name]
  try:
    exec(code, {})
    print()
  except Exception as error:
    print(traceback.format_exception_only(error)[-1].strip())
"""


def test_in_a_fresh_package_each_way_to_ask_is_answered():
  asked = {
    'import resjax.routers; from resjax.data.places import local; from resjax.dial import dialled': '',
    **dict.fromkeys(
      ('from resjax.checkpoint import load_variables', 'import resjax.checkpoint as c; c.load_variables'),
      'ImportError: resjax.checkpoint.load_variables is gone since 0.2: type resjax.trained.read(workdir)',
    ),
    **dict.fromkeys(
      ('from resjax import routers; routers.oracle', 'from resjax.routers import oracle'),
      'ImportError: resjax.routers.oracle is gone since 0.2: type resjax.routing.oracle.Oracle(costs).choose(right)',
    ),
    'import resjax.nothing': "ModuleNotFoundError: No module named 'resjax.nothing'",
    'from resjax import nothing': "ImportError: cannot import name 'nothing' from 'resjax'",
  }
  said = subprocess.run([sys.executable, '-c', EACH, *asked], capture_output=True, text=True)
  *lines, last = said.stdout.splitlines()
  *expected, begin = asked.values()
  assert lines == expected and last.startswith(begin) and not said.stderr


def test_another_name_is_no_attribute():
  with pytest.raises(AttributeError, match="^module 'resjax.checkpoint' has no attribute 'load_variable'$"):
    importlib.import_module('resjax.checkpoint').load_variable  # noqa: B018
