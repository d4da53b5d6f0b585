"""Scores every image of a split exactly once, at every resolution, and sums it up."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from resjax import drnet, routers
from resjax.data import loader
from resjax.switchable import Variables
from resjax.training.run import Run


def evaluate(run: Run, variables: Variables) -> dict[str, Any]:
  """Returns the accuracies on the evaluation split, as fractions, in the form of results.json.

  Args:
    run: Whose `eval_source` is scored.
    variables: Of the switchable network.

  Returns:
    `{'resolutions': {'224': {'top1', 'top5', 'images'}}, 'ensemble': {'top1', 'top5'}, 'unreadable'}`; where the source
    knows its digits' sizes, also `'groups': {'8 px': {'32': top1}}`; with DRNet also the predictor among the `routers`.
  """
  scores = score(run, variables, run.eval_source)
  summary = summarise(ranks_of(scores), run.config.resolutions, run.eval_source)
  if run.config.method == 'drnet':
    summary['routers'] = {'predictor': score_predictor(run, readable(scores))}
  return summary


def score_predictor(run: Run, table: dict[str, np.ndarray]) -> dict[str, Any]:
  """Returns what DRNet's predictor comes to on the images of a table, as `routers.score` does."""
  resolutions = run.config.resolutions
  costs, own = drnet.costs_of(run.model, resolutions), drnet.Predictor(run.config).macs
  ranks = table['ranks'][:, : len(resolutions)]
  return routers.score(routers.predictor(table['scores']), ranks, costs, resolutions, own)


def readable(table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the rows of images that could be read."""
  counted = table['ranks'][:, 0] >= 0
  return {name: column[counted] for name, column in table.items()}


def score(run: Run, variables: Variables, source: Any) -> Any:
  """Returns what `run.eval_step` says of every image of a source: numpy `[N, ...]`, on every host.

  The ranks of an unreadable image are -1, other integers too; what is no integer is NaN.

  Args:
    run: Whose `eval_step` is used.
    variables: Of the switchable network.
    source: As `resjax.data.sources.create` makes them.
  """
  table = None
  for batch in loader.eval_batches(source, run.config):
    out = run.eval_step(variables, run.devices.put(batch))
    if table is None:
      table = jax.tree.map(lambda x: _blank(len(source), x), out)
    counted = batch['mask'] > 0
    for whole, part in zip(jax.tree.leaves(table), jax.tree.leaves(out), strict=True):
      whole[batch['index'][counted]] = part[counted]
  if jax.process_count() > 1:
    table = jax.tree.map(lambda x: np.fmax.reduce(multihost_utils.process_allgather(x)), table)
  return table


def _blank(length: int, like: np.ndarray) -> np.ndarray:
  """An array for `length` rows like these, filled with -1 or NaN."""
  fill = -1 if np.issubdtype(like.dtype, np.integer) else np.nan
  return np.full((length, *like.shape[1:]), fill, like.dtype)


def ranks_of(scores: Any) -> np.ndarray:
  """Returns the ranks, int32 `[N, R + 1]`, among what `score` returns; -1: unreadable."""
  return scores['ranks'] if isinstance(scores, dict) else scores


def summarise(ranks: np.ndarray, resolutions: tuple[int, ...], source: Any) -> dict[str, Any]:
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
