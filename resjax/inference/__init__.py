"""Images to logits, each at its own resolution: grouped, planned by measured costs, compiled ahead of time."""

from resjax.inference.bulk import BatchPredictor
from resjax.inference.classifier import Classifier, Prediction
from resjax.inference.engine import Engine, Result
from resjax.inference.programs import Program
from resjax.inference.runtime import Runtime
from resjax.inference.runtimes.xla import XlaRuntime

__all__ = ['BatchPredictor', 'Classifier', 'Engine', 'Prediction', 'Program', 'Result', 'Runtime', 'XlaRuntime']
