"""How the dial is turned so that answers keep a deadline: a pure function of what is seen of the queue.

The dial has steps, the dearest first. It is turned down at once, as far as the queue takes, and up again one step at a
time, after a calm while. A step up that had to be taken back doubles that while, so that a load between two steps does
not make the dial swing.
"""

import dataclasses
from collections.abc import Sequence

# Shares of the deadline: the dial goes down where an answer is expected to take longer than the first, and up where the
# dearer step is expected to take less than the second.
_HIGH, _LOW = 0.75, 0.5

# Seconds of calm before a step up: to begin with, and at most.
PATIENCE, LONGEST = 1.0, 32.0

# What a single batch of n images says of the pace is worth n / (n + _WORTH) of `_WEIGHT`.
_WEIGHT, _WORTH = 0.3, 4
_PACES = (0.2, 50.0)


@dataclasses.dataclass(frozen=True)
class Queue:
  """What is seen when a batch is taken.

  Attributes:
    now: Seconds of any clock.
    waited: Seconds since the batch's oldest image came.
    batch: Images in it.
    depth: Images that have come and are not answered, the batch's among them.
  """

  now: float
  waited: float
  batch: int
  depth: int


@dataclasses.dataclass(frozen=True)
class Dial:
  """Where the dial stands, and what it remembers.

  Attributes:
    step: 0 for the dearest.
    pace: How much longer an image takes than the steps say: the processor is shared, and batches are small.
    calm: Since when the step above would have done, seconds; None: it would not.
    seen: When the last batch was taken; None: there was none.
    raised: When the dial last went up.
    patience: Seconds of calm before it goes up.
  """

  step: int = 0
  pace: float = 1.0
  calm: float | None = None
  seen: float | None = None
  raised: float | None = None
  patience: float = PATIENCE


def expected(queue: Queue, seconds: float) -> float:
  """Returns how long the slowest answer of those that wait is expected to take, in seconds.

  Args:
    queue: What is seen.
    seconds: That an image takes.
  """
  return max(queue.waited + queue.batch * seconds, queue.depth * seconds)


def turned(dial: Dial, queue: Queue, seconds: Sequence[float], deadline: float) -> Dial:
  """Returns the dial as it is to stand for a batch.

  Args:
    dial: As it stood.
    queue: What is seen.
    seconds: That an image takes at each step, falling.
    deadline: Seconds.
  """
  takes = [expected(queue, each * dial.pace) / deadline for each in seconds]
  last, now = len(seconds) - 1, queue.now
  if takes[dial.step] > _HIGH and dial.step < last:
    step = next((k for k in range(dial.step, last) if takes[k] <= _HIGH), last)
    failed = dial.raised is not None and now - dial.raised < 2 * dial.patience
    patience = min(2 * dial.patience, LONGEST) if failed else max(dial.patience / 2, PATIENCE)
    return dataclasses.replace(dial, step=step, calm=None, seen=now, raised=None, patience=patience)
  if dial.step == 0 or takes[dial.step - 1] > _LOW:
    return dataclasses.replace(dial, calm=None, seen=now)
  step, raised = dial.step, dial.raised
  calm = dial.calm if dial.calm is not None else now if dial.seen is None else dial.seen  # in between nothing came
  while step > 0 and now - calm >= dial.patience and takes[step - 1] <= _LOW:
    step, calm, raised = step - 1, calm + dial.patience, now
  return dataclasses.replace(dial, step=step, calm=calm, seen=now, raised=raised)


def measured(dial: Dial, batch: int, took: float, seconds: float) -> Dial:
  """Returns the dial with what a batch says of the pace.

  Args:
    dial: As it stood for the batch.
    batch: Images in it.
    took: Seconds.
    seconds: That an image should have taken.
  """
  low, high = _PACES
  weight = _WEIGHT * batch / (batch + _WORTH)
  seen = min(max(took / (batch * seconds), low), high)
  return dataclasses.replace(dial, pace=(1 - weight) * dial.pace + weight * seen)
