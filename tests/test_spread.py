"""Mean and deviation over seeds."""

import statistics

import pytest

from resjax import report


def runs():
  tops = [0.9, 0.92, 0.97]
  return [
    {
      'method': 'drnet',
      'routers': {'predictor': {'top1': top, 'macs': 5 + i, 'share': {'8': 0.5}}},
      'train_seconds': 10.0 * i,
      'config': {'seed': i},
      'versions': {'devices': 1},
      'warnings': [],
    }
    for i, top in enumerate(tops)
  ]


def test_every_number_that_all_runs_have_is_summed_up():
  found = report.spread([runs()[0] | {'extra': 1.0}, *runs()[1:]])
  assert set(found) == {
    'routers.predictor.top1', 'routers.predictor.macs', 'routers.predictor.share.8', 'train_seconds'
  }  # fmt: skip
  tops = [0.9, 0.92, 0.97]
  assert found['routers.predictor.top1'] == pytest.approx((statistics.mean(tops), statistics.stdev(tops)))
  assert found['routers.predictor.share.8'] == (0.5, 0.0)


def test_a_single_run_does_not_scatter():
  assert report.spread(runs()[1:2])['routers.predictor.top1'] == (0.92, 0.0)


def test_no_runs_are_an_error():
  with pytest.raises(ValueError, match='runs: got none, expected at least one'):
    report.spread([])
