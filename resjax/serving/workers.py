"""The two stages of an image, as workers of mosec: processes that decode, one image at a time, and one for batches.

They are two because a worker's answer to a batch has one status: what is no image must not be in a batch with others. A
decoder that a hostile file brings down is started again, and nothing else is lost.
"""

import atexit
import hmac
import logging
import time
import warnings
from typing import Any

import msgspec
from mosec import ValidationError, Worker

from resjax import ending
from resjax.data.crops import evaluation_crops
from resjax.data.decode import BadImage
from resjax.preprocess import Preprocessing
from resjax.serving.messages import Cut, Reply, Task
from resjax.serving.settings import Settings, described, folder

warnings.filterwarnings('ignore', 'IPC data')  # crops are large
logging.getLogger('mosec.log').setLevel(logging.WARNING)  # what goes wrong here is told, and nothing less


class Decode(Worker):
  """Decodes and crops."""

  def __init__(self) -> None:
    """Waits until it is known how images are cropped."""
    super().__init__()
    atexit.register(ending.at_once, 0)
    self._tasks, self._key = msgspec.msgpack.Decoder(Task), Settings.read(folder()).key.encode()
    while (found := described(folder())) is None:
      time.sleep(0.05)
    if 'error' in found:
      raise SystemExit(1)
    preprocessing, size = found['preprocessing'], found['size']
    normalize = tuple(map(tuple, n)) if isinstance(n := preprocessing['normalize'], list) else n
    self._crop = evaluation_crops(
      Preprocessing(**(preprocessing | {'normalize': normalize})), (tuple(size) if isinstance(size, list) else size,)
    )

  def deserialize(self, data: bytes) -> Task:
    """The task that the front sent; ValidationError for what is from others."""
    try:
      task = self._tasks.decode(data)
    except msgspec.DecodeError:
      task = None
    if task is None or not hmac.compare_digest(task.key.encode(), self._key):
      raise ValidationError('not of the server')
    return task

  def forward(self, data: Task) -> Cut:
    """The image's crop; ValidationError, which is answered with 422, where it is none."""
    try:
      return Cut(self._crop(data.image)[0], data.arrived, data.budget)
    except BadImage as error:
      raise ValidationError(str(error)) from None


class Classify(Worker):
  """Classifies crops, those of one budget together."""

  def __init__(self) -> None:
    """Loads, compiles, sets the dial, and tells the others what is served."""
    super().__init__()
    atexit.register(ending.at_once, 0)  # nothing is lost: taking JAX apart takes a second, or ten under load
    from resjax.serving.classifying import Classifying  # loads JAX's world in this process alone

    self._classifying = Classifying.of_folder(folder())

  def serialize(self, data: Reply) -> bytes:
    """As the front reads it."""
    return msgspec.json.encode(data)

  def forward(self, data: Any) -> Any:
    """A reply for each of a list of `Cut`, or for a single one: what mosec gives where batches are of one image."""
    return self._classifying.replies(data) if isinstance(data, list) else self._classifying.replies([data])[0]
