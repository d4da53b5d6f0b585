"""What a trained run gets right elsewhere: at sizes that it was not trained at, with other crops, other statistics."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from resjax import preprocess, trained, unseen
from resjax.data import loader
from resjax.evidence.records import Way
from resjax.measuring import evaluation
from resjax.network import Network
from resjax.resolution import at_widths, sides
from resjax.resolution import name as name_of
from resjax.switchable import Variables
from resjax.training.run import Run

__all__ = ['recalibrated', 'ways_of']

IMAGES = 1024  # unlabelled training images, to recalibrate on


def ways_of(
  run: Run, variables: Variables, sizes: Sequence[int], fractions: Sequence[float], readable: np.ndarray
) -> dict[str, Way]:
  """Returns what a network gets right at each size and with each crop, by the names of the ways.

  Args:
    run: Whose evaluation split is scored.
    variables: Of its network.
    sizes: In pixels, not trained: '24 nearest', '24 interpolated', '24 recalibrated' on 1,024 training images, which is
      the one way for a network of one size besides the nearest.
    fractions: Of the crop, smaller ones showing larger objects: '32 crop 0.7' at the trained sizes, '24 nearest crop
      0.7' at the others.
    readable: int `[N]`, the numbers of the images that are scored.

  Raises:
    ValueError: Other images can be read than those.
  """
  network = trained.of_config(run.config, variables, run.train_source.class_names)
  network = network.replace(predictor=None) if network.predictor else network
  places = {str(size): network.at(size)[0] for size in network.resolutions} if fractions else {}
  for size in sizes:
    places[f'{size} nearest'] = network.at(size, 'nearest')[0]
    if len(network.resolutions) > 1:
      places[f'{size} interpolated'] = network.at(size, 'interpolate')[0]
    places[f'{size} recalibrated'] = network.recalibrated(size, _inputs(run, size))[0]
  trained_sizes = {name_of(size) for size in network.resolutions}
  found = {name: _way(place, run, readable) for name, place in places.items() if name not in trained_sizes}
  for fraction in fractions:
    for name, place in places.items():
      if name in trained_sizes or name.endswith('nearest'):
        crop = dataclasses.replace(place.preprocessing, crop_fraction=fraction)
        found[f'{name} crop {fraction:g}'] = _way(place.replace(preprocessing=crop), run, readable)
  return found


def recalibrated(run: Run, variables: Variables) -> Variables:
  """Returns variables with the statistics of 1,024 training images at each size, the same images at all of them.

  Raises:
    ValueError: As of `unseen.recalibrate_all`: several sizes share their statistics.
  """
  batches = {size: _inputs(run, sides(size)[0]) for size in at_widths(run.config)}
  return unseen.recalibrate_all(run.model, variables, batches)[0]


def _way(network: Network, run: Run, readable: np.ndarray) -> Way:
  """What a network of one size gets right."""
  result = evaluation.evaluate(network, run.eval_source)
  if not np.array_equal(result.numbers, readable):
    raise ValueError(f'images: {len(result.numbers)} could be read, expected the same {len(readable)} as before')
  return Way(result.ranks[:, 0] == 0, float(network.macs[0]))


def _inputs(run: Run, size: int) -> Iterator[jax.Array]:
  """Normalised training images at one size, always the same ones."""
  config = run.config.copy_and_resolve_references()
  config.resolutions, config.eval.pyramid, config.eval.batch_size = (size,), 'host', 128
  with contextlib.closing(loader.eval_batches(_Sample(run.train_source), config)) as batches:
    for batch in batches:
      images = batch['images'][0][batch['mask'] > 0]
      yield preprocess.prepare((images,), (size,), config.data.normalize)[0]


class _Sample:
  """Some examples of a source, drawn without their labels in mind."""

  def __init__(self, source: Any):
    self._source = source
    self._chosen = np.random.default_rng(0).permutation(len(source))[:IMAGES].tolist()
    self.num_classes, self.class_names, self.needed = source.num_classes, source.class_names, None

  def __len__(self) -> int:
    return len(self._chosen)

  def __getitem__(self, index: int) -> Any:
    return self._source[self._chosen[index]]

  def name_of(self, index: int) -> str:
    return self._source.name_of(self._chosen[index])

  def entries(self) -> Sequence[str]:
    return ()
