"""The recipes: `default` has every field of a run once; the others start from it and change a few.

The docstring of each is its command, its cost and its result; its `get_config()` returns a new ConfigDict.
"""

import contextlib
import importlib.util
import os
import pathlib
import pkgutil
import sys
import traceback
import types
from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

from resjax.fields import put
from resjax.home import expanded
from resjax.telling import shown

# What `--config=NAME` takes besides a file.
NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def make(recipe: str | pathlib.Path, fields: Sequence[str] = ()) -> ConfigDict:
  """Returns the config of a recipe, not checked.

  Args:
    recipe: One of `NAMES`, or a Python file with a function `get_config`; what follows a colon is given to it.
    fields: What is set on top, as `--config.FIELD=VALUE`.

  Raises:
    FileNotFoundError: There is no such recipe.
    ValueError: It is no recipe, or fails; it has no such field, or a value is not of the field's type.
  """
  name, *argument = _parts(recipe)
  module = importlib.import_module(f'resjax.recipes.{name}') if name in NAMES else _module_of(name)
  with _telling(name):
    config = module.get_config(*argument)
  if not isinstance(config, ConfigDict):
    raise ValueError(f'--config: get_config of {name} returned {shown(config)}, expected a ConfigDict')
  return with_fields(config, fields)


def name_of(recipe: str | pathlib.Path) -> str:
  """Returns what a recipe is called: its name, or that of its file without the ending."""
  return pathlib.Path(_parts(recipe)[0]).stem


def _parts(recipe: str | pathlib.Path) -> list[str]:
  """The recipe, and what is given to it, if anything is; a file of that very name has its colons in it."""
  return [str(recipe)] if os.path.isfile(recipe) else str(recipe).split(':', 1)


def _module_of(file: str) -> types.ModuleType:
  """The module in a file."""
  path = pathlib.Path(expanded(file, '--config'))
  if not path.is_file():
    raise FileNotFoundError(f'--config: no file {file}, expected a recipe: a file or one of {", ".join(NAMES)}')
  root = str(path.absolute().parent.parent)  # recipes may import each other as `configs.NAME`
  if root not in sys.path:
    sys.path.append(root)
  spec = importlib.util.spec_from_file_location(path.stem, path)
  if spec is None or spec.loader is None:
    raise ValueError(f'--config: got {file}, expected a Python file with a function get_config')
  module = importlib.util.module_from_spec(spec)
  with _telling(file):
    spec.loader.exec_module(module)
  return module


@contextlib.contextmanager
def _telling(file: str) -> Iterator[None]:
  """What fails in a recipe ends in one line, which names the recipe's own line where there is one."""
  try:
    yield
  except ModuleNotFoundError as error:
    if error.name != 'configs':
      raise ValueError(f'--config: {file} imports {error.name}, which is not here') from error
    raise ValueError(
      f'--config: {file} imports from configs, which is not here; expected `from resjax.recipes import ...`'
    ) from None
  except Exception as error:  # whatever a user's file does
    if isinstance(error, ValueError) and str(error).startswith('--config'):
      raise  # what the recipe itself says of what is given to it
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f', line {last.lineno} of {last.filename}' if last.filename != __file__ else ''
    said = next(iter(str(error).splitlines()), '')[:300]
    raise ValueError(f'--config: {file} fails ({type(error).__name__}: {said}{where}); expected a recipe') from error


def with_fields(config: ConfigDict, fields: Sequence[str]) -> ConfigDict:
  """Returns a config, changed: with fields set as a command names them, in the types that they have.

  Args:
    config: With all fields of `default`.
    fields: As `--config.FIELD=VALUE`.

  Raises:
    ValueError: There is no such field, or a value is not of the field's type.
  """
  put(config, fields)
  return config
