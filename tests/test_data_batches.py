"""One batch from its step: positions of the stream, crops by position, stand-ins, padding."""

import numpy as np
import pytest
from numbered import Numbered

from resjax.data import batches
from resjax.data.decode import BadImage

CLASSES = 7


def crop(image, rng=None):
  """Two sizes of an image; where crops are drawn, the draw stands in their corner."""
  if isinstance(image, bytes):
    raise BadImage('no image')
  large, small = image.copy(), image[::2, ::2].copy()
  if rng is not None:
    large[0, 0] = small[0, 0] = rng.integers(0, 256, 3)
  return large, small


def training(source, rows=(0, 1, 2, 3), batch_size=4, seed=3, draws=False, max_bad=0):
  return batches.TrainBatch(source, np.array(rows), batch_size, CLASSES, (8, 4), crop, seed, draws, max_bad)


def evaluation(source, rows=(0, 1, 2, 3), batch_size=4):
  return batches.EvalBatch(source, np.array(rows), batch_size, CLASSES, (8, 4), crop)


def order(seed, epoch, size):
  return np.random.RandomState([seed, 0, epoch]).permutation(size)


def test_a_batch_is_its_part_of_the_stream_across_epochs():
  make, stream = training(Numbered(10)), np.concatenate([order(3, epoch, 10) for epoch in range(2)])
  for step in range(5):
    batch = make(step)
    np.testing.assert_array_equal(batch['index'], stream[4 * step : 4 * step + 4])
    np.testing.assert_array_equal(batch['label'], batch['index'] % CLASSES)
    assert [(x.shape, x.dtype) for x in batch['images']] == [((4, 8, 8, 3), np.uint8), ((4, 4, 4, 3), np.uint8)]
    np.testing.assert_array_equal(batch['images'][1][:, 2, 3, 0], batch['index'])
    assert batch['bad'] == [] and batch['label'].dtype == batch['index'].dtype == np.int32


def test_rows_are_of_the_global_batch():
  whole, part = training(Numbered(10))(1), training(Numbered(10), rows=(1, 3))(1)
  np.testing.assert_array_equal(part['index'], whole['index'][[1, 3]])


def test_seeds_beyond_32_bits_have_orders_of_their_own():
  orders = [training(Numbered(10), seed=seed)(0)['index'].tolist() for seed in (3, 3 + 2**32)]
  assert orders[0] != orders[1]
  assert orders[1] == np.random.RandomState([3, 1, 0]).permutation(10)[:4].tolist()


def test_a_draw_is_a_function_of_seed_and_position():
  images = training(Numbered(10), draws=True)(2)['images']
  for row, position in enumerate(range(8, 12)):
    expected = np.random.Generator(np.random.Philox(key=[3, position])).integers(0, 256, 3)
    for size in images:
      np.testing.assert_array_equal(size[row, 0, 0], expected)


def test_the_next_readable_image_stands_in_and_the_bad_are_named():
  first = int(order(3, 0, 10)[0])
  bad = (first, (first + 1) % 10)
  batch = training(Numbered(10, bad=bad), rows=(0,), max_bad=2)(0)
  assert batch['index'].tolist() == [(first + 2) % 10]
  assert batch['bad'] == [(f'numbered {i}', 'no image') for i in bad]


def test_one_bad_image_too_many_is_black_and_left_to_the_iterator():
  first = int(order(3, 0, 10)[0])
  batch = training(Numbered(10, bad=(first, (first + 1) % 10)), rows=(0,), max_bad=1)(0)
  assert batch['index'].tolist() == [-1] and batch['label'].tolist() == [0]
  assert len(batch['bad']) == 2 and not any(size.any() for size in batch['images'])


def test_a_source_without_a_readable_image_is_one_line():
  with pytest.raises(ValueError, match=r'^numbered 0 and the 2 others: no readable image$'):
    training(Numbered(3, bad=range(3)), rows=(0,), max_bad=3)(0)


def test_a_file_that_cannot_be_opened_is_a_bad_image():
  class Lost(Numbered):
    def __getitem__(self, index):
      raise FileNotFoundError(2, 'No such file or directory')

  assert evaluation(Lost(1), rows=(0,))(0)['bad'] == [('numbered 0', 'No such file or directory')]


def test_evaluation_is_in_order_and_filled_up():
  batch = evaluation(Numbered(6, bad=(5,)))(1)
  np.testing.assert_array_equal(batch['index'], [4, 5, -1, -1])
  np.testing.assert_array_equal(batch['mask'], np.array([1, 0, 0, 0], np.float32))
  np.testing.assert_array_equal(batch['label'], [4, 0, 0, 0])
  assert batch['bad'] == [('numbered 5', 'no image')] and batch['mask'].dtype == np.float32
  np.testing.assert_array_equal(batch['images'][0][:, 5, 5, 0], [4, 0, 0, 0])


@pytest.mark.parametrize('label', [-1, CLASSES])
def test_a_label_outside_the_classes_is_one_line(label):
  class Wrong(Numbered):
    def __getitem__(self, index):
      return super().__getitem__(index) | {'label': label}

  message = rf'^numbered 0: label {label}, expected 0 to 6 \(config.model.num_classes = 7\)$'
  with pytest.raises(ValueError, match=message):
    evaluation(Wrong(1), rows=(0,))(0)
