"""Paired intervals over seeds and images: exact small cases, and how often they hold what they should."""

import itertools

import numpy as np
import pytest
from scipy import stats

from resjax.evidence import intervals
from resjax.evidence.intervals import paired


def test_without_any_difference_there_is_none():
  right = np.array([[True, False, True], [False, True, True]])
  assert paired(right, right) == (0, 0, 0)
  assert paired(np.ones((3, 4)), np.zeros((3, 4))) == (1, 1, 1)


def test_one_seed_draws_images_alone():
  """Two images, one of them better: the mean of two draws is 0, 1/2 or 1, with 1/4, 1/2 and 1/4."""
  found = paired(np.array([[1, 0]]), np.zeros((1, 2)), level=0.4, draws=20_000)
  assert found == (0.5, 0.5, 0.5)  # the middle half
  wider = stats.t.ppf(0.95, 1) / stats.norm.ppf(0.95)
  assert paired(np.array([[1, 0]]), np.zeros((1, 2)), level=0.9) == pytest.approx(
    (0.5, 0.5 - wider / 2, 0.5 + wider / 2)
  )


def test_the_bootstrap_is_the_one_that_can_be_counted_out():
  """Three seeds, two images: 2^2 draws of images times 3^2 of two seeds, all of them listed."""
  difference = np.array([[1, 0], [1, 1], [0, -1]])
  means = sorted(
    np.mean([[difference[s, n] for n in images] for s in seeds])
    for images in itertools.product(range(2), repeat=2)
    for seeds in itertools.product(range(3), repeat=2)
  )
  found = paired(difference, np.zeros((3, 2)), level=0.8, draws=200_000)
  variances = difference.mean(1).var(ddof=1) / 3, difference.mean(0).var(ddof=1) / 2
  degrees = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2 / 1)
  wider = stats.t.ppf(0.9, degrees) / stats.norm.ppf(0.9)
  low, high = np.quantile(means, [0.1, 0.9])
  mean = difference.mean()
  assert found == pytest.approx((mean, mean + wider * (low - mean), mean + wider * (high - mean)))


def test_the_order_of_seeds_and_images_does_not_matter():
  rng = np.random.default_rng(0)
  left, right = rng.random((2, 4, 50)) < 0.6
  orders = np.ix_(rng.permutation(4), rng.permutation(50))
  assert paired(left[orders], right[orders]) == pytest.approx(paired(left, right), abs=0.02)


@pytest.mark.parametrize(('seeds', 'sd_seeds', 'sd_images'), [(5, 1.0, 0.5), (5, 0.1, 3.0), (3, 1.0, 1.0), (1, 0, 3.0)])
def test_it_holds_the_truth_as_often_as_it_says(seeds, sd_seeds, sd_images):
  """Seeds and images with effects of their own, and noise: 300 times, so that one standard error is 1.3 %."""
  rng = np.random.default_rng(seeds)
  images, held = 40, 0
  for _ in range(300):
    seed = rng.normal(0, sd_seeds, (seeds, 1))
    image = rng.normal(0, sd_images, (1, images)) * 3
    left = 0.3 + seed + image + rng.normal(0, 1, (seeds, images))
    _, low, high = paired(left, np.zeros_like(left), draws=300)
    held += low <= 0.3 <= high
  assert 0.92 <= held / 300 <= 0.99


def test_sides_of_other_shapes_are_refused():
  with pytest.raises(ValueError, match=r'^left, right: got \(2, 3\) and \(2, 4\), expected the same \[seeds, images\]'):
    paired(np.zeros((2, 3)), np.zeros((2, 4)))
  with pytest.raises(ValueError, match='expected the same'):
    paired(np.zeros((0, 3)), np.zeros((0, 3)))


@pytest.mark.parametrize(('seeds', 'values'), [(1, 2), (3, 3), (5, 7), (40, 30)])  # the last has too many for a number
def test_images_that_are_alike_are_counted_as_numpy_does(seeds, values):
  difference = np.random.default_rng(0).integers(0, values, (seeds, 500)) / 7 - 0.3
  for found, expected in zip(intervals._alike(difference), np.unique(difference.T, axis=0, return_counts=True)):
    np.testing.assert_array_equal(found, expected)
