"""Confidence and agreement against sums written out by hand."""

import numpy as np
import pytest

from resjax.measuring import diagnosis


def test_reliability_and_its_error_by_hand():
  confidence = np.array([0.05, 0.25, 0.2, 0.55, 0.6, 1.0])
  right = np.array([False, True, False, True, False, True])
  found = diagnosis.reliability(confidence, right, bins=5)
  assert [b['images'] for b in found] == [2, 1, 2, 0, 1]  # 0.2 and 0.6 belong to the bins that they close
  assert 'accuracy' not in found[3]
  assert found[0] == {'low': 0, 'high': 0.2, 'images': 2, 'confidence': pytest.approx(0.125), 'accuracy': 0}
  assert found[2]['confidence'] == pytest.approx(0.575) and found[2]['accuracy'] == 0.5
  by_hand = (2 * 0.125 + 1 * 0.75 + 2 * 0.075 + 0) / 6
  assert diagnosis.calibration_error(found) == pytest.approx(by_hand)


def test_every_image_is_in_one_bin():
  rng = np.random.default_rng(0)
  confidence = np.concatenate([rng.random(500), np.arange(16) / 15])  # edges too
  found = diagnosis.reliability(confidence, rng.random(516) < confidence)
  assert sum(b['images'] for b in found) == 516 and len(found) == diagnosis.BINS
  assert all(b['low'] - 1e-9 <= b['confidence'] <= b['high'] + 1e-9 for b in found)


def test_a_network_that_knows_how_sure_it_may_be_has_no_error():
  confidence = np.repeat([0.3, 0.7], 10)
  right = np.r_[np.arange(10) < 3, np.arange(10) < 7]
  assert diagnosis.calibration_error(diagnosis.reliability(confidence, right)) == pytest.approx(0)


def test_agreement_and_who_mends_whom():
  guess = np.array([[1, 1], [2, 3], [4, 4], [5, 6]])
  assert diagnosis.agreement(guess) == [[1, 0.5], [0.5, 1]]
  right = guess == np.array([1, 2, 0, 6])[:, None]
  # Place 0 is wrong for two images, and 1 is right for one of them; 1 is wrong for two, and 0 right for one.
  assert diagnosis.mended(right) == [[0, 0.5], [0.5, 0]]
  assert diagnosis.mended(np.array([[True, False], [True, True]])) == [[None, 1], [None, 0]]
