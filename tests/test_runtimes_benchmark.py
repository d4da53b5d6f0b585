"""The benchmarks of runtimes in small form: what they compare, what they keep, and what can't run."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / 'benchmarks'
sys.path.append(str(BENCHMARKS))


def measured(tmp_path, script, *flags):
  out = tmp_path / 'figures.json'
  one_device = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
  command = [sys.executable, BENCHMARKS / script, *flags, f'--json={out}']
  run = subprocess.run(command, capture_output=True, text=True, env=one_device)
  assert run.returncode == 0, run.stderr
  return json.loads(out.read_text()), run.stdout


def test_every_runtime_gives_the_logits_of_pytorch_and_is_timed(tmp_path):
  pytest.importorskip('torch')
  flags = ['--models=resnet_small', '--resolutions=16', '--batches=2', '--rounds=2', '--threads=1']
  found, said = measured(tmp_path, 'runtimes.py', *flags, '--without=PyTorch, compiled;OpenVINO')
  assert [row['runtime'] for row in found['rows']] == ['PyTorch', 'ONNX Runtime', 'resjax (XLA)', 'resjax']
  assert all(row['ms'] > 0 and row['low'] <= row['median'] <= row['high'] for row in found['rows'])
  assert (
    found['command'].startswith('python benchmarks/runtimes.py --models=resnet_small') and 'jax' in found['versions']
  )
  assert (
    'Not measured: ' in said and 'OpenVINO (it was left out)' in said and '| resnet_small | 16 | 2 | resjax |' in said
  )


def test_ratios_are_of_the_same_round_and_turns_settle(monkeypatch):
  import runtimes

  from resjax.measuring import turns

  def seconds(ways, rounds, settle):
    assert settle == turns.SETTLE
    return {'PyTorch': [2.0, 8.0, 4.0], 'ONNX Runtime': [1.0, 2.0, 4.0], 'resjax': [2.0, 1.0, 2.0]}

  monkeypatch.setattr(turns, 'seconds', seconds)
  found = runtimes.compare(dict.fromkeys(('PyTorch', 'ONNX Runtime', 'resjax'), lambda: np.ones(2)), 3, 2)
  assert found['PyTorch']['over_onnx']['median'] == 2.0 and found['resjax']['over_onnx']['median'] == 0.5
  assert found['resjax']['median'] == 0.5 and found['resjax']['ms'] == 1000.0


def test_what_cannot_run_is_named(monkeypatch):
  import runtimes

  monkeypatch.setattr(runtimes.importlib.util, 'find_spec', lambda name: None)
  monkeypatch.setattr(runtimes.shutil, 'which', lambda name: None)
  assert runtimes.missing() == {
    'OpenVINO': 'openvino is not installed (pip install openvino)',
    'PyTorch, compiled': 'there is no C++ compiler',
  }


@pytest.mark.parametrize(
  ('form', 'head'),
  [
    pytest.param('--batches=1,2', '| model | input | batch | XLA, ms per image |', marks=pytest.mark.slow),
    pytest.param('--waits', '| model | what | threads sleep, ms [quartiles] |', marks=pytest.mark.slow),
    ('--one', '| model | input | ONNX Runtime alone, ms |'),
  ],
)
def test_the_engines_runtimes_are_compared(tmp_path, form, head):
  flags = ['--models=resnet_small', '--resolutions=16,8', '--rounds=2', form]
  found, said = measured(tmp_path, 'engine_runtimes.py', *flags)
  assert head in said and {row['model'] for row in found['rows']} == {'resnet_small'}
  assert len(found['rows']) == (4 if form.startswith('--batches') else 2)
