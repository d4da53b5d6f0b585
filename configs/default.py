"""Every field of a run, once: resjax/recipes/default.py."""

from resjax.recipes.default import get_config

__all__ = ['get_config']
