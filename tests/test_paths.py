"""Local folders and buckets by their paths."""

import contextlib

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fsspec.registry import _registry

from configs import default
from resjax import checkpoint
from resjax.paths import is_remote, local, path_of
from resjax.training import state
from resjax.training.checkpoints import Checkpoints
from resjax.training.devices import Devices
from resjax.training.loop import train_and_evaluate


def test_a_local_folder_is_what_pathlib_makes_of_it(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert str(path_of('~/photos', 'config.data.dir')) == str(tmp_path / 'photos')
  assert not is_remote('~/photos') and not is_remote(tmp_path)


def test_a_bucket_keeps_its_slashes(monkeypatch):
  """pathlib would make gs:/photos of it."""
  monkeypatch.setitem(_registry, 'gcs', fsspec.AbstractFileSystem)
  folder = path_of('gs://photos/small', 'config.data.dir')
  assert str(folder / 'train') == 'gs://photos/small/train' and is_remote(folder)


def test_other_storage_is_refused_in_one_line():
  with pytest.raises(ValueError, match=r"config.data.dir: got 's3://photos', expected a local folder or gs://BUCKET/"):
    path_of('s3://photos', 'config.data.dir')


def test_what_is_missing_is_named_in_one_line(monkeypatch):
  def missing(name):
    raise ImportError('Please install gcsfs')

  monkeypatch.setattr(fsspec, 'get_filesystem_class', missing)
  with pytest.raises(ValueError, match=r"config.data.dir: got 'gs://photos', which needs gcsfs: pip install"):
    path_of('gs://photos', 'config.data.dir')


def test_a_workdir_in_a_bucket_is_refused_and_makes_no_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(
    ValueError, match="workdir: got 'gs://runs/1', expected a local folder, or a bucket mounted as one"
  ):
    train_and_evaluate(default.get_config(), 'gs://runs/1')
  assert list(tmp_path.iterdir()) == [] and local(tmp_path, 'workdir') == tmp_path


# Everything that may stand in a name, but for what `local` refuses.
ODD = [
  'lr[0.1]',
  'proj [2026]/*?{a}',
  ''.join(chr(c) for c in range(1, 128) if chr(c) not in '/\\'),
  '-é😀\u2028',
  'd' * 250,
]


@pytest.mark.parametrize('name', ODD)
def test_checkpoints_are_read_where_they_were_written_whatever_the_folder_is_called(tmp_path, name):
  workdir = tmp_path / name / 'run'
  one = Devices(devices=jax.devices()[:1])
  with Checkpoints(workdir) as checkpoints:
    checkpoints.save(one.create(tiny_state), {'class_names': ['a']}, None)
  with Checkpoints(workdir) as checkpoints:
    assert checkpoints.newest_whole() == 0
    np.testing.assert_array_equal(checkpoints.restore(one.create(tiny_state)).params['w'], np.arange(3.0))
  assert checkpoint.load(workdir).meta['class_names'] == ['a']
  checkpoint.write(
    tmp_path / name / 'made', {'params': {'w': jnp.ones(2)}, 'batch_stats': {'m': jnp.ones(2)}}, {'x': 1}
  )
  assert checkpoint.load(tmp_path / name / 'made').variables['params']['w'].tolist() == [1, 1]


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('caf\udce9', r"got '.*caf\\udce9', expected a path in UTF-8: checkpoints need one$"),
    ('a\\b', r"got .*, expected a path without '\\\\': checkpoints need one$"),
    ('data gs:', r"got .*, expected a path without 'gs:/': checkpoints need one$"),
    ('/'.join(['d' * 200] * 19), r'got a path of \d{4} bytes, expected at most 3800: /'),
    ('', 'empty, expected a folder'),
    ('/s3/runs', r"got '/s3/runs', expected a folder elsewhere: libraries read /s3 as s3://$"),
  ],
)
def test_a_workdir_whose_checkpoints_could_not_be_read_is_refused_before_anything_is_done(tmp_path, name, message):
  with pytest.raises(ValueError, match=f'^workdir: {message}') as error:
    train_and_evaluate(default.get_config(), f'{tmp_path}/{name}' if name and name[0] != '/' else name)
  assert '\n' not in str(error.value) and list(tmp_path.iterdir()) == []


def test_a_first_save_that_can_not_be_read_ends_the_run_and_later_ones_are_not_waited_for(tmp_path, monkeypatch):
  one = Devices(devices=jax.devices()[:1])
  read = []

  def refuse(path):
    read.append(path.name)
    raise ValueError('an array is missing')

  monkeypatch.setattr(checkpoint, 'read_all', refuse)
  with Checkpoints(tmp_path) as checkpoints:
    with pytest.raises(OSError, match='^the first save can not be read back, so the run ends: an array is missing$'):
      checkpoints.save(one.create(tiny_state), {'x': 1}, None)
    checkpoints.save(one.create(lambda: tiny_state(5)), {'x': 1}, None)
  with Checkpoints(tmp_path) as checkpoints:  # a run that goes on
    checkpoints.save(one.create(lambda: tiny_state(9)), {'x': 1}, None)
  assert read == ['0']


@pytest.mark.parametrize('host', [0, 1])
def test_of_several_hosts_the_first_reads_the_first_save_in_a_process_of_its_own(host, tmp_path, monkeypatch):
  read = []

  def refuse(path):
    read.append(path)
    raise ValueError('an array is missing')

  monkeypatch.setattr(checkpoint, 'read_apart', refuse)
  checkpoints = object.__new__(Checkpoints)
  checkpoints._root, checkpoints.wait = tmp_path, lambda: read.append('waited')
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(jax, 'process_index', lambda: host)
  with contextlib.nullcontext() if host else pytest.raises(OSError, match='^the first save can not be read back, so'):
    checkpoints._read_back(5)
  assert read == ['waited', tmp_path / '5'][: 2 - host]


def test_a_data_folder_at_the_root_that_libraries_take_for_a_bucket_is_refused():
  with pytest.raises(
    ValueError, match='config.data.dir: got .*, expected a folder elsewhere: libraries read /gs as gs'
  ):
    path_of('/gs/photos', 'config.data.dir')


def tiny_state(step=0):
  made = state.create({'params': {'w': jnp.arange(3.0)}, 'batch_stats': {'m': jnp.ones(2)}}, optax.trace(0.9))
  return made.replace(step=made.step + step)
