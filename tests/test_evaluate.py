"""Every image scored once, and summed up: exact numbers from a step with known answers."""

import types

import numpy as np
import pytest
from numbered import Numbered, make_config

from resjax import drnet
from resjax.training import evaluate


def made_run(source, config):
  """A run whose step knows the answers: rank and score are the image's number, whatever the variables."""

  def eval_step(variables, batch):
    number = batch['index']
    return {'ranks': np.stack([number, number % 2, 0 * number], 1), 'scores': np.float32(number)[:, None] * variables}

  devices = types.SimpleNamespace(put=lambda batch: batch)
  return types.SimpleNamespace(config=config, eval_source=source, eval_step=eval_step, devices=devices)


def test_every_image_has_its_row_and_an_unreadable_one_is_blank():
  run = made_run(Numbered(21, bad=(3, 20)), make_config(data__max_bad_images=2))
  table = evaluate.score(run, np.ones((1, 2), np.float32), run.eval_source)
  number = np.arange(21)
  expected = np.stack([number, number % 2, 0 * number], 1)
  expected[[3, 20]] = -1
  np.testing.assert_array_equal(table['ranks'], expected)
  assert np.isnan(table['scores'][[3, 20]]).all()
  kept = evaluate.readable(table)
  np.testing.assert_array_equal(kept['scores'], np.delete(number, [3, 20])[:, None] * np.ones((1, 2)))
  np.testing.assert_array_equal(kept['ranks'], np.delete(expected, [3, 20], axis=0))


def test_the_summary_of_a_run_is_of_its_evaluation_split(monkeypatch):
  run = made_run(Numbered(20, bad=(0,)), make_config(data__max_bad_images=1))
  monkeypatch.setattr(evaluate, 'score_predictor', lambda run, table: len(table['scores']))
  summary, table = evaluate.evaluate(run, np.ones((1, 2), np.float32))
  assert len(table['ranks']) == 20 and summary['unreadable'] == 1
  assert summary['resolutions']['8'] == {'top1': 0.0, 'top5': 4 / 19, 'images': 19}
  assert summary['resolutions']['4'] == {'top1': 9 / 19, 'top5': 1.0, 'images': 19}
  assert summary['ensemble'] == {'top1': 1.0, 'top5': 1.0}
  assert summary['routers'] == {'predictor': 19} and 'groups' not in summary


def test_the_predictor_is_scored_where_it_sends_images_and_pays_for_itself(monkeypatch):
  monkeypatch.setattr(drnet, 'costs_of', lambda model, resolutions: (100, 10))
  monkeypatch.setattr(drnet, 'predictor_of', lambda config: types.SimpleNamespace(macs=3))
  run = types.SimpleNamespace(config=make_config(), model=None)
  table = {
    'scores': np.array([[1, 0], [0, 1], [0, 1], [0, 1]], np.float32),
    'ranks': np.array([[0, 9, 0], [0, 0, 0], [0, 4, 0], [0, 7, 0]]),
  }
  assert evaluate.score_predictor(run, table) == {
    'macs': (100 + 3 * 10) / 4 + 3,
    'top1': 0.5,
    'top5': 0.75,
    'share': {'8': 0.25, '4': 0.75},
  }


@pytest.mark.parametrize(('k', 'share'), [(1, 0.25), (2, 0.5), (5, 0.75), (1000, 1.0)])
def test_top(k, share):
  assert evaluate.top(np.array([0, 1, 4, 5]), k) == share


def test_no_images_are_no_share():
  assert evaluate.top(np.array([], int), 1) == 0.0


def test_summary_counts_every_readable_image_once():
  ranks = np.array([[0, 1, 0], [4, 5, 9], [-1, -1, -1], [0, 0, 2]], np.int32)

  class Source:
    digit_size = np.array([8, 8, 16, 16])

  summary = evaluate.summarise(ranks, (16, 8), Source())
  assert summary['unreadable'] == 1
  assert summary['resolutions']['16'] == {'top1': 2 / 3, 'top5': 1.0, 'images': 3}
  assert summary['resolutions']['8'] == {'top1': 1 / 3, 'top5': 2 / 3, 'images': 3}
  assert summary['ensemble'] == {'top1': 1 / 3, 'top5': 2 / 3}
  assert summary['groups'] == {'8 px': {'16': 0.5, '8': 0.0}, '16 px': {'16': 1.0, '8': 1.0}}
  metrics = evaluate.metrics(summary)
  assert metrics['eval/top1_mean'] == pytest.approx(0.5) and metrics['eval/top5_ensemble'] == pytest.approx(2 / 3)


def test_metrics_of_routed_images():
  row = {'top1': 0.5, 'top5': 0.75}
  routed = {'predictor': row | {'macs': 30.5, 'share': {'16': 0.25, '8': 0.75}}}
  summary = {'resolutions': {'16': row, '8': {'top1': 0.25, 'top5': 1.0}}, 'ensemble': row, 'routers': routed}
  assert evaluate.metrics(summary) == {
    'eval/top1_16': 0.5,
    'eval/top5_16': 0.75,
    'eval/top1_8': 0.25,
    'eval/top5_8': 1.0,
    'eval/top1_ensemble': 0.5,
    'eval/top5_ensemble': 0.75,
    'eval/top1_predictor': 0.5,
    'eval/top5_predictor': 0.75,
    'eval/macs_predictor': 30.5,
    'eval/share_16': 0.25,
    'eval/share_8': 0.75,
    'eval/top1_mean': 0.375,
  }
