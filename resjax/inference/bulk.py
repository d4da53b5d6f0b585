"""An archive classified on an engine of many machines, such as Ray Data: a network as a callable over its batches."""

import functools
import inspect
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from resjax import compiling
from resjax.data.decode import BadImage
from resjax.inference.classifier import Classifier
from resjax.inference.images import Item
from resjax.inference.predictions import Asked, Prediction, check
from resjax.resolution import name, square
from resjax.routing import Budget
from resjax.telling import utf8

# What depends on the order of the images, which engines do not keep, or is not of a network that many predict with.
_REFUSED = {'follow': 'batches come in no order', 'top_k': 'a row names one class', 'workdir': 'it is named already'}

_lock = threading.Lock()


class BatchPredictor:
  """Predicts batches of encoded images: `dataset.map_batches(resjax.BatchPredictor, fn_constructor_args=(workdir,))`.

  It holds names and numbers alone, so it can be pickled; the first batch loads the network, once for each process.

  Example:
    >>> resjax.BatchPredictor('runs/mine', budget=0.6)({'path': paths, 'bytes': contents})['class']
  """

  def __init__(self, workdir: str | os.PathLike[str], *, step: int | None = None, **options: Any):
    """Loads nothing yet.

    Args:
      workdir: Of a run, or a bundle; a path that every machine has. Cost tables are kept in it.
      step: As of `Classifier.load`.
      **options: `resolution`, `budget`, `router` and `unseen_by`, see `Classifier.stream`, `max_pixels` of
        `Classifier.load`, and those of `Classifier`; router and runtime by name.

    Raises:
      TypeError: There is no such option.
      ValueError: An option is not possible here.
    """
    known = [*Asked.__annotations__, *inspect.signature(Classifier).parameters, 'max_pixels']
    if unknown := [option for option in options if option not in known]:
      raise TypeError(f'{unknown[0]}: got it for a BatchPredictor, expected options of Classifier and its predict')
    for option, why in _REFUSED.items():
      if option in options:
        raise ValueError(f'{option}: got {options[option]!r} for a BatchPredictor, expected none: {why}')
    for option in ('router', 'runtime'):
      if not isinstance(options.get(option), str | None):
        raise ValueError(f'{option}: got {options[option]!r} for a BatchPredictor, expected a name')
    resolution, budget, router = (options.get(option) for option in ('resolution', 'budget', 'router'))
    check(resolution, budget, router, False, options.get('unseen_by', 'interpolate'))
    if resolution is not None:
      square(resolution)
    if budget is not None:
      Budget.parse(budget)
    self._asked = {option: value for option, value in options.items() if option in Asked.__annotations__}
    others = {option: value for option, value in options.items() if option not in self._asked}
    self._of = (os.fspath(workdir), step, tuple(sorted(others.items())))

  def __repr__(self) -> str:
    """Returns what it was made of."""
    workdir, step, others = self._of
    options = ({} if step is None else {'step': step}) | dict(others) | self._asked
    return f'BatchPredictor({", ".join([repr(workdir), *(f"{key}={value!r}" for key, value in options.items())])})'

  def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
    """Returns a row for each image, in their order.

    Args:
      batch: The columns 'path', names, and 'bytes', encoded images, as Ray Data's
        `read_binary_files(..., include_paths=True)` gives them.

    Returns:
      The columns path, class (its number, int64), name, probability, resolution ('160', or '128x192'), cost
      (multiply-adds of all that was run for the image) and error. Of an image that can't be read, error says why, class
      is -1, and the others are empty strings and NaN; of all others, error is empty.

    Raises:
      ValueError: A column is missing; or as of `Classifier.stream`.
      FileNotFoundError: As of `Classifier.load` and `Classifier.stream`.
    """
    if missing := [column for column in ('path', 'bytes') if column not in batch]:
      raise ValueError(
        f'batch: no column {missing[0]!r} among {", ".join(batch)}, expected path and bytes, as of Ray Data: '
        'read_binary_files(..., include_paths=True)'
      )
    wanted = [Item(str(path), _content(content)) for path, content in zip(batch['path'], batch['bytes'], strict=True)]
    with _lock:
      classifier = _loaded(*self._of)
    return _columns(list(classifier.stream(wanted, **self._asked)))


@functools.cache
def _loaded(workdir: str, step: int | None, options: tuple[tuple[str, Any], ...]) -> Classifier:
  """This process's classifier."""
  compiling.keep_compiled_programs()
  return Classifier.load(workdir, step=step, **dict(options))


def _content(content: Any) -> Any:
  """An encoded image, or what says that it is none."""
  if isinstance(content, bytes | bytearray | memoryview):
    return bytes(content)

  def refuse() -> bytes:
    raise BadImage(f'got {type(content).__name__}, expected an encoded image')

  return refuse


def _columns(found: Sequence[Prediction]) -> dict[str, np.ndarray]:
  """Predictions as columns, whose types do not depend on what could be read."""
  good = [p.error is None for p in found]
  resolutions = ['' if p.resolution is None else name(p.resolution) for p in found]
  return {
    'path': np.array([utf8(p.image) for p in found], str),
    'class': np.array([-1 if p.class_index is None else p.class_index for p in found], np.int64),
    'name': np.array([utf8(p.label or '') for p in found], str),
    'probability': np.array([p.probability if ok else np.nan for ok, p in zip(good, found)], float),
    'resolution': np.array(resolutions, str),
    'cost': np.array([p.macs if ok else np.nan for ok, p in zip(good, found)], float),
    'error': np.array([utf8(p.error or '') for p in found], str),
  }
