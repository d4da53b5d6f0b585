"""Scores every image of a split exactly once, at every resolution, and sums it up."""

import contextlib
import pathlib
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from resjax import drnet
from resjax.data import loader
from resjax.report import mistakes
from resjax.resolution import Resolution, at_widths
from resjax.routing.predictor import Predictor
from resjax.routing.score import right_of
from resjax.routing.score import score as score_of
from resjax.switchable import Variables
from resjax.training.run import Run

Table = dict[str, np.ndarray]


def evaluate(run: Run, variables: Variables, workdir: str | pathlib.Path | None = None) -> tuple[dict[str, Any], Table]:
  """Returns the accuracies on the evaluation split, as fractions, in the form of results.json; and all that was found.

  Args:
    run: Whose `eval_source` is scored.
    variables: Of the switchable network.
    workdir: Where `mistakes.csv` is written, if `eval.mistakes` wants it; None: nowhere.

  Returns:
    A summary, and what `score` does. In the summary, `{'resolutions': {'224': {'top1', 'top5', 'images'}}, 'ensemble':
    {'top1', 'top5'}, 'unreadable'}`; where the source knows its digits' sizes, also `'groups': {'8 px': {'32': top1}}`;
    with DRNet also the predictor among the `routers`.
  """
  table = score(run, variables, run.eval_source)
  summary = summarise(table['ranks'], at_widths(run.config), run.eval_source)
  if 'guess' in table and workdir is not None and jax.process_index() == 0:
    source, ways = run.eval_source, [*map(str, at_widths(run.config)), 'ensemble']
    rows = mistakes.surest(
      table['label'], table['guess'], table['ranks'], table['guess_odds'],
      most=run.config.eval.mistakes, ways=ways, name_of=source.name_of, class_names=source.class_names,
    )  # fmt: skip
    mistakes.write(rows, pathlib.Path(workdir) / 'mistakes.csv')
  if 'scores' in table:
    summary['routers'] = {'predictor': score_predictor(run, readable(table))}
  return summary, table


def score_predictor(run: Run, table: Table) -> dict[str, Any]:
  """Returns what DRNet's predictor comes to on the images of a table, see `routing.score`."""
  resolutions = at_widths(run.config)
  costs, predictor_macs = drnet.costs_of(run.model, resolutions), drnet.predictor_of(run.config).macs
  router = Predictor(tuple(map(float, costs)), predictor_macs)
  right = right_of(table['ranks'][:, : len(resolutions)])
  return score_of(router.choose(router.read(table)), right, router.charged, [str(r) for r in resolutions])


def readable(table: Table) -> Table:
  """Returns the rows of images that could be read."""
  counted = table['ranks'][:, 0] >= 0
  return {name: column[counted] for name, column in table.items()}


def score(run: Run, variables: Variables, source: Any) -> Table:
  """Returns what `run.eval_step` says of every image of a source: arrays `[N, ...]` by name, on every host.

  Among them are the `ranks`, int32 `[N, R + 1]`. Of an unreadable image all integers are -1, and what is none is NaN.

  Args:
    run: Whose `eval_step` is used.
    variables: Of the switchable network.
    source: As `resjax.data.sources.create` makes them.
  """
  table: Table = {}
  with contextlib.closing(loader.eval_batches(source, run.config)) as batches:
    for batch in batches:
      out = run.eval_step(variables, run.devices.put(batch))
      counted = batch['mask'] > 0
      for name, rows in out.items():
        table.setdefault(name, _blank(len(source), rows))[batch['index'][counted]] = rows[counted]
  if jax.process_count() > 1:
    table = {name: np.fmax.reduce(multihost_utils.process_allgather(column)) for name, column in table.items()}
  return table


def _blank(length: int, like: np.ndarray) -> np.ndarray:
  """An array for `length` rows like these, filled with -1 or NaN."""
  fill = -1 if np.issubdtype(like.dtype, np.integer) else np.nan
  return np.full((length, *like.shape[1:]), fill, like.dtype)


def summarise(ranks: np.ndarray, resolutions: tuple[Resolution, ...], source: Any) -> dict[str, Any]:
  """Returns what `evaluate` does, from the ranks of all images."""
  counted = ranks[:, 0] >= 0
  keys = [str(r) for r in resolutions]
  scores = {
    key: {'top1': top(ranks[counted, i], 1), 'top5': top(ranks[counted, i], 5)}
    for i, key in enumerate([*keys, 'ensemble'])
  }
  summary = {
    'resolutions': {key: scores[key] | {'images': int(counted.sum())} for key in keys},
    'ensemble': scores['ensemble'],
    'unreadable': int((~counted).sum()),
  }
  sizes = getattr(source, 'digit_size', None)
  if sizes is not None:
    summary['groups'] = {
      f'{size} px': {key: top(ranks[counted & (sizes == size), i], 1) for i, key in enumerate(keys)}
      for size in np.unique(sizes)
    }
  return summary


def top(ranks: np.ndarray, k: int) -> float:
  """Returns the share of images whose true class is among the k first; 0 where there are no images."""
  return float((ranks < k).mean()) if ranks.size else 0.0


def metrics(summary: dict[str, Any]) -> dict[str, float]:
  """Returns a summary as metrics: `eval/top1_224`, `eval/top1_ensemble`, and `eval/top1_mean` over resolutions.

  With DRNet also `eval/top1_predictor`, `eval/macs_predictor` and `eval/share_224`.
  """
  routed = summary.get('routers', {})
  rows = summary['resolutions'] | {'ensemble': summary['ensemble']} | routed
  values = {f'eval/{k}_{key}': row[k] for key, row in rows.items() for k in ('top1', 'top5')}
  for name, row in routed.items():
    values |= {f'eval/macs_{name}': row['macs']} | {f'eval/share_{r}': share for r, share in row['share'].items()}
  mean = float(np.mean([row['top1'] for row in summary['resolutions'].values()]))
  return values | {'eval/top1_mean': mean}
