"""One image network, any resolution, any budget, in JAX."""

from resjax import losses, macs, models
from resjax.switchable import extract, forward, share, view

__all__ = ['extract', 'forward', 'losses', 'macs', 'models', 'share', 'view']
