"""What is said of each image: the row that is its own, whatever could not be read beside it."""

import dataclasses

import numpy as np
import pytest

from resjax.inference.images import Chunk
from resjax.inference.predictions import Prediction, predictions
from resjax.routing import Routed

NAMES = ('cat', 'dog', 'owl')


def crops(*values):
  return np.array(values, np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 2, 2, 3), np.uint8)


def run(images):
  """Says of a crop's value modulo three that it is the class; odd ones ran at the lower resolution."""
  values = images[:, 0, 0, 0].astype(int)
  logits = np.where(np.arange(3) == values[:, None] % 3, 2.0, 0.0).astype(np.float32)
  return Routed(logits, values % 2, values * 100.0)


def test_every_image_gets_its_own_row():
  chunks = [
    Chunk(['a', 'bad', 'b'], [None, 'too large', None], crops(4, 5)),
    Chunk(['gone'], ['No such file'], crops()),
    Chunk(['c'], [None], crops(8)),
  ]
  found = list(predictions(chunks, ((32, 48), 16), run, NAMES))
  assert [p.image for p in found] == ['a', 'bad', 'b', 'gone', 'c']
  assert [p.class_index for p in found] == [1, None, 2, None, 2]
  assert [p.label for p in found] == ['dog', None, 'owl', None, 'owl']
  assert [p.resolution for p in found] == [(32, 48), None, 16, None, (32, 48)]
  assert [p.macs for p in found] == [400, None, 500, None, 800]
  assert [p.error for p in found] == [None, 'too large', None, 'No such file', None]
  assert found[0].probability == pytest.approx(np.e**2 / (np.e**2 + 2), rel=1e-12)
  assert dataclasses.asdict(found[1]) == dataclasses.asdict(Prediction('bad', error='too large'))


def test_large_logits_do_not_overflow():
  big = lambda images: Routed(np.array([[3e4, -3e4, 3e4 - 1]], np.float32), np.zeros(1, int), np.ones(1))
  (found,) = predictions([Chunk(['a'], [None], crops(1))], (16,), big, NAMES)
  assert found.probability == pytest.approx(1 / (1 + np.exp(-1)), rel=1e-12)


def test_what_is_said_is_plain_python():
  (found,) = predictions([Chunk(['a'], [None], crops(4))], (16,), run, NAMES)
  *values, top = dataclasses.astuple(found)
  assert {type(value) for value in values} == {str, int, float, type(None)}
  assert [type(value) for value in top[0]] == [int, str, float]


def test_the_likeliest_classes_first_of_equal_ones_the_lower(k=3):
  (found,) = predictions([Chunk(['a'], [None], crops(4))], (16,), run, NAMES, k)
  assert [guess[:2] for guess in found.top] == [(1, 'dog'), (0, 'cat'), (2, 'owl')]
  assert found.top[0] == (found.class_index, found.label, found.probability)
  assert sum(guess.probability for guess in found.top) == pytest.approx(1, rel=1e-12)
  (found,) = predictions([Chunk(['a'], [None], crops(4))], (16,), run, NAMES)
  assert len(found.top) == 1


@pytest.mark.parametrize('k', [0, 4])
def test_more_classes_than_there_are_can_not_be_named(k):
  with pytest.raises(ValueError, match=f'^top_k: got {k}, expected 1 to 3, the number of classes$'):
    predictions([], (16,), run, NAMES, k)


def test_nothing_is_run_for_no_images():
  fails = lambda images: pytest.fail('ran')
  assert [p.error for p in predictions([Chunk(['a'], ['bad'], crops())], (16,), fails, NAMES)] == ['bad']
  assert list(predictions([], (16,), fails, NAMES)) == []
