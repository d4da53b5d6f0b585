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
def test_sigterm_while_compiling_ends_at_once_with_the_code_of_a_restart(tmp_path):
  """The workdir's folder of checkpoints is made before anything is compiled for it."""
  main = HERE.parents[1] / 'main.py'
  environment = os.environ | {'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'cache'), 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, main, f'--config={HERE / "recipe.py"}', f'--workdir={tmp_path / "run"}']
  with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
    while not (tmp_path / 'run' / 'checkpoints').is_dir():
      assert process.poll() is None, process.stderr.read()
      time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    assert process.wait(60) == 75 and time.monotonic() - begin < 30
    assert process.stderr.read().strip().splitlines()[-1].startswith('Stopped by SIGTERM: the same command goes on')
  assert not any((tmp_path / 'run' / 'checkpoints').iterdir())
