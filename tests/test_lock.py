"""A workdir has one process at a time; a dead one leaves no lock behind, and a second start says who has it."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from configs import default
from resjax import lock
from resjax.training import loop

HOLD = """
import pathlib, sys, time
from resjax import lock
with lock.alone(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
  """Another process that has the lock of tmp_path/run."""
  process = subprocess.Popen([sys.executable, '-c', HOLD, tmp_path / 'run'], stdout=subprocess.PIPE, text=True)
  assert process.stdout.readline() == 'held\n'
  yield process
  process.kill()
  process.wait()
  process.stdout.close()


def test_a_second_start_says_who_has_it_and_a_killed_one_leaves_nothing_behind(tmp_path, other):
  workdir = tmp_path / 'run'
  who = rf'process {other.pid} on {re.escape(socket.gethostname())} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC'
  message = rf'^workdir \S+/run: {who} trains in it; wait for its end, stop it, or give another --workdir$'
  with pytest.raises(ValueError, match=message), lock.alone(workdir):
    pass
  config = default.get_config()
  fields = {'model.name': 'resnet_small', 'model.num_classes': 2, 'model.width': 0.25, 'resolutions': (16, 8)}
  config.update_from_flattened_dict(fields | {'data.source': 'fake', 'data.name': '', 'data.size': 8, 'batch_size': 8})
  with pytest.raises(ValueError, match=message):
    loop.train_and_evaluate(config, workdir)
  assert [path.name for path in workdir.iterdir()] == ['.lock']
  other.send_signal(signal.SIGKILL)
  other.wait()
  with lock.alone(workdir):
    assert str(os.getpid()) in (workdir / '.lock').read_text()


def test_it_is_given_back_also_after_an_error_and_one_process_has_it_once(tmp_path):
  for _ in range(2):
    with pytest.raises(KeyError), lock.alone(tmp_path):
      raise KeyError
  with lock.alone(tmp_path):
    with pytest.raises(ValueError, match=f'process {os.getpid()} on'), lock.alone(tmp_path):
      pass
    with lock.alone(tmp_path, wanted=False), lock.alone(tmp_path / 'pretraining'):
      pass


def test_a_process_that_was_started_meanwhile_does_not_hold_it(tmp_path):
  with lock.alone(tmp_path):
    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
  with lock.alone(tmp_path):
    pass
  child.kill()
  child.wait()


def test_a_disk_without_locks_is_told_of(tmp_path, monkeypatch, caplog):
  def refuse(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  monkeypatch.setattr(lock.fcntl, 'flock', refuse)
  with lock.alone(tmp_path):
    pass
  (line,) = [record.getMessage() for record in caplog.records]
  assert (
    line == f'{tmp_path}: this disk knows no locks (No locks available): see to it that no other process trains in it'
  )


def test_a_workdir_that_cannot_be_made_is_named(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(OSError, match='^workdir .*/file/run: Not a directory; expected a folder that can be written$'):
    with lock.alone(tmp_path / 'file' / 'run'):
      pass


def test_no_link_is_followed_to_what_others_have(tmp_path):
  (tmp_path / 'mine').write_text('important')
  (tmp_path / lock.NAME).symlink_to('mine')
  with pytest.raises(OSError, match=r'expected a folder that can be written$'), lock.alone(tmp_path):
    pass
  assert (tmp_path / 'mine').read_text() == 'important'
