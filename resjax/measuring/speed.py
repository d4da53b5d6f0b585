"""What routers and resolutions save in seconds, beside what they save in multiply-adds: one run, in turns."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from resjax import moved
from resjax.inference.engines import Engines
from resjax.measuring import turns
from resjax.routing import Columns, Router
from resjax.routing.random import even_draws

LONGEST = 1.0  # seconds of all images at the largest resolution that the number of images aims at
MOST = 8  # batches of the largest size


@dataclasses.dataclass(frozen=True)
class Contender:
  """A router that is timed.

  Attributes:
    name: What it is called: its router's, or 'setting'.
    top1: What it gets right, 0..1, of more images than are timed.
    router: With its knob set.
    target: Mean multiply-adds that it was set to.
    place: Of a static resolution.
  """

  name: str
  top1: float
  router: Router
  target: float | None = None
  place: int | None = None


def images(engines: Engines) -> int:
  """Returns how many images are timed: whole batches of the largest size, 1 to `MOST`, for about `LONGEST` seconds."""
  batches = int(LONGEST / engines.engine.costs.seconds[0, -1])
  return engines.engine.buckets[-1] * min(max(batches, 1), MOST)


def compare(
  engines: Engines, crops: np.ndarray, known: Columns, contenders: Sequence[Contender], rounds: int
) -> dict[str, Any]:
  """Returns the seconds of every contender, from crops on the host to logits on the host, and how real the saving is.

  Nothing is promoted: every image runs where it was sent. What a router reads is found in the measured time.

  Args:
    engines: Run batches of the largest size.
    crops: uint8 `[N, S, S, 3]`.
    known: Columns that are known already: 'right', for the oracle.
    contenders: The first is the largest resolution, which the others are compared with.
    rounds: That count; each runs every contender once.

  Returns:
    `images`, `batch`, `rounds` and `ways`, a list of `{'name', 'top1', 'target', 'macs', 'milliseconds', 'speed_up',
    'theory', 'real_over_theory'}`; those that scatter are `{'median', 'low', 'high'}` with the quartiles.
  """

  def runner(router: Router) -> Callable[[], np.ndarray]:
    return lambda: router.run(engines.images(crops, promote=False, known=known, draw=even_draws)).macs

  runs = {str(number): runner(contender.router) for number, contender in enumerate(contenders)}
  macs = [float(np.mean(run())) for run in runs.values()]
  seconds = turns.seconds(runs, rounds=rounds)
  found = []
  for number, contender in enumerate(contenders):
    taken = seconds[str(number)]
    theory = macs[0] / macs[number]
    speed_up = turns.ratio(seconds['0'], taken)
    found.append(
      {
        'name': contender.name,
        'top1': contender.top1,
        'target': contender.target,
        'place': contender.place,
        'macs': macs[number],
        'milliseconds': turns.spread([1e3 * second / len(crops) for second in taken]),
        'speed_up': speed_up,
        'theory': theory,
        'real_over_theory': {name: value / theory for name, value in speed_up.items()},
      }
    )
  return {'images': len(crops), 'batch': engines.engine.buckets[-1], 'rounds': rounds, 'ways': found}


moved.tell(globals())
