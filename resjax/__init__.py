"""One image network, any resolution, any budget, in JAX."""

import importlib
from typing import TYPE_CHECKING

from resjax import (
  config,
  formats,
  losses,
  macs,
  models,
  moved,
  preprocess,
  recipes,
  resize,
  routing,
  switchable,
  unseen,
)
from resjax.network import Network
from resjax.preprocess import Preprocessing
from resjax.routing import Budget
from resjax.switchable import extract, forward, share, view

if TYPE_CHECKING:
  from resjax import interop, trained
  from resjax.inference import BatchPredictor, Classifier, Prediction
  from resjax.training.loop import train_and_evaluate

__version__ = formats.VERSION

__all__ = [
  'BatchPredictor',
  'Budget',
  'Classifier',
  'Network',
  'Prediction',
  'Preprocessing',
  'config',
  'extract',
  'forward',
  'interop',
  'losses',
  'macs',
  'models',
  'preprocess',
  'recipes',
  'resize',
  'routing',
  'share',
  'switchable',
  'train_and_evaluate',
  'trained',
  'unseen',
  'view',
]

# What is imported only where it is used, and the data libraries with it.
_LATER = {
  'BatchPredictor': 'resjax.inference.bulk',
  'Classifier': 'resjax.inference.classifier',
  'Prediction': 'resjax.inference.predictions',
  'train_and_evaluate': 'resjax.training.loop',
}

moved.install()

if not TYPE_CHECKING:  # to a type checker other names are errors

  def __getattr__(name: str) -> object:
    """Imports what predicts and what trains; says where names of earlier versions went."""
    if name in _LATER:
      return getattr(importlib.import_module(_LATER[name]), name)
    if name in ('interop', 'trained') or f'resjax.{name}' in moved.MOVED:
      return importlib.import_module(f'resjax.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
