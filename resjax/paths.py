"""Folders, on a local disk or in a bucket of Google Cloud Storage; the name of a local one is never a pattern."""

import os
import pathlib
from collections.abc import Iterator

import fsspec
from etils import epath

from resjax.home import expanded

__all__ = ['is_remote', 'literal', 'local', 'path_of']

_BUCKETS = ('gs', 's3', 'az', 'hf')  # what etils and Orbax take for a bucket's name
_LONGEST = 3_800  # bytes: what is written below it is some 200 longer, and systems stop at 4,096


class _Literal(type(epath.Path('/'))):  # type: ignore[misc]  # what etils makes of local paths
  """A local path that is no pattern: etils' own `glob` reads `[ ]`, `*` and `?` in all of a path."""

  def glob(self, pattern: str) -> Iterator['_Literal']:
    """Yields what matches below."""
    return map(type(self), pathlib.Path(self).glob(pattern))


def literal(path: str | os.PathLike[str]) -> epath.Path:
  """Returns a local path for libraries that glob by etils (Orbax, TFDS): its characters stand for themselves."""
  return _Literal(path)


def is_remote(path: str | os.PathLike[str]) -> bool:
  """Returns whether a path names a bucket rather than a local folder."""
  return '://' in os.fspath(path)


def path_of(path: str | os.PathLike[str], field: str) -> epath.Path:
  """Returns a path with pathlib's methods; `~` stands for the home folder.

  Args:
    path: A local folder, or `gs://BUCKET/FOLDER`.
    field: What messages call it, such as 'config.data.dir'.

  Raises:
    ValueError: It lies in another kind of storage, or what reads buckets is not installed; or libraries take its name
      for a bucket's.
  """
  path = os.fspath(path)
  if not is_remote(path):
    path = expanded(path, field)
    _check_no_bucket(path, field)
    return literal(path)
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
  """Returns the path of a local folder that checkpoints may stand in; `~` stands for the home folder.

  Args:
    path: What should be one.
    field: What messages call it, such as 'workdir'.

  Raises:
    ValueError: It is empty, the home of no user, or names a bucket, where files can't be appended to or renamed; or
      checkpoints could not be read there.
  """
  text = os.fspath(path)
  if not text:
    raise ValueError(f'{field}: empty, expected a folder')
  if is_remote(path):
    raise ValueError(f'{field}: got {text!r}, expected a local folder, or a bucket mounted as one')
  text = expanded(text, field)
  whole = os.path.abspath(text)
  _check_no_bucket(whole, field)
  try:
    whole.encode()
  except UnicodeEncodeError:
    raise ValueError(f'{field}: got {whole!r}, expected a path in UTF-8: checkpoints need one') from None
  for unfit in ('\\', 'gs:/'):
    if unfit in f'{whole}/':
      raise ValueError(f'{field}: got {whole!r}, expected a path without {unfit!r}: checkpoints need one')
  if len(whole.encode()) > _LONGEST:
    raise ValueError(
      f'{field}: got a path of {len(whole.encode())} bytes, expected at most {_LONGEST}: {whole[:60]}...{whole[-60:]}'
    )
  return pathlib.Path(text)


def _check_no_bucket(path: str | os.PathLike[str], field: str) -> None:
  """Refuses a folder at the root of the disk that libraries take for a bucket."""
  first = os.path.abspath(path).lstrip('/').partition('/')[0]
  if first in _BUCKETS:
    raise ValueError(
      f'{field}: got {os.fspath(path)!r}, expected a folder elsewhere: libraries read /{first} as {first}://'
    )
