import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits

from configs import default
from resjax.data import sources
from resjax.data.scaled_digits import NEEDED, ScaledDigits


@pytest.fixture(scope='module')
def train():
  return ScaledDigits('train', 3_000)


def test_what_is_stored(train):
  assert len(train) == 3_000
  assert (train.images.shape, train.images.dtype) == ((3_000, 32, 32, 3), np.uint8)
  for column in (train.labels, train.needed, train.digit_size, train.handwriting):
    assert (column.shape, column.dtype) == ((3_000,), np.int32)
  assert (train.num_classes, train.class_names) == (10, tuple('0123456789'))
  np.testing.assert_array_equal(train.labels, load_digits().target[train.handwriting])
  record = train[5]
  np.testing.assert_array_equal(record['image'], train.images[5])
  assert record['label'] == train.labels[5]
  assert train.name_of(5) == 'scaled_digits/train 5'


def test_needed_resolution_follows_from_the_size(train):
  assert NEEDED == {8: 32, 16: 16, 28: 8}
  assert [np.sum(train.digit_size == size) for size in NEEDED] == [1_000] * 3
  for size, needed in NEEDED.items():
    assert set(train.needed[train.digit_size == size]) == {needed}
    assert 7 <= size * needed / 32 <= 8  # pixels of the network's input
  # Neither the label nor the place in the set tells the size.
  table = np.histogram2d(train.labels, train.digit_size, bins=[10, 3])[0]
  assert table.min() > 60
  assert abs(np.corrcoef(np.arange(3_000), train.digit_size)[0, 1]) < 0.1


def test_handwriting_is_in_one_split_only():
  parts = [set(ScaledDigits(split, 6_000).handwriting) for split in ('train', 'calibration', 'test')]
  assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
  assert [len(part) for part in parts] == [1199, 299, 299]
  labels = load_digits().target
  for part in parts:
    assert np.bincount(labels[list(part)], minlength=10).min() >= 29


def test_same_images_every_time(train):
  again = ScaledDigits('train', 3_000)
  np.testing.assert_array_equal(train.images, again.images)
  np.testing.assert_array_equal(train.labels, again.labels)
  assert not np.array_equal(train.images, ScaledDigits('test', 3_000).images)
  np.testing.assert_array_equal(pickle.loads(pickle.dumps(train)).images, train.images)


def test_the_digit_is_drawn_at_its_size(train):
  # The brightest part of the picture is as high as the digit is said to be.
  bright = train.images.astype(float).mean(-1)
  bright = bright > 0.85 * bright.max(axis=(1, 2), keepdims=True)
  rows = bright.any(2)
  height = 32 - rows.argmax(1) - rows[:, ::-1].argmax(1)
  for size in NEEDED:
    assert abs(np.median(height[train.digit_size == size]) - size) <= 4


def test_pixels_use_the_range(train):
  assert train.images.min() == 0
  assert train.images.max() == 255
  assert 40 < train.images.mean() < 140
  # Digits stand anywhere: the mean image of the small ones is flat.
  small = train.images[train.digit_size == 8].mean(axis=(0, 3))
  assert small.std() < 8


def test_splits_and_sizes():
  config = default.get_config()
  config.data.source = 'scaled_digits'
  config.data.size = 100
  config.model.num_classes = 10
  assert len(sources.create(config, 'train')) == 100
  assert len(sources.create(config, 'calibration')) == 10_000
  with pytest.raises(ValueError, match="scaled_digits: split 'validation', expected one of train, calibration, test"):
    sources.create(config, 'validation')
  config.model.num_classes = 1000
  with pytest.raises(ValueError, match=r'config.model.num_classes: 1000, expected 10'):
    sources.create(config, 'train')
