"""The recipe of resjax/recipes/rsnet_r18_2_32.py, where its command, its cost and its result stand."""

from resjax.recipes.rsnet_r18_2_32 import get_config

__all__ = ['get_config']
