"""Images per second and latency, at one resolution and routed, in turns; and how much of the saving is real.

A round takes every way over the same number of images once, in calls of one batch each, in a new order. Ways differ in
what they start from, their scope; what comes before that is not timed. The calls follow one another: none is prepared
while another runs.
"""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from resjax.inference.engine import Engine
from resjax.inference.engines import Engines
from resjax.measuring import turns
from resjax.measuring.curves import names_of
from resjax.measuring.pool import Pool
from resjax.resolution import plain
from resjax.routing import Router
from resjax.routing.cascade import Cascade
from resjax.routing.random import even_draws
from resjax.routing.score import share

SCOPES = {
  'network': 'the network alone: which image runs where is known; grouping, resizing and padding count',
  'arrays': 'end to end from uint8 crops: the router too',
  'encoded': 'end to end from images as they are stored, encoded or pixels: decoding and cropping too',
}

WARM_UP = 1  # rounds that are not counted


class Way(NamedTuple):
  """One way to classify the images of a round."""

  name: str  # of the router; '' at one resolution
  scope: str  # a key of SCOPES
  run: Callable[[Any, np.ndarray], Any]  # of the batch that the scope starts from, and its images' slots in the round
  choice: np.ndarray  # int [N]: the place chosen for each slot
  macs: float  # mean multiply-adds of an image run as it was chosen, the router's included


class Seconds(NamedTuple):
  """What the calls of one way took, float [rounds, calls]."""

  wall: np.ndarray
  cpu: np.ndarray  # of all threads of this process


def mixed(count: int, mix: Sequence[float]) -> np.ndarray:
  """Returns a choice int `[count]`, sorted, whose numbers of images come nearest to shares that sum to 1."""
  ends = np.rint(np.cumsum(mix) * count).astype(int)
  return np.repeat(np.arange(len(mix)), np.diff(ends, prepend=0))


def at_one_resolution(engines: Engines, scope: str, count: int) -> list[Way]:
  """Returns the ways without a router: every resolution for the network alone, else the largest."""

  def run(batch: Any, slots: np.ndarray, place: int) -> None:
    engines.engine.run(batch, np.full(len(slots), place), promote=False)

  places = range(len(engines.macs) if scope == 'network' else 1)
  runs = {place: functools.partial(run, place=place) for place in places}
  return [Way('', scope, runs[place], np.full(count, place), float(engines.macs[place])) for place in places]


def by_mix(engines: Engines, mix: Sequence[float], scope: str, count: int) -> Way:
  """Returns the way in which each slot's resolution is given by a mix; end to end, the predictor runs for nothing."""
  choice = mixed(count, mix)
  end_to_end = scope != 'network'

  def run(batch: Any, slots: np.ndarray) -> None:
    if end_to_end and engines.scorer is not None:
      engines.scorer.run(batch, np.zeros(len(slots), int))
    engines.engine.run(batch, choice[slots])

  macs = np.asarray(engines.macs, float)[choice].mean() + end_to_end * engines.predictor_macs
  return Way('mix', scope, run, choice, float(macs))


def by_router(engines: Engines, pool: Pool, router: Router, promote: bool | None, count: int) -> list[Way]:
  """Returns a way for each scope in which a router of a trained network chooses.

  Args:
    engines: Of the network.
    pool: Its images are sent through the router once, to know what it chooses.
    router: With its knob set.
    promote: As of `Engines.images`.
    count: Images in a round.
  """
  draws = even_draws(count)

  def routed(crops: np.ndarray, slots: np.ndarray, promote: bool | None = promote) -> Any:
    return router.run(engines.images(crops, promote=promote, known={'draw': draws[slots]}))

  slots = np.arange(count)
  chosen = routed(pool.crops[pool.rows(slots)], slots, promote=False)
  choice, macs = chosen.places, float(chosen.macs.mean())
  ways = [Way(router.name, scope, routed, choice, macs) for scope in SCOPES if scope != 'network']
  if router.reads == Cascade.reads:  # it reads the network's own logits: no network without it
    return ways

  def alone(batch: Any, slots: np.ndarray) -> None:
    engines.engine.run(batch, choice[slots], promote=promote)

  return [Way(router.name, 'network', alone, choice, float(np.asarray(engines.macs, float)[choice].mean())), *ways]


def timed(ways: Sequence[Way], pool: Pool, engine: Engine, *, batch: int, rounds: int) -> list[Seconds]:
  """Returns what the calls of each way took, in interleaved rounds.

  Args:
    ways: Of a common number of images, a multiple of `batch`.
    pool: Of the images.
    engine: Takes the batches of scope 'network'.
    batch: Images of a call.
    rounds: That count.
  """
  rng = np.random.default_rng(0)
  found: dict[str, list[list[tuple[float, float]]]] = {str(number): [] for number in range(len(ways))}

  def one_round(number: str) -> None:
    way = ways[int(number)]
    order = rng.permutation(len(way.choice))
    found[number].append([_call(way, pool, engine, slots) for slots in np.split(order, len(order) // batch)])

  turns.seconds({n: functools.partial(one_round, n) for n in found}, rounds=rounds, warm_up=WARM_UP)
  return [Seconds(*np.moveaxis(np.array(calls[WARM_UP:]), -1, 0)) for calls in found.values()]


def _call(way: Way, pool: Pool, engine: Engine, slots: np.ndarray) -> tuple[float, float]:
  """Wall and CPU seconds of one batch."""
  batch: Any = None
  if way.scope != 'encoded':
    crops = pool.crops[pool.rows(slots)]
    batch = jax.block_until_ready(engine.put(crops)) if way.scope == 'network' else crops
  wall, cpu = time.perf_counter(), time.process_time()
  way.run(pool.decoded(slots) if batch is None else batch, slots)
  return time.perf_counter() - wall, time.process_time() - cpu


def run(
  engines: Engines,
  pool: Pool,
  routed: Callable[[int], Iterable[Way]],
  *,
  scopes: Sequence[str],
  batches: Iterable[int],
  rounds: int,
  images: int,
) -> dict[str, list[dict[str, Any]]]:
  """Measures every way at every batch size.

  Args:
    engines: Of the network.
    pool: Of the images.
    routed: The ways with a router, for a number of images in a round; those of other scopes are left out.
    scopes: Keys of `SCOPES`.
    batches: Images of a call.
    rounds: That count.
    images: That a round has at least: it is filled up to whole batches.

  Returns:
    `{'static': [...], 'routed': [...]}`; see `summary` and `saving`. `p50_ms` and `p95_ms` are of single calls.
  """
  result: dict[str, list[dict[str, Any]]] = {'static': [], 'routed': []}
  for batch in batches:
    count = -(-images // batch) * batch
    ways = [way for scope in scopes for way in at_one_resolution(engines, scope, count)]
    ways += [way for way in routed(count) if way.scope in scopes]
    seconds = timed(ways, pool, engines.engine, batch=batch, rounds=rounds)
    largest = {w.scope: (w, s) for w, s in zip(ways, seconds) if not w.name and not w.choice[0]}
    for way, spent in zip(ways, seconds):
      common = {'scope': way.scope, 'batch': batch, **summary(spent, count), 'macs': way.macs}
      if not way.name:
        result['static'].append({'resolution': plain(engines.engine.resolutions[way.choice[0]]), **common})
        continue
      common['share'] = share(way.choice, names_of(engines))
      of, before = largest[way.scope]
      entry = {'router': way.name, **common, **saving(before, spent, of.macs / way.macs)}
      if way.scope == 'network':
        costs = [planned(engines.engine, w.choice, batch) for w in (of, way)]
        entry['planned_over_theoretical'] = costs[0] / costs[1] / entry['theoretical_speedup']
      result['routed'].append(entry)
  return result


def summary(spent: Seconds, images: int) -> dict[str, Any]:
  """Returns images per second, the median over rounds with the quartiles, and milliseconds of a call and an image.

  Args:
    spent: In the calls of one way.
    images: In a round.
  """
  rate = turns.spread([images / s for s in spent.wall.sum(1).tolist()])
  return {
    'images_per_second': rate['median'],
    'images_per_second_quartiles': [rate['low'], rate['high']],
    'p50_ms': 1e3 * float(np.percentile(spent.wall, 50)),
    'p95_ms': 1e3 * float(np.percentile(spent.wall, 95)),
    'calls': spent.wall.size,
    'cpu_ms_per_image': 1e3 * float(np.median(spent.cpu.sum(1))) / images,
  }


def saving(largest: Seconds, routed: Seconds, theoretical: float) -> dict[str, Any]:
  """Returns the real speed-up over the largest resolution, and its ratio to the one in multiply-adds.

  Args:
    largest: Every image at the largest resolution.
    routed: The same number of images, round by round.
    theoretical: Multiply-adds of the first over those of the second.

  Returns:
    `theoretical_speedup`; `speedup` and `real_over_theoretical`, medians over the rounds' ratios, the latter with its
    quartiles; and the same ratio of CPU seconds, which other work on the machine touches less.
  """
  wall = turns.ratio(largest.wall.sum(1).tolist(), routed.wall.sum(1).tolist())
  cpu = turns.ratio(largest.cpu.sum(1).tolist(), routed.cpu.sum(1).tolist())
  return {
    'theoretical_speedup': theoretical,
    'speedup': wall['median'],
    'real_over_theoretical': wall['median'] / theoretical,
    'real_over_theoretical_quartiles': [wall['low'] / theoretical, wall['high'] / theoretical],
    'cpu_over_theoretical': cpu['median'] / theoretical,
  }


def planned(engine: Engine, choice: np.ndarray, batch: int) -> float:
  """Returns the seconds that the cost table expects of a round, its images in a random order."""
  order = np.random.default_rng(0).permutation(choice)
  step = engine.buckets[-1]
  calls = [call[i : i + step] for call in np.split(order, len(order) // batch) for i in range(0, batch, step)]
  return sum(engine.plan(call).seconds for call in calls)
