"""All that the result page tells of a trained network, from images with labels: measured here, drawn elsewhere."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from resjax.data import sources
from resjax.inference import calibrating
from resjax.inference.classifier import Classifier
from resjax.inference.engines import Engines
from resjax.inference.images import Item, items, of_source
from resjax.inference.origin import Origin
from resjax.measuring import curves, diagnosis, speed
from resjax.report.gallery import row as gallery_row
from resjax.resolution import plain
from resjax.routing import Budget, Columns, Dialled
from resjax.routing.fixed import Fixed
from resjax.routing.known import Known
from resjax.routing.oracle import Oracle, smallest_right
from resjax.routing.random import Random
from resjax.routing.score import score as scored_choice
from resjax.routing.score import share

BUDGETS = 10  # costs that every router is set to, evenly between the lowest and the highest resolution's
ROW = 8  # images in a row of the gallery

Say = Callable[[str], None]


class Scored(NamedTuple):
  """Images with what the network says of them."""

  numbers: np.ndarray  # int [N], in the source
  labels: np.ndarray  # int [N]
  table: Columns  # of N rows, 'right' among them

  def take(self, rows: slice | np.ndarray) -> 'Scored':
    """Returns some of them."""
    return Scored(self.numbers[rows], self.labels[rows], {name: column[rows] for name, column in self.table.items()})


def study(
  classifier: Classifier,
  source: Any,
  reference: Columns | None = None,
  *,
  images: int = 10_000,
  rounds: int = 5,
  budget: float | str | None = None,
  say: Say = lambda line: None,
) -> tuple[dict[str, Any], dict[int, np.ndarray]]:
  """Returns what was found, as JSON can hold it, and the pictures that it names.

  Args:
    classifier: Of two resolutions or more.
    source: Of images that the network was not trained on, as `resjax.data.sources` describes it.
    reference: The calibration's columns; None: every second image calibrates, and the others are scored.
    images: At most so many are scored, drawn at random, always the same ones.
    rounds: Of the measurement of seconds.
    budget: As of `Classifier.stream`: what the images are sent by in the shares of each class and in the gallery; None:
      the predictor as it was trained, and without one half of the largest resolution's cost.
    say: Gets a line when a long part begins.

  Returns:
    A dict of `resolutions`, `curves`, `setting`, `speed`, `agreement`, `mended`, `gallery`, `crops` and so on, see
    docs/report.md; and uint8 `[S, S, 3]`, crops of the largest resolution, by number in the source.

  Raises:
    ValueError: There is one resolution alone, no image can be read, or the budget can't be met.
  """
  if len(classifier.resolutions) < 2:
    raise ValueError(f'resolutions: got {classifier.resolutions}, expected two or more to compare')
  wanted = sample(len(source), images)
  say(f'{len(wanted):,} images at {len(classifier.resolutions)} resolutions')
  scored, unreadable = score(classifier, source, wanted)
  if halved := reference is None:
    reference, scored = scored.take(slice(1, None, 2)).table, scored.take(slice(0, None, 2))
  engines, right = classifier.engines, scored.table['right']
  router, setting = _setting(classifier, reference, scored, budget)
  choice = router.choose(router.read(scored.table))
  found: dict[str, Any] = {
    'resolutions': _resolutions(classifier, scored.table),
    'images': {'scored': len(right), 'of': len(source), 'unreadable': unreadable, 'seed': 0},
    'calibration': {'images': len(reference['energy']), 'halved': halved},
    'curves': _curves(engines, reference, scored),
    'setting': setting | {'by_class': _by_class(classifier, choice, scored.labels)},
    'agreement': diagnosis.agreement(scored.table['guess']),
    'mended': diagnosis.mended(right),
    'gallery': _gallery(classifier, source, scored, choice),
  }
  say(f'the lower resolutions again, each from the full image: {len(right):,} images')
  found['crops'] = _crops(classifier, source, scored)
  shown = sorted({entry['number'] for row in found['gallery'] for entry in row['images']})
  pictures = dict(zip(shown, cropped(classifier, source, shown)))
  rows = np.random.default_rng(0).permutation(len(right))[: speed.images(engines)]
  contenders = _contenders(found['curves'], engines, reference)
  contenders.append(speed.Contender('setting', setting['top1'], router))
  say(f'seconds of {len(contenders)} ways to run {len(rows)} images, in {rounds} rounds')
  crops = cropped(classifier, source, scored.numbers[rows])
  found['speed'] = speed.compare(engines, crops, {'right': right[rows]}, contenders, rounds)
  return found, pictures


def reference_of(
  classifier: Classifier, config: ConfigDict, *, images: int = 10_000, say: Say = lambda line: None
) -> tuple[Columns | None, str]:
  """Returns the calibration's columns and where they are from; made first where the run has a split for it.

  Args:
    classifier: Read from a workdir.
    config: Of its run: reads eval.calibration_split, and what `sources.create` does.
    images: At most so many are read.
    say: Gets a line when a long part begins.

  Returns:
    None where there is neither a calibration nor a split for it.

  Raises:
    ValueError: The calibration is of other weights, or damaged.
  """
  split = config.eval.calibration_split
  try:
    return classifier.calibrated, calibrating.FILE
  except FileNotFoundError:
    if not split:
      return None, 'every second image'
  source = sources.create(config, split)
  wanted = of_source(source, sample(len(source), images))
  say(f'calibration on {len(wanted):,} images of {split}')
  classifier.calibrate(wanted, origin=Origin.of_split(source, split))
  return classifier.calibrated, f'split {split!r}'


def sample(count: int, most: int) -> list[int]:
  """Returns the numbers of at most so many images, ascending, always the same ones."""
  return sorted(np.random.default_rng(0).permutation(count)[:most].tolist())


def budgets(engines: Engines, count: int = BUDGETS) -> np.ndarray:
  """Returns mean costs `[count]` in multiply-adds, evenly between the lowest and the highest resolution's."""
  return np.linspace(min(engines.macs), max(engines.macs), count + 2)[1:-1]


def score(classifier: Classifier, source: Any, numbers: list[int]) -> tuple[Scored, int]:
  """Returns what the network says of images of a source, and how many of them could not be read.

  Raises:
    ValueError: None could be read.
  """
  labels = np.full(len(numbers), -1)

  def read(row: int) -> bytes | np.ndarray:
    example = source[numbers[row]]
    labels[row] = example['label']
    return example['image']

  wanted = [Item(source.name_of(n), functools.partial(read, row)) for row, n in enumerate(numbers)]
  table, readable = classifier.columns(wanted)
  if not readable.any():
    raise ValueError(f'images: none of {len(numbers)} could be read, expected some to score')
  known = {'right': table['guess'] == labels[readable, None]}
  if source.needed is not None:
    known['needed'] = np.asarray(source.needed)[np.array(numbers)[readable]]
  return Scored(np.array(numbers)[readable], labels[readable], table | known), int((~readable).sum())


def cropped(classifier: Classifier, source: Any, numbers: Any) -> np.ndarray:
  """Returns crops uint8 `[N, S, S, 3]` of the largest resolution, of images that can be read."""
  size = classifier.resolutions[0]
  return np.concatenate([chunk.crops for chunk in classifier.cropped(of_source(source, numbers), size)])


def _resolutions(classifier: Classifier, table: Columns) -> list[dict[str, Any]]:
  """Cost, accuracy and calibration of each resolution."""
  found = []
  for place, resolution in enumerate(classifier.resolutions):
    confidence, right = table['confidence'][:, place], table['right'][:, place]
    bins = diagnosis.reliability(confidence, right)
    found.append(
      {
        'pixels': plain(resolution),
        'macs': classifier.network.macs[place],
        'top1': float(right.mean()),
        'confidence': float(confidence.mean()),
        'ece': diagnosis.calibration_error(bins),
        'reliability': bins,
      }
    )
  return found


def _curves(engines: Engines, reference: Columns, scored: Scored) -> dict[str, list[dict[str, Any]]]:
  """Accuracy and cost of every router at every budget, and what is known to be needed, where the source knows."""
  found = curves.curves(engines, reference, scored.table, budgets(engines))
  for name in set(engines.routers) - {Random.name}:
    shares = curves.recovered(found[name], found[Random.name], found[Oracle.name])
    found[name] = [point | {'recovered': share} for point, share in zip(found[name], shares)]
  if 'needed' in scored.table:
    known = Known(tuple(map(float, engines.macs)), tuple(engines.engine.resolutions))
    if known.knows(scored.table['needed']):
      found[Known.name] = [curves.point(known, scored.table, curves.names_of(engines))]
  return found


def _setting(
  classifier: Classifier, reference: Columns, scored: Scored, budget: Budget | float | str | None
) -> tuple[Dialled, dict[str, Any]]:
  """The router that shares and gallery are told of, and what it comes to."""
  engines = classifier.engines
  name = engines.routers[0]
  router, how = engines.router(name, reference), 'as trained'
  if budget is not None or engines.scorer is None:
    allowed = Budget.parse(0.5 if budget is None else budget)
    router, how = calibrating.for_budget(engines, name, reference, allowed), f'budget {allowed}'
  choice = router.choose(router.read(scored.table))
  charged = engines.router(name, reference).charged  # in multiply-adds, whatever the budget is in
  found = scored_choice(choice, {'top1': scored.table['right']}, charged, curves.names_of(engines))
  return router, {'router': name, 'how': how, **found}


def _by_class(classifier: Classifier, choice: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, float]]:
  """The share of each class that is sent to each resolution."""
  names = curves.names_of(classifier.engines)
  return {classifier.class_names[label]: share(choice[labels == label], names) for label in np.unique(labels).tolist()}


def _gallery(classifier: Classifier, source: Any, scored: Scored, choice: np.ndarray) -> list[dict[str, Any]]:
  """Rows of images: the smallest resolution that is right, surest first; and what was sent where, right and wrong."""
  table, names = scored.table, classifier.class_names
  right, lowest = table['right'], table['right'].shape[1] - 1
  smallest = smallest_right(right, otherwise=-1)

  def describe(i: int, place: int) -> dict[str, Any]:
    return {
      'number': int(scored.numbers[i]),
      'name': source.name_of(int(scored.numbers[i])),
      'label': names[scored.labels[i]],
      'guess': names[table['guess'][i, place]],
      'right': bool(right[i, place]),
      'probability': float(table['confidence'][i, place]),
    }

  def row(kind: str, place: int, inside: np.ndarray) -> dict[str, Any]:
    """The surest of some images at a resolution."""
    pixels = classifier.resolutions[place]
    return gallery_row(kind, place, pixels, inside, -table['odds'][:, place], ROW, describe)

  found = [row('smallest', place, smallest == place) for place in range(lowest, -1, -1)]
  found.append(row('never', 0, smallest < 0))
  for place in range(lowest, -1, -1):
    sent = choice == place
    found += [row('sent_right', place, sent & right[:, place]), row('sent_wrong', place, sent & ~right[:, place])]
  return found


def _crops(classifier: Classifier, source: Any, scored: Scored) -> list[dict[str, Any]]:
  """What making a lower resolution from the largest crop changes, against the same image cropped at that size."""
  found = []
  for place, resolution in list(enumerate(classifier.resolutions))[1:]:
    reference = classifier.predict(items(of_source(source, scored.numbers)), resolution=resolution)
    guess = np.array([prediction.class_index for prediction in reference])
    ours = scored.table['guess'][:, place]
    found.append(
      {
        'pixels': plain(resolution),
        'from_full_image': float((guess == scored.labels).mean()),
        'from_largest_crop': float((ours == scored.labels).mean()),
        'other_class': float((guess != ours).mean()),
      }
    )
  return found


def _contenders(found: dict[str, Any], engines: Engines, reference: Columns) -> list[speed.Contender]:
  """What is timed: every resolution, every second budget of each router, and the oracle."""
  costs = tuple(map(float, engines.macs))
  contenders = [
    speed.Contender(Fixed.name, point['top1'], Fixed(costs, place), place=place)
    for place, point in enumerate(found[Fixed.name])
  ]
  for name in engines.routers:
    for point in found[name][::2]:
      router = calibrating.set_to(engines.router(name, reference), reference, point['target'])
      contenders.append(speed.Contender(name, point['top1'], router, target=point['target']))
  distinct = {point['macs']: point for point in reversed(found[Oracle.name])}  # where all is bought, more buys nothing
  for point in reversed(distinct.values()):
    oracle = Oracle(costs, point['target'])
    contenders.append(speed.Contender(Oracle.name, point['top1'], oracle, target=point['target']))
  return contenders
