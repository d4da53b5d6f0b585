"""The benchmark of single convolutions in small form: what it compares is equal, and its table has all of it."""

import argparse
import pathlib
import sys

import pytest

pytest.importorskip('torch')
sys.path.append(str(pathlib.Path(__file__).parents[1] / 'benchmarks'))
import conv_layers
import cpu_tables


def test_layers_are_compared_and_shown(monkeypatch):
  monkeypatch.setattr(conv_layers, 'LAYERS', {(8, 3, 4, 3, 2): 2, (5, 4, 6, 1, 1): 1})
  rows = [conv_layers.measure(layer, argparse.Namespace(batch=2, rounds=1)) for layer in conv_layers.LAYERS]
  assert [row['macs'] for row in rows] == [2 * 4 * 4 * 3 * 4 * 9, 2 * 5 * 5 * 4 * 6]
  assert [list(row['ways']) for row in rows] == [['XLA', 'PyTorch'], ['XLA', 'resjax', 'PyTorch']]
  assert 'input' not in rows[0]['ways']['XLA'] and 'input' in rows[1]['ways']['resjax']
  run = {'command': 'python', 'machine': 'one', 'versions': {}, 'rows': rows}
  text = '\n'.join(cpu_tables.conv_layers([run | {'note': ''}]))
  assert text.count('| 3x3/2, 3 to 4 at 8 px |') == 2 and text.count('| 1x1/1, 4 to 6 at 5 px |') == 3
  assert '| ResNet-18 without shortcuts | PyTorch |' in text


def test_what_differs_from_pytorch_is_not_timed(monkeypatch):
  monkeypatch.setattr(conv_layers, 'LAYERS', {(5, 4, 6, 1, 1): 0})
  monkeypatch.setattr(conv_layers, 'TOLERANCE', 0)
  with pytest.raises(AssertionError, match='Mismatched'):
    conv_layers.measure((5, 4, 6, 1, 1), argparse.Namespace(batch=2, rounds=1))
