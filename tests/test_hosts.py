"""How processes join, with and without a cluster; wrong flags end in one line. What several do is in tests/faults."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from resjax.training import hosts

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (('10.0.0.1:1234', None, None), '--processes and --process_id missing, expected --coordinator, --processes'),
    ((None, 2, 0), '--coordinator missing'),
    ((None, None, 0), '--coordinator and --processes missing'),
    (('10.0.0.1', 2, 0), "--coordinator: got '10.0.0.1', expected HOST:PORT"),
    (('10.0.0.1:http', 2, 0), '--coordinator: got .* expected HOST:PORT'),
    (('10.0.0.1:99999', 2, 0), '--coordinator: got .* expected HOST:PORT'),
    (('10.0.0.1:1234', 0, 0), '--processes: got 0, expected 1 or more'),
    (('10.0.0.1:1234', 2, 2), '--process_id: got 2, expected 0 to 1 with --processes=2'),
    (('10.0.0.1:1234', 2, -1), '--process_id: got -1, expected 0 to 1'),
  ],
)
def test_wrong_flags_are_named_in_one_line(flags, message, monkeypatch):
  monkeypatch.setattr(jax.distributed, 'initialize', None)
  with pytest.raises(ValueError, match=message) as error:
    hosts.join(*flags)
  assert '\n' not in str(error.value)


def test_one_process_asks_for_no_cluster(monkeypatch):
  monkeypatch.setattr(jax.distributed, 'initialize', None)
  hosts.join(processes=1)
  hosts.join(processes=1, process_id=0)


def test_without_a_cluster_nothing_happens():
  """In a process of its own: JAX must not have started before."""
  environment = {k: v for k, v in os.environ.items() if not k.startswith(('SLURM', 'OMPI', 'KUBERNETES', 'JAX_COORD'))}
  code = 'from resjax.training import hosts; import jax, sys; before = sys.excepthook; hosts.join(); '
  code += 'print(jax.distributed.is_initialized(), jax.process_count(), sys.excepthook is before)'
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, env=environment)
  assert done.stdout.split() == ['False', '1', 'True'], done.stderr


def test_a_coordinator_that_never_comes_is_named(monkeypatch):
  def initialize(*_, **options):
    assert options['heartbeat_timeout_seconds'] == 60 and options['initialization_timeout'] == 300
    raise jax.errors.JaxRuntimeError('DEADLINE_EXCEEDED: Barrier timed out.\nmore')

  monkeypatch.setattr(jax.distributed, 'initialize', initialize)
  with pytest.raises(
    OSError, match='10.0.0.1:1234: DEADLINE_EXCEEDED: .* expected all processes within 300 s'
  ) as error:
    hosts.join('10.0.0.1:1234', 2, 1)
  assert '\n' not in str(error.value)


def test_leaving_prints_a_line_and_gives_the_code(capsys):
  with pytest.raises(SystemExit) as error:
    hosts.leave('error: so it is', 75)
  assert error.value.code == 75 and capsys.readouterr().err == 'error: so it is\n'


def test_main_refuses_wrong_flags_in_one_line(tmp_path):
  command = [sys.executable, 'main.py', '--config=configs/quickstart.py', f'--workdir={tmp_path}', '--processes=2']
  done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
  assert done.returncode == 1 and done.stderr.startswith('error: --coordinator and --process_id missing')
  assert done.stderr.count('\n') == 1
