"""What folders of images hold: classes, and files."""

from absl import logging
from etils import epath

from resjax.data.decode import suffixes

__all__ = ['classes_in', 'images_in']


def classes_in(folder: epath.Path) -> tuple[str, ...]:
  """Returns the class folders of a split, sorted."""
  names = (entry.name for entry in folder.iterdir() if entry.is_dir())
  return tuple(sorted(name for name in names if not name.startswith('.')))


def images_in(folder: epath.Path) -> list[str]:
  """Returns the image files of a folder, sorted; others are named in the log.

  Raises:
    ValueError: There are none.
  """
  names = sorted(p.name for p in folder.iterdir() if not p.name.startswith('.'))
  images = [name for name in names if name.lower().endswith(suffixes())]
  if not images:
    raise ValueError(f'{folder}: no images, expected files named {", ".join(suffixes())}')
  if len(images) < len(names):
    other = next(name for name in names if name not in set(images))
    logging.warning(
      '%s: %d entries are no image files and not used, such as %s',
      folder,
      len(names) - len(images),
      other,
    )
  return images
