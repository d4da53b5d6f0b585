"""The recipe of resjax/recipes/retarget.py, where its command, its cost and its result stand."""

from resjax.recipes.retarget import get_config

__all__ = ['get_config']
