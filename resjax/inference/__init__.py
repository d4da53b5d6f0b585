"""Images to logits, each at its own resolution: grouped, planned by measured costs, compiled ahead of time."""

from resjax.inference.classifier import Classifier, Prediction
from resjax.inference.engine import Engine, Result
from resjax.inference.runtime import Runtime, XlaRuntime

__all__ = ['Classifier', 'Engine', 'Prediction', 'Result', 'Runtime', 'XlaRuntime']
