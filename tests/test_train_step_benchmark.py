"""The benchmark of the training step in small form: PyTorch takes the steps that resjax takes; both are timed."""

import argparse
import json
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip('torch')

SCRIPT = pathlib.Path(__file__).parents[1] / 'benchmarks' / 'train_step.py'
sys.path.append(str(SCRIPT.parent))


def test_both_take_the_same_steps_and_are_compared(tmp_path):
  out = tmp_path / 'figures.json'
  command = [sys.executable, SCRIPT, '--model=resnet_small', '--resolutions=16,8', '--batch=4', '--classes=5']
  run = subprocess.run([*command, '--rounds=2', '--threads=1', f'--json={out}'], capture_output=True, text=True)
  assert run.returncode == 0, run.stderr
  figures = json.loads(out.read_text())
  assert set(figures['ways']) == {'resjax', 'eager', 'channels_last'}
  for name in ('ratio_to_eager', 'ratio_to_channels_last'):
    assert 0 < figures[name]['low'] <= figures[name]['median'] <= figures[name]['high']
  losses = [way['losses'] for way in figures['ways'].values()]
  assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # two steps; the script itself refuses 1e-3
  assert figures['ways']['resjax']['mib'] > 0 and '| eager |' in run.stdout


def test_the_second_step_of_a_turn_counts(monkeypatch):
  import train_step

  now, last, ended = 0.0, None, []

  class Way:
    """A way whose first step of a turn takes ten times as long."""

    def __init__(self, seconds):
      self.seconds, self.first = seconds, {'losses': [1.0, 0.5], 'start_s': 1.0, 'mib': 10.0}

    def step(self):
      nonlocal now, last
      spent = self.seconds if last is self else 10 * self.seconds
      now, last = now + spent, self
      return 2 * spent

    def end(self):
      ended.append(self)

  monkeypatch.setattr(train_step, 'time', argparse.Namespace(perf_counter=lambda: now))
  ways = {'resjax': Way(1.0), 'eager': Way(4.0)}
  found = train_step.take_turns(argparse.Namespace(rounds=3), ways)
  assert found['resjax']['spent'] == [1.0] * 3 and found['eager']['cpu'] == [8.0] * 3
  assert found['eager']['losses'] == [1.0, 0.5] and ended == list(ways.values())


def test_steps_of_several_starts_are_compared_round_by_round():
  import train_step

  def start(ours, theirs):
    told = {'losses': [1.0, 0.5], 'start_s': 1.0, 'mib': 10.0}
    return {'resjax': {**told, 'spent': ours, 'cpu': [2.0] * 2}, 'eager': {**told, 'spent': theirs, 'cpu': [1.0] * 2}}

  found = train_step.measure([start([1.0, 2.0], [2.0, 2.0]), start([3.0, 6.0], [1.0, 3.0])])
  assert found['resjax']['ratio_to_eager'] == {'median': 1.5, 'low': 0.875, 'high': 2.25}  # of 0.5, 1, 3, 2
  assert found['eager']['cpu_ratio']['median'] == 2.0 and found['resjax']['of_starts'] == [1.5, 4.5]
