"""The recipe of resjax/recipes/slimmable_mobilenetv2.py, where its command, its cost and its result stand."""

from resjax.recipes.slimmable_mobilenetv2 import get_config

__all__ = ['get_config']
