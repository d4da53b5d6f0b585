"""Local folders and buckets by their paths."""

import fsspec
import pytest
from fsspec.registry import _registry

from configs import default
from resjax.paths import is_remote, local, path_of
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
