"""The recipe of resjax/recipes/drnet_from_rsnet_r18.py, where its command, its cost and its result stand."""

from resjax.recipes.drnet_from_rsnet_r18 import get_config

__all__ = ['get_config']
