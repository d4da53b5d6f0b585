"""One place that says what a resolution is."""

import numpy as np
import pytest

from resjax import resolution
from resjax.commands import options


def test_sides_names_and_texts():
  for given, sides, name in (
    (160, (160, 160), '160'),
    ((160, 160), (160, 160), '160'),
    ((128, 192), (128, 192), '128x192'),
  ):
    assert resolution.sides(given) == sides and resolution.name(given) == name
    assert resolution.parse(name) == resolution.square(given)
  assert resolution.square((160, 160)) == 160 and resolution.parse('160x160') == 160
  number = resolution.square(np.int64(24))
  assert (number, type(number)) == (24, int)
  assert resolution.square([np.int32(8), 9]) == (8, 9)
  assert [options.pixels(r) for r in (None, 8, (8, 9))] == ['', '8', '8x9']


def test_branches_of_one_size_have_names_of_their_own():
  found = resolution.branches((16, 16, 8, 8, 8))
  assert [resolution.name(r) for r in found] == [str(r) for r in found] == ['16', '16_2', '8', '8_2', '8_3']
  assert found[::2] == (16, 8, resolution.Branch(8, 3)) and len(set(found)) == 5
  assert [resolution.sides(r) for r in found[1:3]] == [(16, 16), (8, 8)]
  assert [resolution.parse(str(r)) for r in found] == [resolution.square(r) for r in found] == list(found)
  assert resolution.branches(found) == found and resolution.branches((24, 16)) == (24, 16)
  assert resolution.branches([(8, 9), (8, 9)])[1] == resolution.Branch((8, 9), 2) == resolution.parse('8x9_2')
  resolution.check_order(found)
  for wrong in (found[::-1], (16, 16), (16, found[3], 8), found[1::-1]):
    with pytest.raises(ValueError, match='expected one or more, the highest first$'):
      resolution.check_order(wrong)


@pytest.mark.parametrize('wrong', [0, -8, 12.5, True, '128', (8, 0), (8, True), (8, 8, 8), (8,), None, np.float32(8)])
def test_what_is_no_resolution(wrong):
  for act in (resolution.sides, resolution.square, resolution.name):
    with pytest.raises(ValueError, match=r'^resolution: got .*, expected a positive integer or \(height, width\)$'):
      act(wrong)
  with pytest.raises(ValueError, match=r'^size: got .*, expected a positive integer or'):
    resolution.sides(wrong, 'size')


@pytest.mark.parametrize('text', ['', 'x', '0', '8x', '8x0', '8x8x8', '-8', '8.5', '8,9', '8_', '8_1', '_2', '8_2_2'])
def test_texts_that_name_none(text):
  with pytest.raises(ValueError, match=f"^got '{text}', expected pixels such as 160, or 128x192$"):
    resolution.parse(text)
