"""What the processes of a server are told, and tell each other: files in a folder that is there as long as it is."""

import dataclasses
import json
import mmap
import os
import pathlib
import secrets
import struct
from typing import Any, Self

# Where the processes find their folder, and what is in it.
FOLDER = 'RESJAX_SERVING'

# Of mosec, for one image.
ROUTE = '/image'

_SETTINGS, _DESCRIBED, _DEPTH = 'settings.json', 'described.json', 'depth'


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a network is served.

  Attributes:
    workdir: Of a run, or a bundle.
    step: Of the checkpoint; None: the latest.
    max_pixels: Of an image; None: as in the training.
    max_batch: Images that are run together at most.
    dtype: See `Classifier`.
    runtime: See `Classifier`.
    resolution: One for all, as text such as '160' or '128x192'; None: the others say.
    budget: Of images without one of their own, as `Budget.parse` takes it.
    router: Its name; None: the first.
    p95: Seconds in which answers are to come; None: the dial stays.
    min_resolution: The lowest that the dial may turn to, as text; None: the lowest trained.
    top_k: Classes named for each image.
    capacity: Images that may be under way.
    max_bytes: Of a request.
    timeout: Seconds that a request may take.
    decoders: Processes that decode.
    key: That only the server's own processes know.
  """

  workdir: str
  step: int | None = None
  max_pixels: int | None = None
  max_batch: int = 16
  dtype: str | None = None
  runtime: str | None = None
  resolution: str | None = None
  budget: str | None = None
  router: str | None = None
  p95: float | None = None
  min_resolution: str | None = None
  top_k: int = 1
  capacity: int = 64
  max_bytes: int = 10 << 20
  timeout: float = 10.0
  decoders: int = 2
  key: str = dataclasses.field(default_factory=lambda: secrets.token_hex(16), repr=False)

  def write(self, folder: pathlib.Path) -> None:
    """Writes them where `read` finds them."""
    (folder / _SETTINGS).write_text(json.dumps(dataclasses.asdict(self)))

  @classmethod
  def read(cls, folder: pathlib.Path) -> Self:
    """Returns what was written."""
    return cls(**json.loads((folder / _SETTINGS).read_text()))


def folder() -> pathlib.Path:
  """Returns the folder of the server that this process belongs to."""
  return pathlib.Path(os.environ[FOLDER])


def describe(found: dict[str, Any]) -> None:
  """Says to the other processes what is served, or under 'error' why nothing is."""
  path = folder() / _DESCRIBED
  part = path.with_suffix('.part')
  part.write_text(json.dumps(found))
  part.replace(path)


def described(folder: pathlib.Path) -> dict[str, Any] | None:
  """Returns what was said; None: nothing yet."""
  path = folder / _DESCRIBED
  return json.loads(path.read_text()) if path.is_file() else None


class Depth:
  """How many images are under way: a number that the front writes and the classifying process reads."""

  def __init__(self, folder: pathlib.Path):
    """Opens the number, 0 where it is new."""
    path = folder / _DEPTH
    if not path.is_file():
      path.write_bytes(bytes(8))
    with path.open('r+b') as file:
      self._bytes = mmap.mmap(file.fileno(), 8)

  @property
  def images(self) -> int:
    """The number."""
    return struct.unpack('<q', self._bytes[:])[0]

  @images.setter
  def images(self, count: int) -> None:
    self._bytes[:] = struct.pack('<q', count)
