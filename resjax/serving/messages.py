"""What the processes of a server send each other of an image."""

from typing import Any

import msgspec
import numpy as np


class Task(msgspec.Struct):
  """An image as the front sends it."""

  image: bytes
  arrived: float  # seconds of time.monotonic()
  key: str  # of `Settings`: mosec's port is open to whoever is on this machine
  budget: str | None = None  # of its own


class Cut(msgspec.Struct):
  """An image as the decoders pass it on."""

  crop: np.ndarray  # uint8 [H, W, 3]
  arrived: float
  budget: str | None


class Reply(msgspec.Struct):
  """What comes back to the front."""

  prediction: dict[str, Any] = {}
  error: str | None = None  # why there is none
  status: int = 200  # of HTTP
  dial: str | None = None  # the step at which the batch ran
  seconds: float | None = None  # that an image now takes at the dial's last step
