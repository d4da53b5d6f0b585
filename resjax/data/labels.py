"""How often each class is in a source, and what each then weighs in the loss."""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from resjax.data.decode import BadImage

__all__ = ['BALANCED', 'class_weights', 'counts']

BALANCED = ('balanced',)


def counts(source: Any, classes: int) -> np.ndarray:
  """Returns how many images of each class are in a source, int `[K]`.

  A source that has no `labels` is read once, image by image, without decoding; what can't be read does not count.

  Args:
    source: As `resjax.data.sources.create` makes them.
    classes: K.

  Raises:
    ValueError: A label is not in 0..K-1.
  """
  labels = getattr(source, 'labels', None)
  if labels is None:
    labels = np.array([label for label in map(_label, [source] * len(source), range(len(source))) if label is not None])
  if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
    wrong = labels[(labels < 0) | (labels >= classes)][0]
    raise ValueError(f'config.model.num_classes: {classes}, expected more than every label, such as {wrong}')
  return np.bincount(np.asarray(labels, int), minlength=classes)


def class_weights(config: ConfigDict, source: Any) -> tuple[float, ...]:
  """Returns the weights of the classes; their mean over the images of a source is 1. Empty where none are wanted.

  'balanced' is `N / (K n_k)`, K counting the classes that have images; one that has none weighs 0.

  Args:
    config: Reads `class_weights` and `model.num_classes`.
    source: That is trained on.

  Raises:
    ValueError: A class with images is all that there is, and weighs 0; or a label is not one of the classes.
  """
  given = tuple(config.class_weights)
  if not given:
    return ()
  images = counts(source, config.model.num_classes)
  weights = (
    np.divide(1.0, images, out=np.zeros(len(images)), where=images > 0) if given == BALANCED else np.array(given)
  )
  total = (weights * images).sum()
  if not total > 0:
    raise ValueError(f'config.class_weights: got {given}, expected more than 0 for a class that has training images')
  return tuple((weights * images.sum() / total).tolist())


def _label(source: Any, index: int) -> int | None:
  """The label of an image, or None where it can't be read."""
  try:
    return source[index]['label']
  except (BadImage, OSError):
    return None
