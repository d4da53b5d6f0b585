"""The recipe of resjax/recipes/drnet_r50_imagenet100.py, where its command, its cost and its result stand."""

from resjax.recipes.drnet_r50_imagenet100 import get_config

__all__ = ['get_config']
