"""A finished DRNet run judged: its predictor beside every other way to choose, for results.json and gallery.png."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from resjax import drnet, moved, report, rsnet
from resjax.data import sources
from resjax.data.crops import evaluation_crops
from resjax.models.layers import ENOUGH
from resjax.preprocess import Preprocessing
from resjax.report.gallery import sent
from resjax.resolution import at_widths
from resjax.routing.judge import compare
from resjax.switchable import Variables
from resjax.training import evaluate
from resjax.training.run import Run


def judge(run: Run, variables: Variables, found: evaluate.Table, workdir: str | pathlib.Path) -> dict[str, Any]:
  """Returns DRNet's part of results.json, see `routing.judge.compare`, and writes `gallery.png`.

  Args:
    run: Whose `eval_source` was scored.
    variables: Of the network and its predictor.
    found: What `evaluate.score` says of `eval_source`.
    workdir: The run's folder.
  """
  config, source = run.config, run.eval_source
  calibration = None
  if config.eval.calibration_split:
    other = sources.create(config, config.eval.calibration_split)
    calibration = evaluate.readable(evaluate.score(run, variables, other))
  if source.needed is not None:
    found = found | {'needed': np.asarray(source.needed)}
  table, numbers = evaluate.readable(found), np.flatnonzero(found['ranks'][:, 0] >= 0)
  resolutions = at_widths(config)
  costs, predictor_macs = drnet.costs_of(run.model, resolutions), drnet.predictor_of(config).macs
  result = compare(table, calibration, costs, predictor_macs, resolutions, source.class_names, config.seed)
  result['predictor'] |= {'budget': predictor_macs + drnet.budget_of(config, costs)}
  result['warnings'] += hardly_chosen(config, result['routers']['predictor']['share'])
  if jax.process_index() == 0:
    rows = sent(table, numbers, resolutions)
    crop = evaluation_crops(Preprocessing.of_config(config), tuple(config.resolutions)[:1])
    shown = {entry['number'] for row in rows for entry in row['images']}
    images = {number: crop(source[number]['image'])[0] for number in shown}
    report.gallery(images, rows, pathlib.Path(workdir) / 'gallery.png')
  return result


def hardly_chosen(config: ConfigDict, shares: Mapping[str, float]) -> list[str]:
  """Returns a line for each resolution whose BatchNorm learned from few images, since the predictor hardly chose it.

  Args:
    config: Reads `drnet.frozen`, `drnet.statistics`, `batch_size`, `private` and `shared_batch_norm`.
    shares: Of the images that are sent to each resolution, by its name.
  """
  of_all = config.drnet.frozen or config.drnet.statistics == 'all'
  if of_all or rsnet.private(config) not in ('all', 'statistics'):
    return []
  return [
    f'{name} px gets {share:.1%} of the images, fewer than {ENOUGH} of a batch of {config.batch_size}: its BatchNorm '
    'has seen too few to be used for all; resjax recalibrate, or training with drnet.statistics=all (docs/drnet.md)'
    for name, share in shares.items()
    if share * config.batch_size < ENOUGH
  ]


moved.tell(globals())
