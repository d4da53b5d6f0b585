"""The recipe of resjax/recipes/drnet_r50.py, where its command, its cost and its result stand."""

from resjax.recipes.drnet_r50 import get_config

__all__ = ['get_config']
