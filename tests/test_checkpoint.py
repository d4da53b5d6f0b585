"""Checkpoints come back bit for bit, on other devices too; the latest and the best are kept; damage is set aside."""

import errno
import gc
import logging
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resjax import checkpoint
from resjax.training import state
from resjax.training.checkpoints import BEST, Checkpoints
from resjax.training.devices import Devices

VARIABLES = {
  'params': {'shared': {'w': jnp.arange(12.0).reshape(3, 4) / 7}, 'private': {'8': {}}},
  'batch_stats': {'8': {'bn': {'mean': jnp.ones(3)}}},
}
TX = optax.chain(optax.trace(0.9), optax.scale(-0.1))


def make(devices, step=0):
  def fresh():
    made = state.create(VARIABLES, TX, ema=True)
    return made.replace(step=made.step + step, params=jax.tree.map(lambda x: x + step, made.params))

  return devices.create(fresh)


def same(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


def test_a_state_comes_back_bit_for_bit_on_another_number_of_devices(tmp_path):
  one, eight = Devices(devices=jax.devices()[:1]), Devices()
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest is None
    checkpoints.save(make(one, 5), {'config': {'resolutions': [8, 4]}, 'train_seconds': 1.5}, None)
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest == 5 and checkpoints.steps == [5]
    assert checkpoints.meta() == {'config': {'resolutions': [8, 4]}, 'train_seconds': 1.5}
    restored = checkpoints.restore(make(eight))
  same(restored, make(one, 5))
  assert {leaf.sharding for leaf in jax.tree.leaves(restored)} == {eight.replicated}


def test_the_latest_and_the_best_are_kept(tmp_path):
  devices = Devices(devices=jax.devices()[:1])
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    for step, accuracy in ((1, 0.9), (2, 0.5), (3, None), (4, 0.6), (5, 0.7)):
      scores = None if accuracy is None else {BEST: accuracy}
      checkpoints.save(make(devices, step), {'config': {}}, scores)
      checkpoints.wait()
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.steps == [1, 4, 5]
    same(checkpoints.restore(make(devices), step=1), make(devices, 1))


def test_a_save_that_was_cut_short_is_not_the_latest(tmp_path):
  devices = Devices(devices=jax.devices()[:1])
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(make(devices, 3), {'config': {}}, None)
  (tmp_path / 'checkpoints' / '7.orbax-checkpoint-tmp').mkdir()
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest == 3
    same(checkpoints.restore(make(devices)), make(devices, 3))


def save(workdir, *steps):
  devices = Devices(devices=jax.devices()[:1])
  with Checkpoints(workdir) as checkpoints:
    for step in steps:
      checkpoints.save(make(devices, step), {'config': {'resolutions': [8, 4]}, 'finished': False}, None)
  for sums in workdir.glob('checkpoints/*/checksums.json'):
    sums.unlink()  # as older versions left a step; what is checked otherwise: test_checksums.py
  return devices


def arrays(workdir, step):
  """The file of a step's arrays; so small ones stand in one."""
  (path,) = (workdir / 'checkpoints' / str(step) / 'state' / 'd').iterdir()
  return path


def truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
  for other in path.parents[1].rglob('*'):
    if other.is_file():
      other.write_bytes(b'')


# Orbax gives up at the first array that fails, and TensorStore finds nobody to give the others to.
abandoned = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')


@abandoned
@pytest.mark.parametrize(
  ('damage', 'reason'),
  [(truncate, 'OUT_OF_RANGE: '), (empty, 'Expecting value: line 1'), (pathlib.Path.unlink, 'NOT_FOUND: ')],
  ids=['truncated', 'empty', 'missing'],
)
def test_a_damaged_step_is_set_aside_and_the_one_before_is_used(tmp_path, caplog, damage, reason):
  devices = save(tmp_path, 3, 5)
  damage(arrays(tmp_path, 5))
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest == 5 and checkpoints.newest_whole() == 3
    assert checkpoints.steps == [3]
    same(checkpoints.restore(make(devices)), make(devices, 3))
    checkpoints.save(make(devices, 5), {'config': {}}, None)
  (line,) = [record.getMessage() for record in caplog.records if 'moved to' in record.getMessage()]
  assert line.startswith(f'{tmp_path}/checkpoints/5: {reason}') and line.endswith('going back to step 3')
  assert '\n' not in line
  assert (tmp_path / 'damaged' / '5' / 'state').is_dir()
  damage(arrays(tmp_path, 5))
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.newest_whole() == 3
  assert (tmp_path / 'damaged' / '5.2').is_dir()


REFUSALS = [
  ValueError('PERMISSION_DENIED: Error opening "zarr3" driver: Error reading "a" [OS error 13: EACCES]'),
  TimeoutError(110, 'Connection timed out'),
  ValueError('The name either does not exist or'),  # what Orbax says of a folder that it may not look into
]


@pytest.mark.parametrize('refusal', REFUSALS, ids=['permission', 'network disk', 'folder'])
def test_a_disk_that_cannot_be_read_is_no_damage(tmp_path, monkeypatch, refusal):
  save(tmp_path, 3, 5)
  scandir = os.scandir

  def scan(path):
    if refusal is REFUSALS[2] and path.endswith('5/state'):
      raise PermissionError(errno.EACCES, 'EACCES')
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', scan)

  def load(*_):
    raise KeyError('what Orbax makes of it') from refusal

  monkeypatch.setattr(checkpoint.ocp, 'load_checkpointables', load)
  with Checkpoints(tmp_path) as checkpoints:
    with pytest.raises(OSError, match='/5: .*(EACCES|timed out).*; expected a folder .*, and memory for it$'):
      checkpoints.newest_whole()
    assert checkpoints.steps == [3, 5] and not (tmp_path / 'damaged').exists()


@abandoned
def test_a_process_apart_reads_and_says_the_same(tmp_path):
  save(tmp_path, 3, 5)
  truncate(arrays(tmp_path, 5))
  steps = tmp_path / 'checkpoints'
  assert checkpoint.read_apart(steps / '3') is None
  found = []
  for read in (checkpoint.read_all, checkpoint.read_apart):
    with pytest.raises(ValueError, match='/5: OUT_OF_RANGE: .*; expected a whole checkpoint') as error:
      read(steps / '5')
    found.append(str(error.value))
  assert found[0] == found[1]


@abandoned
def test_where_no_step_is_whole_all_stay_and_one_line_says_so(tmp_path):
  save(tmp_path, 3, 5)
  for step in (3, 5):
    truncate(arrays(tmp_path, step))
  with Checkpoints(tmp_path) as checkpoints:
    with pytest.raises(ValueError, match='no checkpoint is whole: .*/5: .*/3: .* another --workdir') as error:
      checkpoints.newest_whole()
    assert checkpoints.steps == [3, 5]
  assert '\n' not in str(error.value) and not (tmp_path / 'damaged').exists()


def test_a_state_that_does_not_fit_is_no_damage(tmp_path):
  devices = save(tmp_path, 3)
  other = devices.create(lambda: state.create(VARIABLES, optax.identity()))
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.newest_whole() == 3
    with pytest.raises(
      ValueError, match='checkpoints/3: .*; expected a whole checkpoint that fits the config'
    ) as error:
      checkpoints.restore(other)
  assert '\n' not in str(error.value)


def test_variables_are_read_without_the_optimiser_and_nothing_is_written(tmp_path):
  devices = save(tmp_path, 3, 5)
  (tmp_path / 'checkpoints' / '7.orbax-checkpoint-tmp').mkdir()  # a run that is saving right now
  before = sorted(tmp_path.rglob('*'))
  expected = make(devices, 5)
  variables, meta = checkpoint.load(tmp_path)
  same(variables, expected.ema)
  assert {leaf.sharding.device_set.pop() for leaf in jax.tree.leaves(variables)} == {jax.devices()[0]}
  assert meta['config']['resolutions'] == [8, 4] and meta['step'] == 5
  assert checkpoint.load_meta(tmp_path, step=3)['finished'] is False
  eight = Devices()
  placed, _ = checkpoint.load(tmp_path, step=3, sharding=eight.replicated)
  assert {leaf.sharding for leaf in jax.tree.leaves(placed)} == {eight.replicated}
  assert sorted(tmp_path.rglob('*')) == before


def test_variables_of_a_run_without_an_average_are_its_parameters(tmp_path):
  devices = Devices(devices=jax.devices()[:1])
  fresh = devices.create(lambda: state.create(VARIABLES, TX))
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(fresh, {'config': {}}, None)
  same(checkpoint.load(tmp_path)[0]['params'], fresh.params)


@abandoned
def test_what_is_not_there_to_read_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='no checkpoints in .*, expected the workdir of a run'):
    checkpoint.load(tmp_path / 'nowhere')
  (tmp_path / 'checkpoints').mkdir()
  with pytest.raises(FileNotFoundError, match='no complete checkpoint in .* yet'):
    checkpoint.load(tmp_path)
  save(tmp_path, 3, 5)
  with pytest.raises(FileNotFoundError, match='no checkpoint of step 4 in .*, expected one of 3, 5'):
    checkpoint.load(tmp_path, step=4)
  truncate(arrays(tmp_path, 5))
  with pytest.raises(ValueError, match='checkpoints/5: .*; expected a whole checkpoint') as error:
    checkpoint.load(tmp_path)
  assert '\n' not in str(error.value)


@abandoned
def test_what_is_raised_is_not_logged_too_and_other_records_are_afterwards(tmp_path, caplog):
  save(tmp_path, 3)
  truncate(arrays(tmp_path, 3))
  gc.collect()  # what the tests before this one left
  caplog.clear()
  with pytest.raises(ValueError, match='OUT_OF_RANGE'):
    checkpoint.load(tmp_path)
  gc.collect()
  assert caplog.records == []
  logging.getLogger('absl').warning('Failed to get metadata, says somebody else')
  assert len(caplog.records) == 1


def test_a_workdir_that_cannot_be_made_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError, match='file/run/checkpoints: .*; expected a folder with room') as error:
    Checkpoints(tmp_path / 'file' / 'run')
  assert '\n' not in str(error.value)


FULL = """
import sys, jax, numpy as np
from resjax.training.checkpoints import Checkpoints
from resjax.training.devices import Devices
from resjax.training.state import TrainState

def state(step, megabytes):
  noise = np.random.default_rng(0).standard_normal(megabytes * 2**18).astype(np.float32)
  return Devices().create(lambda: TrainState(jax.numpy.int32(step), {'w': jax.numpy.asarray(noise)}, {}, ()))

try:
  with Checkpoints(sys.argv[1]) as checkpoints:
    checkpoints.save(state(1, 1), {'finished': False}, None)
    checkpoints.wait()
    checkpoints.save(state(2, 8), {'finished': False}, None)
except OSError as error:
  print(error)
with Checkpoints(sys.argv[1]) as checkpoints:
  print(checkpoints.newest_whole(), checkpoints.steps)
"""


def test_a_full_disk_ends_in_one_line_and_costs_no_earlier_checkpoint(tmp_path):
  """A file system of 4 MiB in memory; a save of 8 MiB that can't be compressed."""
  mount = f'mount -t tmpfs -o size=4m none {tmp_path}'
  if subprocess.run(['unshare', '-rm', 'sh', '-c', mount], capture_output=True).returncode:
    pytest.skip('needs the right to mount a file system in a namespace of its own')
  command = f'{mount} && exec {sys.executable} -c "$0" {tmp_path}'
  done = subprocess.run(['unshare', '-rm', 'sh', '-c', command, FULL], capture_output=True, text=True)
  line, after = done.stdout.splitlines()
  assert line.startswith(f'{tmp_path}/checkpoints: ') and 'space' in line, done.stderr
  assert after == '1 [1]'


def test_saving_a_step_twice_keeps_it(tmp_path):
  devices = Devices(devices=jax.devices()[:1])
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(make(devices, 3), {'config': {}}, None)
    checkpoints.save(make(devices, 3), {'config': {}}, None)
    assert checkpoints.steps == [3]
