"""The fault drivers in their short form, each a command of its own; docs/reliability.md has the long form's results."""

import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.mark.slow
@pytest.mark.xdist_group('faults')  # several processes each: one after the other
@pytest.mark.parametrize(
  'command',
  [
    'kill.py --kills=3 --during_save=1 --sigterm=1',
    'topologies.py devices',
    'topologies.py hosts',
    'peers.py killed coordinator sigterm',
  ],
)
def test_faults(command):
  script, *flags = command.split()
  done = subprocess.run([sys.executable, HERE / script, *flags], capture_output=True, text=True, timeout=1200)
  assert done.returncode == 0, done.stdout + done.stderr
