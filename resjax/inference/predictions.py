"""What is said of each image: its class, how sure that is, where it ran and what that cost."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypedDict

import numpy as np

from resjax import unseen
from resjax.inference.images import Chunk
from resjax.resolution import Resolution
from resjax.routing import Budget, Routed, Router


class Asked(TypedDict, total=False):
  """What may be asked for images.

  Without `resolution`, `budget` and `router`, DRNet's predictor chooses as it was trained to, and a network without one
  runs at its largest resolution.

  Attributes:
    resolution: One for all images, in pixels: of a square, or (height, width). The image is cropped at that size, as in
      evaluation; a size that was not trained is served as `Classifier.notes` then says.
    budget: Mean cost of an image, the router's included, see `Budget.parse`; it needs a calibration. Images are
      promoted under a budget of milliseconds alone: it makes them faster and costs multiply-adds. The crops of lower
      resolutions are made from those of the largest.
    router: One of `engines.routers`, None: the first; or a router as it is, such as `Classifier.router` returned, and
      no budget.
    follow: Keep the mean of these images on the budget, also where they are unlike the calibration's: the knob follows
      what was spent, so an image's resolution depends on those before it.
    unseen_by: 'interpolate' or 'nearest', see `resjax.unseen.add`.
    top_k: How many classes are named for each image, the likeliest first.
  """

  resolution: Resolution | None
  budget: Budget | float | str | None
  router: str | Router | None
  follow: bool
  unseen_by: str
  top_k: int


class Guess(NamedTuple):
  """A class, and how likely it is."""

  class_index: int
  label: str
  probability: float


@dataclasses.dataclass(frozen=True)
class Prediction:
  """What the network says of an image; where it could not be read, `error` says why and the rest is None."""

  image: str  # its file, or its number
  class_index: int | None = None
  label: str | None = None
  probability: float | None = None
  resolution: Resolution | None = None  # at which it ran, in pixels; of a cascade the last
  macs: float | None = None  # multiply-adds of all that was run for it, the router included
  error: str | None = None
  top: tuple[Guess, ...] = ()  # the likeliest classes, as many as were asked for


class Way(NamedTuple):
  """How images are run."""

  resolutions: Sequence[Resolution]  # that `run` chooses from, in the order of its places; crops are of the first
  run: Callable[[np.ndarray], Routed]  # of crops uint8 [N, H, W, 3]


def check(
  resolution: Resolution | None,
  budget: Budget | float | str | None,
  router: str | Router | None,
  follow: bool,
  unseen_by: str,
) -> None:
  """Raises ValueError where what is asked, see `Asked`, contradicts itself."""
  if not isinstance(router, str | None) and budget is not None:
    raise ValueError(f'budget: got {budget} with a router that is made, expected one or the other')
  if resolution is not None and (budget is not None or router is not None):
    raise ValueError(f'resolution: got {resolution} with a budget or router, expected one or the other')
  if follow and budget is None:
    raise ValueError('follow: got True without a budget, expected a budget to follow')
  if unseen_by not in unseen.WAYS:
    raise ValueError(f'unseen_by: got {unseen_by!r}, expected one of {", ".join(unseen.WAYS)}')


def predictions(
  chunks: Iterable[Chunk],
  resolutions: Sequence[Resolution],
  run: Callable[[np.ndarray], Routed],
  class_names: Sequence[str],
  top_k: int = 1,
) -> Iterator[Prediction]:
  """Returns an iterator of a prediction for each image of each chunk, in their order.

  Args:
    chunks: Images, cropped.
    resolutions: That `run` chooses from, in the order of its places.
    run: Of crops uint8 `[N, H, W, 3]`.
    class_names: By class index.
    top_k: How many classes are named for each image.

  Raises:
    ValueError: There are not as many classes.
  """
  if not 1 <= top_k <= len(class_names):
    raise ValueError(f'top_k: got {top_k}, expected 1 to {len(class_names)}, the number of classes')
  return _each(chunks, resolutions, run, class_names, top_k)


def _each(
  chunks: Iterable[Chunk],
  resolutions: Sequence[Resolution],
  run: Callable[[np.ndarray], Routed],
  class_names: Sequence[str],
  top_k: int,
) -> Iterator[Prediction]:
  """What `predictions` yields."""
  for chunk in chunks:
    found = run(chunk.crops) if len(chunk.crops) else None
    row = 0
    for name, error in zip(chunk.names, chunk.errors):
      if error is not None or found is None:
        yield Prediction(name, error=error)
        continue
      resolution, macs, logits = resolutions[found.places[row]], float(found.macs[row]), found.logits[row]
      row += 1
      if not np.isfinite(logits.max()):
        yield Prediction(name, error=f'the network answers {logits.max()} at {resolution} px, expected numbers')
        continue
      top = likeliest(logits, class_names, top_k)
      yield Prediction(name, *top[0], resolution=resolution, macs=macs, top=tuple(top))


def likeliest(logits: np.ndarray, class_names: Sequence[str], count: int) -> list[Guess]:
  """Returns the classes of the highest logits `[K]`, the likeliest first; of equal ones the lower class first."""
  logits = logits.astype(float)
  places = np.argsort(-logits, kind='stable')[:count] if count > 1 else [logits.argmax()]
  shares = np.exp(logits - logits.max())
  return [Guess(i, class_names[i], float(shares[i] / shares.sum())) for i in map(int, places)]
