"""What is said of each image: its class, how sure that is, where it ran and what that cost."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypedDict

import numpy as np

from resjax.inference.images import Chunk
from resjax.resolution import Resolution
from resjax.routing import Budget, Routed


class Asked(TypedDict, total=False):
  """What may be asked for images, see `Classifier.stream`."""

  resolution: Resolution | None
  budget: Budget | float | str | None
  router: str | None
  follow: bool
  unseen_by: str


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


def predictions(
  chunks: Iterable[Chunk],
  resolutions: Sequence[Resolution],
  run: Callable[[np.ndarray], Routed],
  class_names: Sequence[str],
) -> Iterator[Prediction]:
  """Yields a prediction for each image of each chunk, in their order.

  Args:
    chunks: Images, cropped.
    resolutions: That `run` chooses from, in the order of its places.
    run: Of crops uint8 `[N, H, W, 3]`.
    class_names: By class index.
  """
  for chunk in chunks:
    found = run(chunk.crops) if len(chunk.crops) else None
    row = 0
    for name, error in zip(chunk.names, chunk.errors):
      if error is not None or found is None:
        yield Prediction(name, error=error)
        continue
      logits = found.logits[row].astype(float)
      index = int(logits.argmax())
      yield Prediction(
        image=name,
        class_index=index,
        label=class_names[index],
        probability=float(1 / np.exp(logits - logits[index]).sum()),
        resolution=resolutions[found.places[row]],
        macs=float(found.macs[row]),
      )
      row += 1
