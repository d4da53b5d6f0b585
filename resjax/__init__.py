"""One image network, any resolution, any budget, in JAX."""

from typing import TYPE_CHECKING

from resjax import config, losses, macs, models, recipes
from resjax.switchable import extract, forward, share, view

if TYPE_CHECKING:
  from resjax.inference import Classifier
  from resjax.training.loop import train_and_evaluate

__version__ = '0.2.0'

__all__ = [
  'Classifier',
  'config',
  'extract',
  'forward',
  'losses',
  'macs',
  'models',
  'recipes',
  'share',
  'train_and_evaluate',
  'view',
]

if not TYPE_CHECKING:

  def __getattr__(name: str) -> object:
    """Imports what predicts and what trains, and the data libraries that they need, only where it is used."""
    if name == 'Classifier':
      from resjax.inference import Classifier

      return Classifier
    if name == 'train_and_evaluate':
      from resjax.training.loop import train_and_evaluate

      return train_and_evaluate
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
