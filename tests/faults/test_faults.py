"""The fault drivers in their short form, each a command of its own; docs/reliability.md has the long form's results."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize(
  'command',
  [
    'flips.py --flips=200 --truncations=50',
    'kill.py --kills=3 --during_save=1 --sigterm=1',
    'topologies.py devices',
    'topologies.py hosts',
    'topologies.py drnet',
    'topologies.py restart',
    'topologies.py extended',
    'peers.py killed coordinator sigterm',
    'ends.py full worker reader',
  ],
)
def test_faults(command):
  script, *flags = command.split()
  done = subprocess.run([sys.executable, HERE / script, *flags], capture_output=True, text=True, timeout=1200)
  assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('seconds', [0.3, 2.0])  # the state is being made; the step is being compiled
def test_sigterm_while_compiling_ends_soon_with_the_code_of_a_restart(tmp_path, seconds):
  """The workdir's folder of checkpoints is made before anything is compiled for it.

  Nothing is saved, or the first step alone: where the signal comes while that is compiled, it waits for it. Which of
  both is a matter of how long this process was kept from running: it is no part of the promise.
  """
  main = HERE.parents[1] / 'main.py'
  environment = os.environ | {'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'cache'), 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, main, f'--config={HERE / "recipe.py"}', f'--workdir={tmp_path / "run"}']
  with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
    while not (tmp_path / 'run' / 'checkpoints').is_dir():
      assert process.poll() is None, process.stderr.read()
      time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    assert process.wait(60) == 75 and time.monotonic() - begin < 30
    assert process.stderr.read().strip().splitlines()[-1].startswith('Stopped by SIGTERM: the same command goes on')
  assert {path.name for path in (tmp_path / 'run' / 'checkpoints').iterdir()} <= {'1'}
