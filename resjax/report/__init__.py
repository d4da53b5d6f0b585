"""The result of a run: `results.json`, a table for the terminal, a picture of accuracy and cost."""

from resjax.report.gallery import gallery
from resjax.report.plot import accuracy_against_macs, draw
from resjax.report.results import read, versions, write
from resjax.report.spread import Spread, spread
from resjax.report.table import render, show

__all__ = [
  'Spread',
  'accuracy_against_macs',
  'draw',
  'gallery',
  'read',
  'render',
  'show',
  'spread',
  'versions',
  'write',
]
