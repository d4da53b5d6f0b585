"""Class weights: counted on the training images, their mean over those 1."""

import numpy as np
import pytest
from numbered import Numbered, make_config

from resjax import config as configuration
from resjax import rsnet
from resjax.data import cache, labels, sources
from resjax.training import run


class Unequal(Numbered):
  """Twelve images of class 0, three of class 1, one of class 2, and one that can't be read."""

  def __getitem__(self, index):
    if index == 16:
      raise OSError('gone')
    return {'image': np.zeros((8, 8, 3), np.uint8), 'label': int(np.searchsorted([12, 15], index, 'right'))}


def weights(given, classes=3):
  config = make_config(model__num_classes=classes)
  config.class_weights = given
  configuration.validate(config)
  return labels.class_weights(config, Unequal(17))


def test_balanced_classes_weigh_alike_all_together():
  found = weights(('balanced',))
  np.testing.assert_allclose(found, [16 / (3 * 12), 16 / (3 * 3), 16 / 3])
  np.testing.assert_allclose(np.dot(found, [12, 3, 1]) / 16, 1)
  np.testing.assert_allclose(weights(('balanced',), 4), [*found, 0])  # a class without images takes no share


def test_given_weights_are_brought_to_a_mean_of_one_over_the_images():
  found = weights((1.0, 2.0, 4.0))
  np.testing.assert_allclose(found, np.array([1, 2, 4]) * 16 / (12 + 6 + 4))
  assert weights(()) == ()


def test_labels_that_a_source_knows_are_not_read():
  source = sources.FakeSource('train', 10, 3, 8)
  kept = cache.MemoryCache(source)
  kept.__class__ = type('Unread', (cache.MemoryCache,), {'__getitem__': None})
  assert labels.counts(kept, 3).tolist() == [4, 3, 3]


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ((0.0, 0.0, 0.0), r'^config.class_weights: got \(0.0, 0.0, 0.0\), expected more than 0 for a class that has'),
    ((1.0, 2.0), r"^config.class_weights: got \(1.0, 2.0\), expected \(\), \('balanced',\), or 3 numbers, 0 or more"),
    ((1.0, 2.0, -1.0), r'^config.class_weights: got .*, expected .* 3 numbers'),
    (('even',), r"^config.class_weights: got \('even',\), expected .* 3 numbers"),
  ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(given, message):
  with pytest.raises(ValueError, match=message) as error:
    weights(given)
  assert '\n' not in str(error.value)


def test_a_label_that_is_no_class_is_refused():
  with pytest.raises(ValueError, match=r'^config.model.num_classes: 2, expected more than every label, such as 2'):
    labels.counts(Unequal(17), 2)


def test_a_loss_without_data_wants_numbers():
  config = make_config()
  config.class_weights = ('balanced',)
  with pytest.raises(ValueError, match=r"^class_weights: got \('balanced',\), expected numbers"):
    rsnet.class_weights(config)


def test_a_run_trains_with_the_weights_of_its_own_images(monkeypatch):
  config = make_config(data__source='fake', data__size=40, model__num_classes=7, model__name='resnet_small')
  config.class_weights = ('balanced',)
  made = []
  monkeypatch.setattr(run, 'make_training', lambda *args: made.append(args[-1]) or (None, None, None))
  monkeypatch.setattr(run.METHODS['rsnet'], 'make_eval_fn', lambda *args: None)
  run.build(config)
  np.testing.assert_allclose(made[0], 40 / 7 / np.bincount(np.arange(40) % 7))
