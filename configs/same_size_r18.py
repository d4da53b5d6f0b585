"""The recipe of resjax/recipes/same_size_r18.py, where its command, its cost and its result stand."""

from resjax.recipes.same_size_r18 import get_config

__all__ = ['get_config']
