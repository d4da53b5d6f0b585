"""One process at a time in a workdir: a lock that ends with the process that has it, however that ends."""

import contextlib
import datetime
import logging
import os
import pathlib
import socket
from collections.abc import Iterator

try:
  import fcntl
except ImportError:  # Windows
  fcntl = None  # type: ignore[assignment]

__all__ = ['NAME', 'alone']

NAME = '.lock'


@contextlib.contextmanager
def alone(workdir: pathlib.Path, *, wanted: bool = True) -> Iterator[None]:
  """Holds a workdir, made if it is missing, for this process alone.

  The operating system gives the lock back when the process ends, killed or not; the file stays. A disk that knows no
  locks, as some that are shared, is told of in the log, and nothing is locked.

  Args:
    workdir: A run's folder.
    wanted: False: nothing is done; the first of several hosts holds it for all.

  Raises:
    ValueError: Another process has it: which, where and since when.
    OSError: The folder can't be made or written to.
  """
  if not wanted or fcntl is None:
    yield
    return
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    file = os.open(workdir / NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)  # not into another's file
  except OSError as error:
    raise OSError(f'workdir {workdir}: {error.strerror}; expected a folder that can be written') from error
  try:
    _take(file, workdir)
    since = datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%d %H:%M:%S UTC')
    _note(file, f'process {os.getpid()} on {socket.gethostname()} since {since}')
    yield
  finally:
    os.close(file)  # and the lock is given back


def _take(file: int, workdir: pathlib.Path) -> None:
  """Takes the lock, or says who has it."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    who = os.pread(file, 300, 0).decode('utf-8', 'replace').strip() or 'another process'
    raise ValueError(
      f'workdir {workdir}: {who} trains in it; wait for its end, stop it, or give another --workdir'
    ) from None
  except OSError as error:
    logging.getLogger(__name__).warning(
      '%s: this disk knows no locks (%s): see to it that no other process trains in it', workdir, error.strerror
    )


def _note(file: int, text: str) -> None:
  """Writes down who has the lock; a full disk does not matter."""
  with contextlib.suppress(OSError):
    os.ftruncate(file, 0)
    os.pwrite(file, f'{text}\n'.encode(), 0)
