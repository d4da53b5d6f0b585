"""All that the result page tells of a trained network, from images with labels: measured here, drawn elsewhere."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from resjax import dial, routers
from resjax.data import sources
from resjax.inference import calibration
from resjax.inference.classifier import Classifier
from resjax.inference.images import Item, items, of_source
from resjax.inference.routing import Network
from resjax.measuring import curves, diagnosis, speed

BUDGETS = 10  # costs that every router is set to, evenly between the lowest and the highest resolution's
ROW = 8  # images in a row of the gallery

Say = Callable[[str], None]


class Scored(NamedTuple):
  """Images with what the network says of them."""

  numbers: np.ndarray  # int [N], in the source
  labels: np.ndarray  # int [N]
  table: calibration.Table  # of N rows

  def take(self, rows: slice | np.ndarray) -> 'Scored':
    """Returns some of them."""
    return Scored(self.numbers[rows], self.labels[rows], {name: column[rows] for name, column in self.table.items()})


def study(
  classifier: Classifier,
  source: Any,
  reference: calibration.Table | None = None,
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
  halved = reference is None
  if halved:
    reference, scored = scored.take(slice(1, None, 2)).table, scored.take(slice(0, None, 2))
  network, table = classifier.network, scored.table
  right = table['guess'] == scored.labels[:, None]
  targets = budgets(network)
  rule, choice, setting = _setting(classifier, reference, scored, budget)
  found = {
    'resolutions': _resolutions(classifier, table, right),
    'images': {'scored': len(right), 'of': len(source), 'unreadable': unreadable, 'seed': 0},
    'calibration': {'images': len(reference['energy']), 'halved': halved},
    'curves': _curves(network, reference, source, scored, targets),
    'setting': setting | _by_class(classifier.class_names, choice, scored.labels, len(network.costs)),
    'agreement': diagnosis.agreement(table['guess']),
    'mended': diagnosis.mended(right),
    'gallery': _gallery(classifier, source, scored, right, choice),
  }
  say(f'the lower resolutions again, each from the full image: {len(right):,} images')
  found['crops'] = _crops(classifier, source, scored)
  shown = sorted({entry['number'] for row in found['gallery'] for entry in row['images']})
  pictures = dict(zip(shown, cropped(classifier, source, shown)))
  rows = np.random.default_rng(0).permutation(len(right))[: speed.images(network)]
  ways = _ways(found['curves'], network, reference, right, rows)
  ways.append(speed.Way('setting', setting['top1'], rule=rule))
  say(f'seconds of {len(ways)} ways to run {len(rows)} images, in {rounds} rounds')
  crops = cropped(classifier, source, scored.numbers[rows])
  found['speed'] = speed.compare(network, crops, ways, reference, rounds)
  return found, pictures


def reference_of(classifier: Classifier, *, images: int = 10_000, say: Say = lambda line: None) -> tuple[Any, str]:
  """Returns the calibration's columns and where they are from; made first where the run has a split for it.

  Args:
    classifier: Read from a workdir.
    images: At most so many are read.
    say: Gets a line when a long part begins.

  Returns:
    None where there is neither a calibration nor a split for it.

  Raises:
    ValueError: The calibration is of other weights, or damaged.
  """
  split = classifier.config.eval.calibration_split
  try:
    return classifier.calibrated, calibration.FILE
  except FileNotFoundError:
    if not split:
      return None, 'every second image'
  source = sources.create(classifier.config, split)
  wanted = of_source(source, sample(len(source), images))
  say(f'calibration on {len(wanted):,} images of {split}')
  classifier.calibrate(wanted)
  return classifier.calibrated, f'split {split!r}'


def sample(count: int, most: int) -> list[int]:
  """Returns the numbers of at most so many images, ascending, always the same ones."""
  return sorted(np.random.default_rng(0).permutation(count)[:most].tolist())


def budgets(network: Network, count: int = BUDGETS) -> np.ndarray:
  """Returns mean costs `[count]` in multiply-adds, evenly between the lowest and the highest resolution's."""
  return np.linspace(min(network.costs), max(network.costs), count + 2)[1:-1]


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

  wanted = [Item(source.name_of(n), lambda row=row: read(row)) for row, n in enumerate(numbers)]
  table, readable = classifier.columns(wanted)
  if not readable.any():
    raise ValueError(f'images: none of {len(numbers)} could be read, expected some to score')
  return Scored(np.array(numbers)[readable], labels[readable], table), int((~readable).sum())


def cropped(classifier: Classifier, source: Any, numbers: Any) -> np.ndarray:
  """Returns crops uint8 `[N, S, S, 3]` of the largest resolution, of images that can be read."""
  size = classifier.resolutions[0]
  return np.concatenate([chunk.crops for chunk in classifier.cropped(of_source(source, numbers), size)])


def _resolutions(classifier, table, right):
  """Cost, accuracy and calibration of each resolution."""
  found = []
  for place, resolution in enumerate(classifier.resolutions):
    bins = diagnosis.reliability(table['confidence'][:, place], right[:, place])
    found.append(
      {
        'pixels': resolution,
        'macs': classifier.network.costs[place],
        'top1': float(right[:, place].mean()),
        'confidence': float(table['confidence'][:, place].mean()),
        'ece': diagnosis.calibration_error(bins),
        'reliability': bins,
      }
    )
  return found


def _curves(network, reference, source, scored, targets):
  """Accuracy and cost of every router at every budget, and what is known to be needed, where the source knows."""
  found = curves.curves(network, reference, scored.table, scored.labels, targets)
  for name in set(network.routers) - {'random'}:
    shares = curves.recovered(found[name], found['random'], found['oracle'])
    found[name] = [point | {'recovered': share} for point, share in zip(found[name], shares)]
  if source.needed is not None:
    places = routers.known(np.asarray(source.needed)[scored.numbers], network.engine.resolutions)
    if places is not None:
      right = scored.table['guess'] == scored.labels[:, None]
      found['known'] = [curves.point(places, right, network.costs)]
  return found


def _setting(classifier, reference, scored, budget):
  """The router that shares and gallery are told of, its choice int [N], and what that comes to."""
  network = classifier.network
  name = network.routers[0]
  if budget is None and network.scorer is not None:
    rule, how = network.router(name), 'as trained'
  else:
    target, timed = calibration.parse_budget(0.5 if budget is None else budget, max(network.costs))
    rule = calibration.dialled(network.router(name, timed=timed), reference, target)
    how = f'budget {0.5 if budget is None else budget}'
  choice = rule.choose(calibration.column(rule, scored.table, reference))
  counted = dial.Router(name, network.costs, network.router(name).own).charged
  right = scored.table['guess'] == scored.labels[:, None]
  return rule, choice, {'router': name, 'how': how, **curves.point(choice, right, counted)}


def _by_class(names, choice, labels, places):
  """The share of each class that is sent to each resolution."""
  shares = {}
  for label in np.unique(labels).tolist():
    own = choice[labels == label]
    shares[names[label]] = [float((own == place).mean()) for place in range(places)]
  return {'by_class': shares}


def _gallery(classifier, source, scored, right, choice):
  """Rows of images: the smallest resolution that is right, surest first; and what was sent where, right and wrong."""
  odds, lowest = scored.table['odds'], right.shape[1] - 1
  smallest = np.where(right.any(1), routers.oracle(right), -1)

  def row(kind, place, inside):
    """The surest of some images at a resolution."""
    rows = np.flatnonzero(inside)
    rows = rows[np.argsort(-odds[rows, place], kind='stable')][:ROW]
    return {'kind': kind, 'pixels': classifier.resolutions[place], 'count': int(inside.sum()), 'images': [
      {
        'number': int(scored.numbers[i]),
        'name': source.name_of(int(scored.numbers[i])),
        'label': classifier.class_names[scored.labels[i]],
        'guess': classifier.class_names[scored.table['guess'][i, place]],
        'right': bool(right[i, place]),
        'probability': float(scored.table['confidence'][i, place]),
      }
      for i in rows
    ]}  # fmt: skip

  found = [row('smallest', place, smallest == place) for place in range(lowest, -1, -1)]
  found.append(row('never', 0, smallest < 0))
  for place in range(lowest, -1, -1):
    sent = choice == place
    found += [row('sent_right', place, sent & right[:, place]), row('sent_wrong', place, sent & ~right[:, place])]
  return found


def _crops(classifier, source, scored):
  """What making a lower resolution from the largest crop changes, against the same image cropped at that size."""
  found = []
  for place, resolution in list(enumerate(classifier.resolutions))[1:]:
    reference = classifier.predict(items(of_source(source, scored.numbers)), resolution=resolution)
    guess = np.array([prediction.class_index for prediction in reference])
    ours = scored.table['guess'][:, place]
    found.append(
      {
        'pixels': resolution,
        'from_full_image': float((guess == scored.labels).mean()),
        'from_largest_crop': float((ours == scored.labels).mean()),
        'other_class': float((guess != ours).mean()),
      }
    )
  return found


def _ways(found, network, reference, right, rows):
  """What is timed: every resolution, every second budget of each router, and the oracle."""
  ways = [
    speed.Way('static', point['top1'], choice=np.full(len(rows), place), place=place)
    for place, point in enumerate(found['static'])
  ]
  for name in network.routers:
    for point in found[name][::2]:
      rule = calibration.dialled(network.router(name), reference, point['target'])
      ways.append(speed.Way(name, point['top1'], rule=rule, target=point['target']))
  distinct = {point['macs']: point for point in reversed(found['oracle'])}  # where all is bought, more buys nothing
  for point in reversed(distinct.values()):
    choice = curves.oracle(right, network.costs, point['target'])[rows]
    ways.append(speed.Way('oracle', point['top1'], choice=choice, target=point['target']))
  return ways
