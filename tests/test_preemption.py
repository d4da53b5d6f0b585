"""SIGTERM in training saves the step and ends the run, elsewhere it ends it at once; a kill leaves no workers."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from test_loop import tiny

from resjax.data import loader
from resjax.training import evaluate, loop, run
from resjax.training.checkpoints import Checkpoints
from resjax.training.preemption import Notice, Preempted

ROOT = pathlib.Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures('shallow')


def told_at(step, monkeypatch):
  """SIGTERM to this process when it gets the batch of a step."""
  whole = loader.train_batches

  def batches(source, config, start, **options):
    inner = whole(source, config, start, **options)
    try:
      for number, batch in enumerate(inner, start + 1):
        if number == step:
          os.kill(os.getpid(), signal.SIGTERM)
        yield batch
    finally:
      inner.close()

  monkeypatch.setattr(loader, 'train_batches', batches)


def newest(workdir):
  with Checkpoints(workdir) as checkpoints:
    return checkpoints.newest_whole(), checkpoints.meta()


@pytest.fixture
def quick(monkeypatch):
  """Steps that only count, and an evaluation in which all are right; what real ones come to is in tests/faults."""
  whole = run.build

  def build(config):
    train = lambda state, batch: (state.replace(step=state.step + 1), {'loss': 0.5})
    score = lambda variables, batch: {'ranks': np.zeros((len(batch['label']), 3), np.int32)}
    return dataclasses.replace(whole(config), train_step=train, eval_step=score)

  monkeypatch.setattr(loop, 'build', build)


def test_sigterm_saves_the_step_and_the_run_goes_on_from_there(quick, tmp_path, monkeypatch, capsys):
  before = signal.getsignal(signal.SIGTERM)
  with monkeypatch.context() as patch, pytest.raises(Preempted):
    told_at(5, patch)  # steps 4 and 6 are to be saved
    loop.train_and_evaluate(tiny(), tmp_path)
  assert signal.getsignal(signal.SIGTERM) is before
  assert newest(tmp_path)[0] == 5 and not newest(tmp_path)[1]['finished']
  assert loop.train_and_evaluate(tiny(), tmp_path)['resolutions']['16']['top1'] == 1
  assert 'Going on from step 5 of 12' in capsys.readouterr().out
  steps = [json.loads(line)['step'] for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert steps == sorted(steps) and 5 in steps and steps[-1] == 12


def test_sigterm_at_the_last_step_leaves_the_evaluation_to_the_next_life(quick, tmp_path, monkeypatch):
  with monkeypatch.context() as patch, pytest.raises(Preempted):
    told_at(12, patch)
    loop.train_and_evaluate(tiny(), tmp_path)
  assert newest(tmp_path)[0] == 12 and not (tmp_path / 'results.json').exists()
  assert loop.train_and_evaluate(tiny(), tmp_path)['resolutions']['16']['images'] == 70


def test_sigterm_in_evaluation_does_not_wait_for_its_end(quick, tmp_path, monkeypatch):
  def score(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    pytest.fail('went on')

  monkeypatch.setattr(evaluate, 'score', score)
  with pytest.raises(Preempted):
    loop.train_and_evaluate(tiny(), tmp_path)
  assert newest(tmp_path)[0] == 4


def test_sigterm_before_the_first_step_ends_at_once(tmp_path, monkeypatch):
  monkeypatch.setattr(loop, 'build', lambda config: os.kill(os.getpid(), signal.SIGTERM))
  with pytest.raises(Preempted):
    loop.train_and_evaluate(tiny(), tmp_path)


def test_further_signals_change_nothing():
  with Notice() as notice:
    with notice.patient():
      os.kill(os.getpid(), signal.SIGTERM)
      assert notice.reached()
      with pytest.raises(Preempted), notice.patient(False):
        pytest.fail('went on')
      os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)


WORKER = """
import os, sys
from configs import default
from resjax.data import loader, sources

if __name__ == '__main__':
  config = default.get_config()
  config.resolutions, config.batch_size, config.model.num_classes = (16, 8), 16, 3
  config.data.source, config.data.size, config.data.workers = 'fake', 64, 1
  batches = loader.train_batches(sources.create(config, 'train'), config, local_devices=1)
  next(batches)
  print('ready', flush=True)
  sys.stdin.read()
"""


def is_worker(pid):
  """Whether a process is one that Grain started; one that has ended, reaped or not, has no command line."""
  try:
    return b'spawn_main' in pathlib.Path(f'/proc/{pid}/cmdline').read_bytes()
  except FileNotFoundError:
    return False


def test_a_killed_process_leaves_no_worker_behind(tmp_path):
  script = tmp_path / 'script.py'
  script.write_text(WORKER)
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  with subprocess.Popen(
    [sys.executable, script], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
  ) as process:
    assert process.stdout.readline() == b'ready\n'
    threads = pathlib.Path(f'/proc/{process.pid}/task').iterdir()
    children = [pid for thread in threads for pid in (thread / 'children').read_text().split()]
    workers = [pid for pid in children if is_worker(pid)]
    assert len(workers) == 1
    process.kill()
  deadline = time.monotonic() + 30
  while any(map(is_worker, workers)):
    assert time.monotonic() < deadline, 'the worker lives on'
    time.sleep(0.05)
