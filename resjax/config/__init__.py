"""A run's config: made from a recipe, checked (`checks`), stored and read again (`stored`), settled (`started`)."""

import pathlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from resjax import recipes
from resjax.config.checks import validate
from resjax.config.extension import check as check_extension
from resjax.config.started import filled, left, settled
from resjax.config.stored import (
  FREE,
  changed,
  check_same,
  complete,
  differences,
  fields_read,
  flatten,
  from_json,
  to_json,
)

__all__ = [
  'FREE',
  'changed',
  'check_extension',
  'check_same',
  'complete',
  'differences',
  'fields_read',
  'filled',
  'flatten',
  'from_json',
  'left',
  'load',
  'settled',
  'to_json',
  'validate',
]


def load(recipe: str | pathlib.Path, fields: Sequence[str] = ()) -> ConfigDict:
  """Returns the config of a recipe, checked.

  Args:
    recipe: One of `recipes.NAMES`, or a file, as of `recipes.make`.
    fields: What is set on top, as `--config.FIELD=VALUE`.

  Raises:
    FileNotFoundError: There is no such recipe.
    ValueError: It has no such field, or a value does not fit; see `validate`.
  """
  config = recipes.make(recipe, fields)
  validate(config)
  return config
