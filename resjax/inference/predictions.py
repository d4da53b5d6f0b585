"""What is said of each image: its class, how sure that is, where it ran and what that cost."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypedDict

import numpy as np

from resjax.inference.images import Chunk
from resjax.resolution import Resolution
from resjax.routing import Budget, Routed, Router


class Asked(TypedDict, total=False):
  """What may be asked for images, see `Classifier.stream`."""

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
      top = likeliest(found.logits[row], class_names, top_k)
      yield Prediction(
        name, *top[0], resolution=resolutions[found.places[row]], macs=float(found.macs[row]), top=tuple(top)
      )
      row += 1


def likeliest(logits: np.ndarray, class_names: Sequence[str], count: int) -> list[Guess]:
  """Returns the classes of the highest logits `[K]`, the likeliest first; of equal ones the lower class first."""
  logits = logits.astype(float)
  places = np.argsort(-logits, kind='stable')[:count] if count > 1 else [logits.argmax()]
  shares = np.exp(logits - logits.max())
  return [Guess(i, class_names[i], float(shares[i] / shares.sum())) for i in map(int, places)]
