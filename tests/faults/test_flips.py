"""Damage in each kind of stored file is noticed; the driver's many trials are among the slow tests."""

import random

import flips
import pytest

pytestmark = pytest.mark.usefixtures('shallow')


@pytest.fixture(scope='module')
def stored(shallow, tmp_path_factory):
  root = tmp_path_factory.mktemp('stored')
  flips.make(root)
  return flips.Stored(root)


def test_a_flipped_bit_and_a_cut_are_noticed_in_every_kind_of_file(stored):
  draw = random.Random(1)
  for kind in stored.kinds:
    for flip in (True, True, False):
      found, path = flips.trial(stored, kind, draw, flip)
      assert found, (kind, path)
  for _, read in stored.kinds.values():
    read()  # all is right again, and says nothing
