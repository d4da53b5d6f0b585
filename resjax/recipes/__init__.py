"""The recipes: `default` has every field of a run once; the others start from it and change a few.

The docstring of each is its command, its cost and its result; its `get_config()` returns a new ConfigDict.
"""

import difflib
import importlib.util
import os
import pathlib
import pkgutil
import sys
import types
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

# What `--config=NAME` takes besides a file.
NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def make(recipe: str | pathlib.Path, fields: Sequence[str] = ()) -> ConfigDict:
  """Returns the config of a recipe, not checked.

  Args:
    recipe: One of `NAMES`, or a Python file with a function `get_config`; what follows a colon is given to it.
    fields: What is set on top, as `--config.FIELD=VALUE`.

  Raises:
    FileNotFoundError: There is no such recipe.
    ValueError: It has no such field, or a value is not of the field's type.
  """
  name, *argument = _parts(recipe)
  module = importlib.import_module(f'resjax.recipes.{name}') if name in NAMES else _module_of(name)
  return with_fields(module.get_config(*argument), fields)


def name_of(recipe: str | pathlib.Path) -> str:
  """Returns what a recipe is called: its name, or that of its file without the ending."""
  return pathlib.Path(_parts(recipe)[0]).stem


def _parts(recipe: str | pathlib.Path) -> list[str]:
  """The recipe, and what is given to it, if anything is; a file of that very name has its colons in it."""
  return [str(recipe)] if os.path.isfile(recipe) else str(recipe).split(':', 1)


def _module_of(file: str) -> types.ModuleType:
  """The module in a file."""
  path = pathlib.Path(file)
  if not path.is_file():
    raise FileNotFoundError(f'--config: no file {file}, expected a recipe: a file or one of {", ".join(NAMES)}')
  root = str(path.absolute().parent.parent)  # recipes may import each other as `configs.NAME`
  if root not in sys.path:
    sys.path.append(root)
  spec = importlib.util.spec_from_file_location(path.stem, path)
  if spec is None or spec.loader is None:
    raise ValueError(f'--config: got {file}, expected a Python file with a function get_config')
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except ModuleNotFoundError as error:
    if error.name != 'configs':
      raise
    raise ValueError(
      f'--config: {file} imports from configs, which is not here; expected `from resjax.recipes import ...`'
    ) from None
  return module


def with_fields(config: ConfigDict, fields: Sequence[str]) -> ConfigDict:
  """Returns a config, changed: with fields set as a command names them, in the types that they have.

  Args:
    config: With all fields of `default`.
    fields: As `--config.FIELD=VALUE`.

  Raises:
    ValueError: There is no such field, or a value is not of the field's type.
  """
  named = [field.partition('=')[::2] for field in fields]
  for name, _ in named:
    if '.' in name:
      _check_field(config, name.partition('.')[2])
  # Tuples add up as flags; one that is whole takes the place of those before it.
  kept = [
    field
    for i, field in enumerate(fields)
    if not any(name == named[i][0] and value.startswith(('(', '[')) for name, value in named[i + 1 :])
  ]
  values, arguments = flags.FlagValues(), ['resjax', *kept]
  try:
    config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=arguments)
    rest = values(arguments)[1:]
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, SyntaxError) as error:
    message = ' '.join(str(error).strip('\'"').replace("\\'", "'").replace('\\n', ' ').split())
    raise ValueError(f'a --config.FIELD=VALUE that does not fit: {message}') from None
  if rest:
    raise ValueError(f'unexpected argument {rest[0]!r}: fields are set as --config.FIELD=VALUE')
  return config


def _check_field(config: ConfigDict, name: str) -> None:
  """Refuses a name that no field has."""
  section: Any = config
  for part in name.split('.'):
    names = list(section) if isinstance(section, ConfigDict) else []
    if part not in names:
      close = [f'. Did you mean "{near}" instead of "{part}"?' for near in difflib.get_close_matches(part, names, 1)]
      hint = close[0] if close else ', expected one of resjax/recipes/default.py'
      raise ValueError(f'--config.{name}: no such field{hint}')
    section = section[part]
