"""What DRNet's predictor is worth: the same answers of a network under every other way to choose a resolution."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from resjax.resolution import Resolution
from resjax.routing import choosable
from resjax.routing.cascade import Cascade
from resjax.routing.dial import dialled, reachable
from resjax.routing.known import Known
from resjax.routing.oracle import Oracle
from resjax.routing.predictor import Predictor
from resjax.routing.random import shuffled
from resjax.routing.router import Dialled, Router
from resjax.routing.score import right_of, score, share

Table = dict[str, np.ndarray]

_DRAWS = 20  # of the random choice
_CURVE = 15  # points of the cascade's curve


def compare(
  table: Table,
  calibration: Table | None,
  costs: Sequence[int],
  own: int,
  resolutions: Sequence[Resolution],
  class_names: Sequence[str],
  seed: int = 0,
) -> dict[str, Any]:
  """Returns what results.json holds of a predictor and its rivals.

  Args:
    table: Of N images: `ranks` `[N, R + 1]`, `scores` and `odds` `[N, R]`, `label` `[N]`; where it is known also
      `needed` `[N]`, the resolution that each image needs. Every router with a knob whose column is here is a rival.
    calibration: The same of other images, to set the rivals on; None: half of `table` each for the other.
    costs: `[R]`, multiply-adds of an image at each resolution.
    own: The predictor's multiply-adds for one image.
    resolutions: Highest first.
    class_names: By label.
    seed: Of the random choice.

  Returns:
    `routers`, `cascade_curve`, `predictor`, `share_by_class`, `needed` where it is known, and `warnings`; see
    docs/drnet.md.
  """
  names = [str(resolution) for resolution in resolutions]
  ranks = table['ranks'][:, : len(names)]
  right = right_of(ranks)
  seen = {**table, 'right': right['top1']}
  each = tuple(map(float, costs))
  predictor, cascade, known = Predictor(each, own), Cascade(each), Known(each, tuple(resolutions))
  choice = predictor.choose(predictor.read(seen))

  def judged(router: Router) -> dict[str, Any]:
    return score(router.choose(router.read(seen)), right, router.charged, names)

  def at_cost(rival: Dialled, target: float) -> dict[str, Any]:
    picked = crossed(rival, rival.read(seen), target, None if calibration is None else rival.read(calibration))
    return score(picked, right, rival.charged, names)

  found = {'predictor': judged(predictor)}
  found['random'] = _random(choice, right, predictor.charged, names, np.random.default_rng(seed))
  for name, kind in choosable().items():
    if name not in found and kind.reads in table:
      rival = kind.of(each, float(own), table if calibration is None else calibration)
      found[name] = at_cost(rival, found['predictor']['macs'])
  found['oracle'] = judged(Oracle(each))
  result: dict[str, Any] = {'routers': found}
  if 'needed' in seen and known.knows(seen['needed']):
    found['known'] = judged(known)
    result['needed'] = _needed(choice, known.choose(known.read(seen)), right['top1'], names)
  curve = [at_cost(cascade, target) for target in np.linspace(cascade.charged[-1], cascade.charged[0], _CURVE)]
  result['cascade_curve'] = [[point['macs'], point['top1']] for point in curve]
  result['predictor'] = {'macs': own, 'mean_macs_without': found['predictor']['macs'] - own}
  present = {name: choice[table['label'] == label] for label, name in enumerate(class_names)}
  result['share_by_class'] = {name: share(chosen, names) for name, chosen in present.items() if len(chosen)}
  result['warnings'] = _warnings(found['predictor'], right['top1'], each, own, resolutions)
  return result


def crossed(router: Dialled, column: np.ndarray, target: float, calibration: np.ndarray | None) -> np.ndarray:
  """Returns the choice int `[N]` of a router that other images have set to a mean cost, or to the nearest in reach.

  Args:
    router: Its knob is not read.
    column: `[N, ...]`, what it reads of the images that it chooses for.
    target: Mean cost of an image.
    calibration: `[M, ...]`, of other images; None: each half of the images sets it for the other.
  """

  def set_on(others: np.ndarray) -> Dialled:
    return dialled(router, others, float(np.clip(target, *reachable(router, others))))

  if calibration is not None:
    return set_on(calibration).choose(column)
  choice = np.zeros(len(column), int)
  for half in (0, 1):
    choice[half::2] = set_on(column[1 - half :: 2]).choose(column[half::2])
  return choice


def _random(
  choice: np.ndarray, right: Table, charged: np.ndarray, names: Sequence[str], rng: np.random.Generator
) -> dict[str, Any]:
  """The mean over several random choices of the same mix, which pay for the predictor too, and the deviation."""
  draws = [score(shuffled(choice, rng), right, charged, names) for _ in range(_DRAWS)]
  mean = {key: float(np.mean([draw[key] for draw in draws])) for key in ('macs', 'top1', 'top5')}
  return mean | {'top1_sd': float(np.std([d['top1'] for d in draws], ddof=1)), 'share': draws[0]['share']}


def _needed(choice: np.ndarray, answer: np.ndarray, right: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
  """How often the choice is the known answer, or right all the same; where the images of each need went."""
  fine = np.take_along_axis(right, choice[:, None], axis=1)[:, 0]
  needs = {name: choice[answer == place] for place, name in enumerate(names)}
  return {
    'agreement': float((choice == answer).mean()),
    'agreement_or_right': float(((choice == answer) | fine).mean()),
    'share': {name: share(chosen, names) for name, chosen in needs.items() if len(chosen)},
  }


def _warnings(
  predictor: dict[str, Any], right: np.ndarray, costs: Sequence[float], own: int, resolutions: Sequence[Resolution]
) -> list[str]:
  """What speaks against using the predictor, a line each."""
  lines = []
  saved = max(costs) - (predictor['macs'] - own)
  if own >= saved:
    lines.append(
      f'the predictor costs {own:,} multiply-adds per image and saves {saved:,.0f}: '
      f'{resolutions[0]} px for every image is cheaper'
    )
  for place, resolution in enumerate(resolutions):
    if costs[place] <= predictor['macs'] and float(right[:, place].mean()) >= predictor['top1']:
      lines.append(f'{resolution} px for every image is no dearer than the predictor and no less often right')
  return lines
