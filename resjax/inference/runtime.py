"""What the engine needs of whatever runs its programs: a small interface, the same for every runtime."""

import dataclasses
import functools
import os
import platform
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from resjax import moved
from resjax.inference.programs import Program
from resjax.resolution import Resolution


@dataclasses.dataclass(frozen=True)
class Identity:
  """What a program's time depends on, weights left out.

  Attributes:
    runtime: Its name and version, and how it is set.
    machine: The processor's name.
    processors: That this process may use.
    device: Where programs run.
    devices: How many of them.
    programs: What they compute.
    dtype: Of the computation.
    crop: Shape of a crop, (H, W, 3).
  """

  runtime: str
  machine: str
  processors: int
  device: str
  devices: int
  programs: str
  dtype: str
  crop: tuple[int, int, int]


class Runtime(Protocol):
  """Programs of closed shapes: crops `[b, H, W, 3]` to logits `[b, K]`, one program for each resolution and size b.

  Attributes:
    resolutions: Highest first, in pixels, of squares or (height, width); a place is an index into them.
    shape: Of a crop, (H, W, 3).
    num_classes: K.
    multiple: Every size is a multiple of this: the devices that share it.
    identity: What a program's time depends on.
    compiled: How many programs it has compiled so far; after `compile` it stays as it is.
  """

  resolutions: tuple[Resolution, ...]
  shape: tuple[int, int, int]
  num_classes: int
  multiple: int

  @property
  def identity(self) -> Identity:
    """See the class."""

  @property
  def compiled(self) -> int:
    """See the class."""

  def compile(self, buckets: Sequence[int]) -> None:
    """Makes the program of every resolution and bucket."""

  def put(self, images: np.ndarray | jax.Array) -> Any:
    """Returns crops, uint8 `[N, H, W, 3]`, N at most the largest bucket, where `dispatch` takes rows from them."""

  def dispatch(self, batch: Any, place: int, bucket: int, rows: np.ndarray) -> Any:
    """Starts one program, without waiting for it where the runtime can.

    Args:
      batch: What `put` has returned.
      place: Of the resolution.
      bucket: The program's batch size.
      rows: int `[n]`, n <= bucket, of the batch; the runtime fills the other rows as it likes.

    Returns:
      What `numpy.asarray` turns into logits, float32 `[bucket, K]`; those after the n-th mean nothing.
    """


# Puts programs of one network, the largest resolution first, into a runtime; nothing is compiled yet.
Makes = Callable[[Sequence[Program]], Runtime]


def processors() -> int:
  """Returns how many processors this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


@functools.cache
def processor() -> str:
  """Returns the processor's name, where the system tells it, else its kind."""
  try:
    with open('/proc/cpuinfo') as file:
      names = [line.split(':', 1)[1].strip() for line in file if line.startswith('model name')]
  except OSError:
    names = []
  return names[0] if names else platform.processor() or platform.machine()


moved.tell(globals())
