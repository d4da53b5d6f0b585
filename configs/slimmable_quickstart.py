"""The recipe of resjax/recipes/slimmable_quickstart.py, where its command, its cost and its result stand."""

from resjax.recipes.slimmable_quickstart import get_config

__all__ = ['get_config']
