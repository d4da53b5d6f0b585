"""Folders, on a local disk or in a bucket of Google Cloud Storage."""

import os
import pathlib

import fsspec
from etils import epath

__all__ = ['is_remote', 'local', 'path_of']


def is_remote(path: str | os.PathLike[str]) -> bool:
  """Returns whether a path names a bucket rather than a local folder."""
  return '://' in os.fspath(path)


def path_of(path: str | os.PathLike[str], field: str) -> epath.Path:
  """Returns a path with pathlib's methods; `~` stands for the home folder.

  Args:
    path: A local folder, or `gs://BUCKET/FOLDER`.
    field: What messages call it, such as 'config.data.dir'.

  Raises:
    ValueError: It lies in another kind of storage, or what reads buckets is not installed.
  """
  path = os.fspath(path)
  if not is_remote(path):
    return epath.Path(path).expanduser()
  if not path.startswith('gs://'):
    raise ValueError(f'{field}: got {path!r}, expected a local folder or gs://BUCKET/FOLDER')
  try:
    fsspec.get_filesystem_class('gcs')
  except ImportError:
    raise ValueError(
      f"{field}: got {path!r}, which needs gcsfs: pip install -e '.[gs]' (or name a local or mounted folder)"
    ) from None
  return epath.Path(path)


def local(path: str | os.PathLike[str], field: str) -> pathlib.Path:
  """Returns the path of a local folder, as it is.

  Args:
    path: What should be one.
    field: What messages call it, such as 'workdir'.

  Raises:
    ValueError: It names a bucket, where files can't be appended to or renamed.
  """
  if is_remote(path):
    raise ValueError(f'{field}: got {os.fspath(path)!r}, expected a local folder, or a bucket mounted as one')
  return pathlib.Path(path)
