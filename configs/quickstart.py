"""The recipe of resjax/recipes/quickstart.py, where its command, its cost and its result stand."""

from resjax.recipes.quickstart import get_config

__all__ = ['get_config']
