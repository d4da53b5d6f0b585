"""`~` in a path that a user names: the home folder, or a refusal, never a folder of that name."""

import os

__all__ = ['expanded', 'present']


def expanded(path: str | os.PathLike[str], field: str) -> str:
  """Returns a path with the home folder in the place of `~` or `~NAME`.

  Args:
    path: As it was typed; buckets stay as they are.
    field: What messages call it.

  Raises:
    ValueError: There is no such user, or the path holds a null character.
  """
  text = os.fspath(path)
  if '\0' in text:
    raise ValueError(f'{field}: got {text!r}, expected a path without null characters')
  found = os.path.expanduser(text)
  if found.startswith('~') or (text.startswith('~') and os.environ.get('HOME') == ''):  # Python takes '' for /
    raise ValueError(f'{field}: got {text!r}, expected the home of a user; a folder of that name is ./{text}')
  return found


def present(path: str | os.PathLike[str], field: str) -> str:
  """Returns a path as it is where something is called so, such as a file `~a.jpg`; else as of `expanded`."""
  return os.fspath(path) if os.path.lexists(path) else expanded(path, field)
