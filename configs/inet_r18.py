"""The recipe of resjax/recipes/inet_r18.py, where its command, its cost and its result stand."""

from resjax.recipes.inet_r18 import get_config

__all__ = ['get_config']
