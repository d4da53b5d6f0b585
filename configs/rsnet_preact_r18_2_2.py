"""The recipe of resjax/recipes/rsnet_preact_r18_2_2.py, where its command, its cost and its result stand."""

from resjax.recipes.rsnet_preact_r18_2_2 import get_config

__all__ = ['get_config']
