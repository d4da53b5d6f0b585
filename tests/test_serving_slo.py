"""The dial under load: a queue is simulated second by second; no server, no clock."""

import dataclasses
import itertools

import numpy as np
import pytest

from resjax.serving import slo
from resjax.serving.slo import Dial, Queue

SECONDS = (0.02, 0.014, 0.01, 0.007, 0.005)
DEADLINE = 0.3


@dataclasses.dataclass
class Run:
  """What came of a simulation: for each batch its time and step; for each image when it came and how long it took."""

  batches: list
  images: np.ndarray

  def changes(self):
    steps = [step for _, step in self.batches]
    return sum(a != b for a, b in itertools.pairwise(steps))

  def p95(self, begin=0.0, end=np.inf):
    came, took = self.images.T
    return np.quantile(took[(came >= begin) & (came < end)], 0.95)

  def at(self, time):
    return [step for when, step in self.batches if when <= time][-1]


def simulate(arrivals, dial=None, *, turn=True, slower=1.0, most=16):
  """Serves images that come at these times, in batches, by one process."""
  dial, waiting, came, now = dial or Dial(), [], list(arrivals), 0.0
  batches, images = [], []
  while came or waiting:
    if not waiting:
      now = max(now, came[0])
    while came and came[0] <= now:
      waiting.append(came.pop(0))
    batch, waiting = waiting[:most], waiting[most:]
    if turn:
      dial = slo.turned(dial, Queue(now, now - batch[0], len(batch), len(batch) + len(waiting)), SECONDS, DEADLINE)
    took = slower * (0.004 + len(batch) * SECONDS[dial.step])
    dial = slo.measured(dial, len(batch), took, SECONDS[dial.step])
    batches.append((now, dial.step))
    now += took
    images += [(time, now - time) for time in batch]
  return Run(batches, np.array(images))


def poisson(rate, begin, end, seed=0):
  count = int(2 * rate * (end - begin) + 50)
  times = begin + np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))
  return times[times < end].tolist()


def test_at_a_load_that_the_largest_resolution_bears_the_dial_stays():
  assert {step for _, step in simulate(poisson(25, 0, 30)).batches} == {0}


@pytest.mark.parametrize('rate', [70, 110, 150])
def test_a_load_that_the_largest_does_not_bear_is_answered_in_time_by_less(rate):
  arrivals = poisson(rate, 0, 30)
  assert simulate(arrivals, turn=False).p95() > 5 * DEADLINE
  run = simulate(arrivals)
  assert run.p95() < DEADLINE and run.p95(end=3) < DEADLINE  # from the start on


@pytest.mark.parametrize('rate', [45, 60, 80, 95, 120])
def test_a_steady_load_between_two_steps_does_not_make_the_dial_swing(rate):
  run = simulate(poisson(rate, 0, 120))
  assert run.changes() <= 32  # in two minutes; up and down each second would be 240
  late = [step for when, step in run.batches if when > 60]
  assert sum(a != b for a, b in itertools.pairwise(late)) <= 12
  assert run.p95() < DEADLINE


def test_when_a_burst_has_passed_the_dial_is_back_within_seconds():
  run = simulate(poisson(15, 0, 10) + poisson(150, 10, 20, 1) + poisson(15, 20, 40, 2))
  assert run.at(9.9) == 0 and run.at(12) >= 3
  assert run.at(32) == 0
  assert run.p95() < DEADLINE


def test_after_a_pause_the_dial_is_back_at_once():
  run = simulate([*poisson(150, 0, 10), 25.0])
  assert run.at(9) >= 3 and run.batches[-1] == (25.0, 0)


def test_a_slower_machine_than_the_steps_say_is_noticed():
  run = simulate(poisson(60, 0, 30), slower=2.0)
  assert run.p95(begin=2) < DEADLINE
  assert simulate(poisson(24, 0, 30), slower=0.5).changes() == 0


@pytest.mark.parametrize('seed', range(20))
def test_a_longer_queue_never_gets_a_dearer_step(seed):
  rng = np.random.default_rng(seed)
  dial = Dial(step=int(rng.integers(5)), pace=float(rng.uniform(0.5, 3)), seen=0.0, calm=0.0)
  waited, batch, depth = rng.uniform(0, 0.3), int(rng.integers(1, 17)), int(rng.integers(1, 80))
  base = Queue(5.0, waited, batch, max(batch, depth))
  step = slo.turned(dial, base, SECONDS, DEADLINE).step
  for longer in (
    dataclasses.replace(base, waited=waited + 0.1),
    dataclasses.replace(base, depth=base.depth + 20),
    dataclasses.replace(base, batch=batch + 8, depth=base.depth + 8),
  ):
    assert slo.turned(dial, longer, SECONDS, DEADLINE).step >= step
  assert 0 <= step <= 4


def test_a_step_up_that_was_taken_back_is_tried_later_the_next_time():
  light, heavy = Queue(1.0, 0.0, 1, 1), Queue(1.2, 0.2, 8, 30)
  dial = slo.turned(Dial(step=1, seen=0.0, calm=0.0), light, SECONDS, DEADLINE)
  assert (dial.step, dial.raised, dial.patience) == (0, 1.0, 1.0)
  dial = slo.turned(dial, heavy, SECONDS, DEADLINE)
  assert dial.step == 4 and dial.patience == 2.0
  for now, step in ((1.3, 4), (2.9, 4), (3.3, 3), (5.0, 3), (5.3, 2)):  # calm since 1.2, each step up takes 2 seconds
    dial = slo.turned(dial, dataclasses.replace(light, now=now), SECONDS, DEADLINE)
    assert dial.step == step
  dial = slo.turned(dial, dataclasses.replace(heavy, now=20.0), SECONDS, DEADLINE)
  assert dial.patience == slo.PATIENCE  # that was another load


def test_one_step_alone_stays():
  dial = slo.turned(Dial(), Queue(0.0, 9.0, 16, 500), (0.02,), 0.1)
  assert dial.step == 0


def test_the_pace_is_what_batches_take_beside_what_they_should_a_larger_batch_weighing_more():
  dial = slo.measured(Dial(), 16, 0.64, 0.02)  # twice as long
  assert dial.pace == pytest.approx(1 + 0.3 * 16 / 20)
  assert slo.measured(Dial(), 1, 0.04, 0.02).pace == pytest.approx(1 + 0.3 / 5)
  assert slo.measured(Dial(), 16, 1e9, 0.02).pace < 20  # a process that slept does not turn the dial for minutes
  for _ in range(50):
    dial = slo.measured(dial, 16, 0.64, 0.02)
  assert dial.pace == pytest.approx(2.0, abs=1e-3)
  queue = Queue(1.0, 0.05, 5, 6)
  steps = [slo.turned(Dial(pace=pace), queue, SECONDS, DEADLINE).step for pace in (1.0, 2.0, 4.0)]
  assert steps == [0, 1, 3]  # 0.15, 0.19 and 0.19 s of the 0.225 that are allowed; a step above 0.25 and 0.25
