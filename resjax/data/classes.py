"""Which of a network's classes folders are: by their names, or by their numbers."""

from collections.abc import Sequence

from absl import logging

from resjax.telling import distinct

__all__ = ['labels_of']

_LISTED = 20  # folders that an error names


def labels_of(folders: Sequence[str], class_names: Sequence[str], where: str) -> list[int]:
  """Returns the labels that class folders stand for: by the names of the classes, else by their numbers.

  Names are the same where they differ in case, spaces, dashes and underscores alone. As many folders as there are
  classes, none called as one, are taken in their order, as ImageNet's `n01440764`; that is logged.

  Args:
    folders: Their names.
    class_names: By label.
    where: What messages call their place.

  Raises:
    ValueError: There are none; or some have a name that is no class's, or that of several, and all are listed.
  """
  if not folders:
    raise ValueError(f'{where}: no class folders, expected {where}/<class>/*.jpg')
  if list(folders) == list(class_names):
    return list(range(len(folders)))
  known: dict[str, list[int]] = {}
  for label, name in enumerate(class_names):
    known.setdefault(_plain(name), []).append(label)
  found = [known.get(_plain(name), []) for name in folders]
  if all(len(labels) == 1 for labels in found):
    return [label for (label,) in found]
  numbers = [int(name) if name.isdecimal() and int(name) < len(class_names) else None for name in folders]
  if None not in numbers:
    return [number for number in numbers if number is not None]
  if not any(found) and not any(number is not None for number in numbers) and len(folders) == len(class_names):
    logging.warning('%s: %d folders are taken for the classes in their order', where, len(folders))
    return list(range(len(folders)))
  wrong = [(name, len(labels)) for name, labels in zip(folders, found) if len(labels) != 1]
  listed = ', '.join(
    distinct(name, class_names) + f' (the name of {count} classes)' * (count > 1) for name, count in wrong[:_LISTED]
  )
  listed += ', ...' * (len(wrong) > _LISTED)
  raise ValueError(
    f'{where}: {len(wrong)} of {len(folders)} folders are no class of the network: {listed}; expected all called by '
    f'the names of its classes, such as {class_names[0]!r}, or all by their numbers, 0 to {len(class_names) - 1}'
  )


def _plain(name: str) -> str:
  """A name without what is often written otherwise."""
  return ' '.join(name.casefold().replace('_', ' ').replace('-', ' ').split())
