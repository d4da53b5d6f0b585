"""A network scored on images with labels: each image once, at every resolution, from its own crop of the full image."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from resjax import rsnet
from resjax.data.crops import evaluation_crops
from resjax.inference import programs
from resjax.inference.buckets import closed_sizes
from resjax.inference.images import Item, chunks
from resjax.inference.runtime import Makes, Runtime, processors
from resjax.inference.runtimes.xla import XlaRuntime
from resjax.network import Network
from resjax.report.confusion import distinct
from resjax.resolution import name as name_of
from resjax.resolution import sides
from resjax.routing.cascade import log_odds
from resjax.routing.predictor import Predictor
from resjax.routing.score import right_of
from resjax.routing.score import score as scored_choice

ENSEMBLE = 'ensemble'


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
  """What a network says of N images that could be read, in C ways: at each resolution, and all together.

  Attributes:
    ways: Names of the ways, such as '224', highest first, and last 'ensemble' where there are several resolutions.
    macs: Multiply-adds of an image in each way.
    class_names: By class index.
    images: Names of the images.
    numbers: int `[N]`, theirs in the source.
    labels: int `[N]`, their classes.
    guesses: int `[N, C]`, the likeliest class.
    ranks: int `[N, C]`, the place of the true class, 0 for right.
    odds: float `[N, C]`, log-odds of the likeliest class.
    unreadable: Name and reason of each other image; also of those that the network gives no numbers for.
    predictor: What the choice of DRNet's predictor comes to, see `routing.score`; None where there is none.
  """

  ways: tuple[str, ...]
  macs: tuple[int, ...]
  class_names: tuple[str, ...]
  images: tuple[str, ...]
  numbers: np.ndarray
  labels: np.ndarray
  guesses: np.ndarray
  ranks: np.ndarray
  odds: np.ndarray
  unreadable: tuple[tuple[str, str], ...]
  predictor: dict[str, Any] | None = None

  def top(self, k: int) -> dict[str, float]:
    """Returns the share of the images whose true class is among the k first, by way."""
    return dict(zip(self.ways, (self.ranks < k).mean(0).tolist()))

  def by_class(self) -> dict[int, dict[str, Any]]:
    """Returns `{'images': n, 'top1': {'224': share, ...}, 'taken_for': k}` of each class that has images, by its index.

    `taken_for` is the other class that the first way most often takes it for, None where it is always right.
    """
    right, found = self.ranks == 0, {}
    for label in np.unique(self.labels).tolist():
      own = self.labels == label
      wrong = self.guesses[own & ~right[:, 0], 0]
      found[label] = {
        'images': int(own.sum()),
        'top1': dict(zip(self.ways, right[own].mean(0).tolist())),
        'taken_for': int(np.bincount(wrong).argmax()) if len(wrong) else None,
      }
    return found

  def confusion(self, place: int = 0) -> np.ndarray:
    """Returns how many images of each true class (row) were taken for each class (column), int `[K, K]`.

    Args:
      place: Of the way.
    """
    classes = len(self.class_names)
    pairs = self.labels * classes + self.guesses[:, place]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def evaluate(
  network: Network,
  source: Any,
  classes: Sequence[int] | None = None,
  *,
  max_batch: int = 64,
  threads: int | None = None,
  runtime: Makes = XlaRuntime,
  seen: Callable[[int], None] = lambda count: None,
) -> Evaluation:
  """Returns what a network says of every image of a source.

  Every resolution gets its own crop of the full image, as in the evaluation of a run with `eval.pyramid='host'`; the
  predictor looks at the largest one. The ensemble weighs the logits by `alpha`, where the network has one.

  Args:
    network: What is scored.
    source: Of images with labels, as `resjax.data.sources` describes it.
    classes: The network's class for each label of the source; None: the same.
    max_batch: Images that run together, at most.
    threads: That decode; None: one for each processor.
    runtime: Makes what runs the programs.
    seen: Called with the number of images that were run, as the work goes on.

  Raises:
    ValueError: No image can be read, the network gives no numbers, or a label is no class of the network.
  """
  return evaluated(Runners(network, runtime, max_batch), source, classes, threads=threads, seen=seen)


class Runs(Protocol):
  """What answers images, in C ways.

  Ways, multiply-adds and class names are those of `Evaluation`. At most `size` images run together. Of one network
  alone, `network`, the predictor's choice is judged.
  """

  ways: tuple[str, ...]
  macs: tuple[int, ...]
  class_names: tuple[str, ...]
  size: int
  network: Network | None

  def flat(self, image: bytes | np.ndarray) -> np.ndarray:
    """All crops that are needed of an image, as one row uint8."""

  def run(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Logits `[C, n, K]` of at most `size` images from their rows, float64; and the predictor's scores `[n, R]`."""


def evaluated(
  runners: Runs,
  source: Any,
  classes: Sequence[int] | None = None,
  *,
  threads: int | None = None,
  seen: Callable[[int], None] = lambda count: None,
) -> Evaluation:
  """Returns what `evaluate` does, of whatever answers; arguments and errors as there."""
  wanted, labels = _items(source)
  parts: list[dict[str, np.ndarray]] = []
  errors: list[str | None] = []
  for chunk in chunks(wanted, runners.flat, size=runners.size, threads=threads or processors()):
    begin, end = len(errors), len(errors) + len(chunk.errors)
    errors.extend(chunk.errors)
    seen(len(chunk.errors))
    rows = np.flatnonzero([error is None for error in chunk.errors]) + begin
    if len(rows):
      own = _translated(labels[rows], classes, len(runners.class_names), wanted[begin:end])
      parts.append(_columns(*runners.run(chunk.crops), own))
  if not parts:
    raise ValueError(f'images: none of {len(source)} could be read, expected some to score')
  table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  table = _answered(table, errors)
  scores = table.pop('scores', None)
  return Evaluation(
    ways=runners.ways,
    macs=runners.macs,
    class_names=runners.class_names,
    images=tuple(item.name for item, error in zip(wanted, errors) if error is None),
    numbers=np.flatnonzero([error is None for error in errors]),
    unreadable=tuple((item.name, error) for item, error in zip(wanted, errors) if error is not None),
    predictor=None if scores is None else _of_predictor(runners.network, scores, table['ranks']),
    **table,
  )


def _answered(table: dict[str, np.ndarray], errors: list[str | None]) -> dict[str, np.ndarray]:
  """The rows in which all logits are numbers; the other images get an error."""
  answered = np.isfinite(table['odds']).all(1)
  for number in np.flatnonzero([error is None for error in errors])[~answered].tolist():
    errors[number] = 'the network gives no numbers for it'
  if not answered.any():
    raise ValueError(f'images: the network gives no numbers for any of {len(errors)}, expected some to score')
  return {name: column[answered] for name, column in table.items()}


def summary(found: Evaluation) -> dict[str, Any]:
  """Returns what was found as JSON can hold it, in the form of results.json.

  `resolutions` and `ensemble` have `top1` and `top5`, `routers` the predictor's choice, `classes` top-1 of each class,
  and what it is `taken_for`.
  """
  top1, top5, images = found.top(1), found.top(5), len(found.labels)
  rows = {way: {'top1': top1[way], 'top5': top5[way], 'macs': cost} for way, cost in zip(found.ways, found.macs)}
  ensemble = rows.pop(ENSEMBLE, next(iter(rows.values())))
  names = (*distinct(found.class_names), None)
  by_class = {
    names[label]: entry | {'taken_for': names[-1 if entry['taken_for'] is None else entry['taken_for']]}
    for label, entry in found.by_class().items()
  }
  return {
    'resolutions': {way: row | {'images': images} for way, row in rows.items()},
    'ensemble': ensemble,
    'unreadable': [{'image': name, 'reason': reason} for name, reason in found.unreadable],
    'classes': by_class,
  } | ({'routers': {'predictor': found.predictor}} if found.predictor else {})


class Runners:
  """The programs of a network, one at each resolution from crops of its own, and the predictor's; see `Runs`."""

  network: Network | None

  def __init__(self, network: Network, runtime: Makes, max_batch: int):
    """Compiles them; arguments as of `evaluate`. `row` is the length of a row of `flat`."""
    self.row = sum(int(np.prod(sides(size))) * 3 for size in network.resolutions)
    self.network, self.class_names = network, network.class_names
    self._sizes, self._crop = network.resolutions, evaluation_crops(network.preprocessing, network.resolutions)
    alpha = network.variables['params'].get('alpha') if 'params' in network.variables else None
    count = len(network.resolutions)
    weights = np.exp(np.zeros(count) if alpha is None else np.asarray(alpha, float))
    self.ways = (*map(name_of, network.resolutions), *[ENSEMBLE] * (count > 1))
    self.macs = (*network.macs, sum(network.macs))[: len(self.ways)]
    self._weights = weights / weights.sum()
    self._places = [runtime(programs.of_network(network.at(resolution)[0])) for resolution in network.resolutions]
    self._scorer = None if network.predictor is None else runtime(programs.of_predictor(network))
    self.size = closed_sizes(max_batch, self._places[0].multiple)[-1]
    for made in (*self._places, self._scorer):
      if made is not None:
        made.compile((self.size,))

  def flat(self, image: bytes | np.ndarray) -> np.ndarray:
    """Returns the crops of all sizes, one row an image."""
    return np.concatenate([sized.ravel() for sized in self._crop(image)])

  def run(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns what `Runs` says."""
    crops = _split(rows, self._sizes)
    pending = [self._start(place, sized) for place, sized in zip(self._places, crops, strict=True)]
    scores = self._start(self._scorer, crops[0]) if self._scorer is not None else None
    logits = np.stack([np.asarray(out)[: len(rows)].astype(float) for out in pending])
    if len(self.ways) > len(pending):
      logits = np.concatenate([logits, np.einsum('r,rnk->nk', self._weights, logits)[None]])
    return logits, None if scores is None else np.asarray(scores)[: len(rows)]

  def _start(self, runtime: Runtime, crops: np.ndarray) -> Any:
    """The logits of a program, on their way."""
    return runtime.dispatch(runtime.put(crops), 0, self.size, np.arange(len(crops)))


def _columns(logits: np.ndarray, scores: np.ndarray | None, labels: np.ndarray) -> dict[str, np.ndarray]:
  """Columns of `Evaluation` for some images, and the predictor's `scores`."""
  single = logits.astype(np.float32)  # as ranks are found, so that a tie is the same one
  found = {
    'labels': labels,
    'guesses': single.argmax(-1).T,
    'ranks': np.asarray(rsnet.rank_of(jnp.asarray(single), jnp.asarray(labels))).T,
    'odds': log_odds(logits).T,
  }
  return found if scores is None else found | {'scores': scores}


def _items(source: Any) -> tuple[list[Item], np.ndarray]:
  """The images of a source, and their labels as far as they were read: an array that is filled as they are."""
  labels = np.full(len(source), -1)

  def read(number: int) -> bytes | np.ndarray:
    example = source[number]
    labels[number] = example['label']
    return example['image']

  return [Item(source.name_of(n), functools.partial(read, n)) for n in range(len(source))], labels


def _split(rows: np.ndarray, sizes: Sequence[Any]) -> list[np.ndarray]:
  """Crops uint8 `[n, H, W, 3]` of each size, from rows that hold all of them."""
  shapes = [(*sides(size), 3) for size in sizes]
  ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
  return [part.reshape(-1, *shape) for part, shape in zip(np.split(rows, ends, axis=1), shapes)]


def _translated(labels: np.ndarray, classes: Sequence[int] | None, count: int, items: Sequence[Item]) -> np.ndarray:
  """A source's labels as the network's classes."""
  if classes is not None:
    labels = np.asarray(classes)[labels]
  wrong = (labels < 0) | (labels >= count)
  if wrong.any():
    raise ValueError(f'{items[0].name} to {items[-1].name}: label {labels[wrong][0]}, expected 0 to {count - 1}')
  return labels


def _of_predictor(network: Network | None, scores: np.ndarray, ranks: np.ndarray) -> dict[str, Any]:
  """What the predictor's choice comes to on images of these ranks."""
  assert network is not None and network.predictor is not None
  predictor, count = network.predictor, len(network.resolutions)
  router = Predictor(tuple(map(float, network.macs)), float(predictor.macs))
  choice = router.choose(router.read({'scores': scores}))
  return scored_choice(choice, right_of(ranks[:, :count]), router.charged, [name_of(r) for r in network.resolutions])
