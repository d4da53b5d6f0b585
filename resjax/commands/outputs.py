"""Files that a command is to write: checked before any work is done."""

import os
import pathlib
import stat

# What runs and bundles are read from.
_READ = ('results.json', 'costs.json', 'manifest.json', 'checksums.json')


def check_folder(path: str | pathlib.Path) -> None:
  """Raises FileNotFoundError where there is no folder for a file that is to be written."""
  folder = pathlib.Path(path).absolute().parent
  if not folder.is_dir():
    raise FileNotFoundError(f'{path}: no folder {folder}, expected one to write to')


def check_new_run(path: str) -> None:
  """Checks before any work is done that a new folder can take a network as the workdir of a run.

  Args:
    path: As `--out` has it.

  Raises:
    ValueError: It is in a folder of checkpoints, which would no longer be read, or below what is no folder.
    FileExistsError: There is a run, or what one is read from.
    PermissionError: It can't be written.
  """
  place = pathlib.Path(path).absolute()
  if 'checkpoints' in (parent.name for parent in place.parents):
    raise ValueError(f'--out: got {path}, among the checkpoints of a run, expected a new folder')
  if (place / 'checkpoints').exists() or any((place / name).exists() for name in _READ):
    raise FileExistsError(f'--out: {path} holds a run already, expected a new folder')
  there = next(folder for folder in (place, *place.parents) if os.path.lexists(folder))
  if not there.is_dir():
    raise ValueError(f'--out: got {path}, but {there} is no folder; expected a new folder')
  if not os.access(there, os.W_OK):
    raise PermissionError(f'--out: {there} can not be written to')


def check_writable(path: str | pathlib.Path, begins: bytes = b'{') -> None:
  """Checks before any work is done that a file can be written at the end, and that nothing of others is lost by it.

  Args:
    path: Of the file; one that is there is replaced if it begins as what is written. What is no file, such as
      /dev/stdout, is written to.
    begins: As the file will begin; upper and lower case are the same.

  Raises:
    ValueError: There is something else, such as a photograph, or what a run is read from.
    OSError: It could not be written.
  """
  check_folder(path)
  folder = os.path.dirname(os.path.realpath(path))  # of a link to a file that is not there yet, its
  if not os.path.isdir(folder):
    raise FileNotFoundError(f'{path}: no folder {folder}, expected one to write to')
  place = pathlib.Path(path).absolute()
  try:
    mode = os.stat(place).st_mode
  except FileNotFoundError:
    mode = stat.S_IFREG
  except OSError as error:  # links in a circle
    raise OSError(f'{path}: {error.strerror}, expected a file') from None
  if stat.S_ISDIR(mode):
    raise ValueError(f'{path}: a folder, expected a file')
  if not stat.S_ISREG(mode):
    return
  if not os.access(folder, os.W_OK):
    raise PermissionError(f'{path}: its folder can not be written to')
  if not place.exists():
    return
  with place.open('rb') as file:
    there = file.read(len(begins))
  if place.name in _READ or there.lower() not in (b'', begins.lower()):
    raise ValueError(f'{path}: holds something else, expected a new file, or one that this command wrote before')
