"""What DRNet's predictor is worth: the same network and images under every other way to choose a resolution."""

import pathlib
from typing import Any

import jax
import numpy as np

from resjax import drnet, report, routers
from resjax.data import sources
from resjax.data.crops import evaluation_crops
from resjax.switchable import Variables
from resjax.training import evaluate
from resjax.training.evaluate import Table
from resjax.training.run import Run

_DRAWS = 20  # of the random choice
_CURVE = 15  # points of the cascade's curve
_COLUMNS = 10  # images of each resolution in the gallery


def judge(run: Run, variables: Variables, found: Table, workdir: str | pathlib.Path) -> dict[str, Any]:
  """Returns DRNet's part of results.json, and writes `gallery.png`.

  Args:
    run: Whose `eval_source` was scored.
    variables: Of the network and its predictor.
    found: What `evaluate.score` says of `eval_source`.
    workdir: The run's folder.

  Returns:
    `routers`, `cascade_curve`, `predictor`, `share_by_class`, `needed` where the source knows it, and `warnings`; see
    docs/drnet.md.
  """
  config, source = run.config, run.eval_source
  calibration = None
  if config.eval.calibration_split:
    other = sources.create(config, config.eval.calibration_split)
    calibration = evaluate.readable(evaluate.score(run, variables, other))
  counted = found['ranks'][:, 0] >= 0
  needed = None if source.needed is None else np.asarray(source.needed)[counted]
  table = evaluate.readable(found)
  costs = drnet.costs_of(run.model, config.resolutions)
  own = drnet.Predictor(config).macs
  result = compare(table, calibration, needed, costs, own, config.resolutions, source.class_names, config.seed)
  result['predictor'] |= {'budget': drnet.budget_of(config, costs)}
  if jax.process_index() == 0:
    rows = gallery_rows(table, np.flatnonzero(counted), needed, config.resolutions)
    crop = evaluation_crops(config, tuple(config.resolutions)[:1])
    images = {i: crop(source[i]['image'])[0] for row in rows.values() for i, _, _ in row}
    report.gallery(images, rows, pathlib.Path(workdir) / 'gallery.png')
  return result


def compare(
  table: Table,
  calibration: Table | None,
  needed: np.ndarray | None,
  costs: tuple[int, ...],
  own: int,
  resolutions: tuple[int, ...],
  class_names: tuple[str, ...],
  seed: int = 0,
) -> dict[str, Any]:
  """Returns what `judge` does, from what an evaluation found.

  Args:
    table: Of N images: `ranks` `[N, R + 1]`, `scores` and `confidence` `[N, R]`, `label` `[N]`.
    calibration: The same of other images, to set the cascade's threshold; None: half of `table` each for the other.
    needed: `[N]`, the resolution that each image needs, or None.
    costs: `[R]`, multiply-adds of an image at each resolution.
    own: The predictor's multiply-adds for one image.
    resolutions: Highest first.
    class_names: By label.
    seed: Of the random choice.
  """
  ranks = table['ranks'][:, : len(resolutions)]
  choice = routers.predictor(table['scores'])
  found = {'predictor': routers.score(choice, ranks, costs, resolutions, own)}
  found['random'] = _random(choice, ranks, costs, resolutions, own, np.random.default_rng(seed))
  others = None if calibration is None else calibration['confidence']
  spent = routers.cascade_costs(costs)

  def cascade(target: float) -> dict[str, Any]:
    picked = routers.calibrated_cascade(table['confidence'], costs, target, others)
    return routers.score(picked, ranks, spent, resolutions)

  found['cascade'] = cascade(found['predictor']['macs'])
  found['oracle'] = routers.score(routers.oracle(ranks == 0), ranks, costs, resolutions)
  result = {'routers': found}
  answer = None if needed is None else routers.known(needed, resolutions)
  if answer is not None:
    found['known'] = routers.score(answer, ranks, costs, resolutions)
    result['needed'] = _needed(choice, answer, ranks, resolutions)
  curve = [cascade(target) for target in np.linspace(spent[-1], spent[0], _CURVE)]
  result['cascade_curve'] = [[point['macs'], point['top1']] for point in curve]
  result['predictor'] = {'macs': own, 'mean_macs_without': found['predictor']['macs'] - own}
  result['share_by_class'] = {
    name: _share(choice[table['label'] == label], resolutions)
    for label, name in enumerate(class_names)
    if (table['label'] == label).any()
  }
  result['warnings'] = _warnings(found['predictor'], ranks, costs, own, resolutions)
  return result


def _random(choice, ranks, costs, resolutions, own, rng) -> dict[str, Any]:
  """The mean over several random choices of the same mix, which pay for the predictor too, and the deviation."""
  draws = [routers.score(routers.shuffled(choice, rng), ranks, costs, resolutions, own) for _ in range(_DRAWS)]
  mean = {key: float(np.mean([draw[key] for draw in draws])) for key in ('macs', 'top1', 'top5')}
  return mean | {'top1_sd': float(np.std([d['top1'] for d in draws], ddof=1)), 'share': draws[0]['share']}


def _needed(choice, answer, ranks, resolutions) -> dict[str, Any]:
  """How often the choice is the known answer, or right all the same; where the images of each need went."""
  right = np.take_along_axis(ranks, choice[:, None], axis=1)[:, 0] == 0
  return {
    'agreement': float((choice == answer).mean()),
    'agreement_or_right': float(((choice == answer) | right).mean()),
    'share': {
      str(r): _share(choice[answer == place], resolutions)
      for place, r in enumerate(resolutions)
      if (answer == place).any()
    },
  }


def _share(choice, resolutions) -> dict[str, float]:
  """The share of images at each resolution."""
  return {str(r): float((choice == place).mean()) for place, r in enumerate(resolutions)}


def _warnings(predictor, ranks, costs, own, resolutions) -> list[str]:
  """What speaks against using the predictor, a line each."""
  lines = []
  saved = max(costs) - (predictor['macs'] - own)
  if own >= saved:
    lines.append(
      f'the predictor costs {own:,} multiply-adds per image and saves {saved:,.0f}: '
      f'{resolutions[0]} px for every image is cheaper'
    )
  for place, resolution in enumerate(resolutions):
    top1 = float((ranks[:, place] == 0).mean())
    if costs[place] <= predictor['macs'] and top1 >= predictor['top1']:
      lines.append(f'{resolution} px for every image is no dearer than the predictor and no less often right')
  return lines


def gallery_rows(
  table: Table, numbers: np.ndarray, needed: np.ndarray | None, resolutions: tuple[int, ...]
) -> dict[str, list[tuple[int, str, bool]]]:
  """Returns a few images of each resolution that the predictor sent there: number in the source, caption, right.

  Args:
    table: As of `compare`.
    numbers: `[N]`, the images' numbers in the source.
    needed: As of `compare`; stands in the caption.
    resolutions: Highest first.
  """
  choice = routers.predictor(table['scores'])
  order = np.random.default_rng(0).permutation(len(choice))
  rows = {}
  for place, resolution in enumerate(resolutions):
    picked = order[choice[order] == place][:_COLUMNS]
    rows[f'{resolution} px'] = [
      (int(numbers[i]), '' if needed is None else f'needs {needed[i]}', bool(table['ranks'][i, place] == 0))
      for i in picked
    ]
  return rows
