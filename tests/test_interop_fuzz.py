"""Importing files that a random hand spoilt: each is read, or refused in a line; see fuzzing.py for what is watched."""

import json
import os
import pathlib
import random
import subprocess
import sys

import fuzzing
import pytest

from resjax.interop import files

HERE = pathlib.Path(__file__).parent


def fuzz(seed, count, seconds):
  if not pathlib.Path('/proc/self/statm').exists():
    pytest.skip('the memory of a process is not limited here')
  environment = os.environ | {'PYTHONPATH': str(HERE.parent), 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, str(HERE / 'fuzzing.py'), str(seed), str(count)]
  done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout)


def test_no_spoilt_file_harms_the_importer():
  found = fuzz(seed=0, count=1500, seconds=120)
  assert found['refused'] > 1000 and found['read'] > 20  # some are spoilt where it does not matter
  assert found['megabytes'] < 200


@pytest.mark.slow
@pytest.mark.parametrize('seed', [1, 2])
def test_many_spoilt_files_do_not_either(seed):
  assert fuzz(seed, count=20_000, seconds=900)['megabytes'] < 200


def test_what_is_not_spoilt_is_read(tmp_path):
  for name, whole in (
    ('a.pth', fuzzing.zipped(fuzzing.state(False))),
    ('b.pth', fuzzing.old(fuzzing.state(True))),
    ('c.safetensors', fuzzing.tensors_file()),
  ):
    (tmp_path / name).write_bytes(whole)
    found = files.read(tmp_path / name).tensors
    assert {key: value.shape for key, value in found.items()} == {'conv1.weight': (2, 3), 'fc.weight': (3, 2)}
  rng = random.Random(0)
  assert len({fuzzing.content(rng)[1] for _ in range(50)}) == 50
  assert b''.join(fuzzing.tokens(fuzzing.state(False))) == fuzzing.state(False)
