"""Passes over all images of a kind: for what routers read of them, or for BatchNorm statistics."""

from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from resjax.inference.engines import Engines
from resjax.inference.images import Chunk
from resjax.inference.programs import Servable
from resjax.preprocess import Normalize, prepare
from resjax.resolution import Resolution, sides
from resjax.telling import printable


def table(
  chunks: Iterable[Chunk],
  engines: Callable[[], Engines],
  seen: Callable[[int], None],
  note: Callable[[str], None],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """Returns the columns of all images that have some, and which these are, bool `[N]`; see `Classifier.columns`.

  Args:
    chunks: Images, cropped at the largest resolution.
    engines: Gives what runs them; not called where no image could be read.
    seen: Called with the number of images of each chunk.
    note: Gets a line for each other image.

  Raises:
    ValueError: The network gives no numbers for any image that could be read.
  """
  parts: list[dict[str, np.ndarray]] = []
  errors: list[str | None] = []
  run = 0
  for chunk in chunks:
    here = list(chunk.errors)
    seen(len(chunk.names))
    if len(chunk.crops):
      part = engines().columns(chunk.crops)
      answered = np.all([_numbers(name, column) for name, column in part.items()], 0)
      for place in np.flatnonzero([error is None for error in here])[~answered].tolist():
        here[place] = 'the network gives no numbers for it'
      parts.append({name: column[answered] for name, column in part.items()})
      run += len(answered)
    for name, error in zip(chunk.names, here):
      if error is not None:
        note(f'{printable(name)}: {printable(error)}; left out')
    errors += here
  readable = np.array([error is None for error in errors], bool)
  if run and not readable.any():
    raise ValueError(f'images: the network gives no numbers for any of {run}, expected some with numbers')
  columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
  return columns, readable


def _numbers(name: str, column: np.ndarray) -> np.ndarray:
  """Which rows are numbers, bool `[N]`; what is looked for in pixels may be infinite."""
  good = np.isfinite(column) if name in ('odds', 'scores') else ~np.isnan(column)
  return good.reshape(len(column), -1).all(1)


def recalibrated(
  network: Servable, resolution: Resolution, chunks: Iterable[Chunk], batch: int
) -> tuple[Servable, str]:
  """Returns a network at one resolution with BatchNorm statistics of these images, and what is to be told of it.

  Args:
    network: Any.
    resolution: In pixels, of a square, or (height, width).
    chunks: Images, cropped at the resolution.
    batch: Images that are normalised together.

  Raises:
    ValueError: No image could be read, or the network stays as it is.
  """
  return network.recalibrated(resolution, inputs(chunks, resolution, network.preprocessing.normalize, batch))


def inputs(chunks: Iterable[Chunk], resolution: Resolution, normalize: Normalize, batch: int) -> Iterator[jax.Array]:
  """Yields normalised images, floating `[B, height, width, 3]`, all batches but the last equally large.

  Args:
    chunks: Images, cropped at the resolution; they are read when their turn comes.
    resolution: In pixels, of a square, or (height, width), or these at a width.
    normalize: See `preprocess.prepare`.
    batch: Images of one batch.
  """
  left = np.zeros((0, *sides(resolution), 3), np.uint8)
  for chunk in chunks:
    if len(chunk.crops):
      left = np.concatenate([left, chunk.crops])
    for _ in range(len(left) // batch):
      yield prepare((left[:batch],), (resolution,), normalize)[0]
      left = left[batch:]
  if len(left):
    yield prepare((left,), (resolution,), normalize)[0]
