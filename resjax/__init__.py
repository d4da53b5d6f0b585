"""One image network, any resolution, any budget, in JAX."""

from typing import Any

from resjax import losses, macs, models
from resjax.switchable import extract, forward, share, view

__all__ = ['Classifier', 'extract', 'forward', 'losses', 'macs', 'models', 'share', 'view']


def __getattr__(name: str) -> Any:
  """Imports the classifier, and the data libraries that it needs, only where it is used."""
  if name == 'Classifier':
    from resjax.inference import Classifier

    return Classifier
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
