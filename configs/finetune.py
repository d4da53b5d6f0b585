"""The recipe of resjax/recipes/finetune.py, where its command, its cost and its result stand."""

from resjax.recipes.finetune import get_config

__all__ = ['get_config']
