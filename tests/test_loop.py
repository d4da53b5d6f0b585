"""A run from its config to its result: trained, interrupted, resumed, shown again, refused."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest
from interruptions import interrupted_after
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from configs import default
from resjax import report
from resjax.training import evaluate, loop, run
from resjax.training.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures('shallow', 'built_once')


def tiny():
  """Twelve steps of a small network on random images; everything a recipe has, in seconds."""
  config = default.get_config()
  config.resolutions = (16, 8)
  config.model.name = 'resnet_small'
  config.model.num_classes = 3
  config.model.width = 0.25
  config.data.source = 'fake'
  config.data.name = ''
  config.data.size = 70
  config.data.flip = 'independent'
  config.eval.batch_size = 32
  config.batch_size = 16
  config.epochs = 3.0
  config.log_steps = 2
  config.checkpoint.every_epochs = 0.5
  return config


@pytest.fixture(scope='module')
def finished(shallow, built_once, tmp_path_factory):
  """A run that was not interrupted."""
  workdir = tmp_path_factory.mktemp('runs') / 'whole'
  return workdir, loop.train_and_evaluate(tiny(), workdir)


def final_state(workdir):
  parts = run.build(tiny())
  with Checkpoints(workdir) as checkpoints:
    assert checkpoints.latest == parts.total_steps == 12
    return jax.device_get(checkpoints.restore(parts.state_shapes()))


def test_a_run_ends_with_its_result(finished, capsys):
  workdir, results = finished
  assert report.read(workdir) == json.loads(json.dumps(results))
  assert {'method', 'resolutions', 'ensemble', 'params', 'train_seconds', 'versions', 'config'} <= set(results)
  assert list(results['resolutions']) == ['16', '8'] and results['method'] == 'rsnet'
  for row in results['resolutions'].values():
    assert set(row) == {'macs', 'top1', 'top5', 'images'}
    assert row['images'] == 70 and 0 <= row['top1'] <= row['top5'] == 1
  assert results['resolutions']['16']['macs'] > 3 * results['resolutions']['8']['macs']
  state = final_state(workdir)
  assert results['params'] == sum(leaf.size for leaf in jax.tree.leaves(state.params))
  assert (workdir / 'accuracy.png').read_bytes().startswith(b'\x89PNG')


def test_metrics_are_written_with_the_fields_names(finished):
  workdir, _ = finished
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines if 'train/loss' in line] == [2, 4, 6, 8, 10, 12]
  assert [line['step'] for line in lines if 'eval/top1_mean' in line] == [4, 8, 12]
  names = set().union(*lines)
  expected = {f'train/{n}_{r}' for n in ('loss', 'distillation', 'top1') for r in (16, 8)}
  expected |= {'train/loss_ensemble', 'eval/top1_16', 'eval/top5_8', 'eval/top1_ensemble'}
  assert expected <= names
  for line in lines:
    if 'train/loss' in line:
      parts = ('loss_16', 'loss_8', 'loss_ensemble', 'distillation_16', 'distillation_8')
      assert line['train/loss'] == pytest.approx(sum(line[f'train/{p}'] for p in parts), rel=1e-5)
  events = EventAccumulator(str(workdir / 'tensorboard'))
  events.Reload()
  assert [e.step for e in events.Scalars('train/loss_16')] == [2, 4, 6, 8, 10, 12]


def test_a_resumed_run_is_bit_identical_to_the_uninterrupted_one(finished, tmp_path, monkeypatch, capsys):
  whole, results = finished
  for _ in range(2):  # stopped at step 5, then at step 9: each time after a checkpoint at an even step
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
      interrupted_after(5, patch)
      loop.train_and_evaluate(tiny(), tmp_path)
  resumed = loop.train_and_evaluate(tiny(), tmp_path)
  assert 'Going on from step 8 of 12' in capsys.readouterr().out
  for a, b in zip(jax.tree.leaves(final_state(whole)), jax.tree.leaves(final_state(tmp_path)), strict=True):
    np.testing.assert_array_equal(a, b)
  for key in ('resolutions', 'ensemble', 'params'):
    assert resumed[key] == results[key]
  steps = [json.loads(line)['step'] for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert steps == sorted(steps) and steps.count(12) == 2


def test_a_finished_run_is_shown_and_not_run_again(finished, capsys, monkeypatch):
  workdir, results = finished
  monkeypatch.setattr(loop, 'build', None)
  assert loop.train_and_evaluate(tiny(), workdir) == json.loads(json.dumps(results))
  out = capsys.readouterr().out
  assert 'holds this run, finished' in out and 'top-1' in out


def test_another_way_of_evaluating_scores_the_finished_network_again(finished, tmp_path):
  workdir, results = finished
  config = tiny()
  config.eval.pyramid = 'device'
  state = final_state(workdir)
  again, _ = evaluate.evaluate(run.build(config), state.variables)
  assert again['resolutions']['16'].keys() == {'top1', 'top5', 'images'}
  assert again['resolutions']['16']['top1'] == results['resolutions']['16']['top1']


def test_another_config_is_refused_with_the_difference(finished, tmp_path, monkeypatch):
  workdir, _ = finished
  config = tiny()
  config.optimizer.learning_rate = 0.2
  with pytest.raises(ValueError, match='config.optimizer.learning_rate: 0.1 there, 0.2 here'):
    loop.train_and_evaluate(config, workdir)
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    interrupted_after(3, patch)
    loop.train_and_evaluate(tiny(), tmp_path)
  assert report.read(tmp_path) is None
  with pytest.raises(ValueError, match='config.optimizer.learning_rate: 0.1 there, 0.2 here'):
    loop.train_and_evaluate(config, tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_term(tmp_path, monkeypatch):
  """Steps 2, 4 and 6 are to be saved; the loss of step 5 is no number."""

  def build(config):
    def train_step(state, batch):
      state = state.replace(step=state.step + 1)
      distillation = math.inf if state.step == 5 else 0.1
      return state, {'loss': distillation + 1.0, 'loss_16': 1.0, 'distillation_8': distillation}

    return dataclasses.replace(run.build(config), train_step=train_step)

  monkeypatch.setattr(loop, 'build', build)
  with pytest.raises(FloatingPointError, match=r'step 5: distillation_8 = inf, loss = inf, expected') as error:
    loop.train_and_evaluate(tiny(), tmp_path)
  assert '\n' not in str(error.value)
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest == 4


def test_an_error_in_evaluation_does_not_cost_the_training_before_it(tmp_path, monkeypatch):
  def build(config):
    def fail(*_):
      raise ValueError('unreadable')

    skip = lambda state, batch: (state.replace(step=state.step + 1), {'loss': 0.5})
    return dataclasses.replace(run.build(config), train_step=skip, eval_step=fail)

  monkeypatch.setattr(loop, 'build', build)
  with pytest.raises(ValueError, match='unreadable'):
    loop.train_and_evaluate(tiny(), tmp_path)
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest == 4 and not checkpoints.meta()['finished']


class Record:
  """Stands for the writer and the progress bar: keeps what it is told."""

  images_per_second = None

  def __init__(self):
    self.lines, self.steps = [], []

  def scalars(self, step, values):
    self.lines.append((step, values))

  def update(self, step, note):
    self.steps.append(step)


def test_a_line_of_metrics_is_the_mean_of_all_steps_since_the_last():
  record = Record()
  window = loop.Window(record, record, log_steps=3)
  for step in range(1, 8):
    window.add(step, {'loss': np.float32(step)})
    assert record.steps == list(range(1, step))  # one step behind
  window.flush()
  assert record.steps == list(range(1, 8))
  assert record.lines == [(3, {'train/loss': 2.0}), (6, {'train/loss': 5.0})]
  window.add(8, {'loss': np.float32(8)})
  window.flush(last=True)
  assert record.lines[2:] == [(8, {'train/loss': 7.5})]
