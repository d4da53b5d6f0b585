"""Images to logits, each at its own resolution: grouped, planned by measured costs, compiled ahead of time."""

from resjax.inference.engine import Engine, Result
from resjax.inference.runtime import Runtime, XlaRuntime

__all__ = ['Engine', 'Result', 'Runtime', 'XlaRuntime']
