"""What routers and resolutions save in seconds, beside what they save in multiply-adds: one run, in turns."""

import dataclasses
from typing import Any

import numpy as np

from resjax import dial
from resjax.inference import calibration
from resjax.inference.routing import Network, energy
from resjax.measuring import turns

LONGEST = 1.0  # seconds of all images at the largest resolution that the number of images aims at
MOST = 8  # batches of the largest size


@dataclasses.dataclass(frozen=True)
class Way:
  """One way to run a set of images.

  Attributes:
    name: A router's, 'static', 'oracle' or 'setting'.
    top1: What it gets right, 0..1, of more images than are timed.
    rule: The router with its knob set; None: `choice` is run.
    choice: int `[N]`, places among the resolutions, 0 for the highest.
    target: Mean multiply-adds that it was set to.
    place: Of a static resolution.
  """

  name: str
  top1: float
  rule: dial.Router | None = None
  choice: np.ndarray | None = None
  target: float | None = None
  place: int | None = None


def images(network: Network) -> int:
  """Returns how many images are timed: whole batches of the largest size, 1 to `MOST`, for about `LONGEST` seconds."""
  batches = int(LONGEST / network.engine.costs.seconds[0, -1])
  return network.engine.buckets[-1] * min(max(batches, 1), MOST)


def compare(
  network: Network, crops: np.ndarray, ways: list[Way], reference: calibration.Table, rounds: int
) -> dict[str, Any]:
  """Returns the seconds of every way, from crops on the host to logits on the host, and how real the saving is.

  Nothing is promoted: every image runs where it was sent. What a router reads is made in the measured time.

  Args:
    network: Its engine runs batches of the largest size.
    crops: uint8 `[N, S, S, 3]`.
    ways: The first is the largest resolution, which the others are compared with.
    reference: The calibration's columns.
    rounds: That count; each runs every way once.

  Returns:
    `images`, `batch`, `rounds` and `ways`, a list of `{'name', 'top1', 'target', 'macs', 'milliseconds', 'speed_up',
    'theory', 'real_over_theory'}`; those that scatter are `{'median', 'low', 'high'}` with the quartiles.
  """
  runs = {str(number): _run(network, crops, way, reference) for number, way in enumerate(ways)}
  macs = [float(np.mean(run())) for run in runs.values()]
  seconds = turns.seconds(runs, rounds=rounds)
  found = []
  for number, way in enumerate(ways):
    taken = seconds[str(number)]
    theory = macs[0] / macs[number]
    speed_up = turns.ratio(seconds['0'], taken)
    found.append(
      {
        'name': way.name,
        'top1': way.top1,
        'target': way.target,
        'place': way.place,
        'macs': macs[number],
        'milliseconds': turns.spread([1e3 * second / len(crops) for second in taken]),
        'speed_up': speed_up,
        'theory': theory,
        'real_over_theory': {name: value / theory for name, value in speed_up.items()},
      }
    )
  return {'images': len(crops), 'batch': network.engine.buckets[-1], 'rounds': rounds, 'ways': found}


def _run(network, crops, way, reference):
  """What runs a way and returns the multiply-adds of each image."""
  if way.rule is None:
    costs = np.asarray(network.costs, float)
    return lambda: costs[network.engine.run(crops, way.choice, promote=False).ran]

  def run():
    column = None
    if way.rule.name == 'detail':
      column = dial.ranks_within(energy(crops), reference['energy'])
    elif way.rule.name == 'random':
      column = calibration.even_draws(len(crops))
    return network.run(crops, way.rule, column, promote=False).macs

  return run
