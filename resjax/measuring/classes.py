"""Which of a network's classes the labels of a source are: by their names, or by their numbers."""

from collections.abc import Sequence

_LISTED = 20  # folders that an error names


def match(known: Sequence[str], names: Sequence[str], where: str) -> tuple[int, ...]:
  """Returns the network's class for each label of a source.

  Names are the same where they differ in case, spaces, dashes and underscores alone. Where some name is no class of the
  network and all are integers, they are numbers of its classes.

  Args:
    known: The network's class names, by class index.
    names: The source's, by label.
    where: What messages call the source.

  Raises:
    ValueError: Names are no classes of the network, and all are listed; or one is the name of several classes.
  """
  if tuple(names) == tuple(known)[: len(names)]:
    return tuple(range(len(names)))
  found: dict[str, list[int]] = {}
  for index, name in enumerate(known):
    found.setdefault(_plain(name), []).append(index)
  unknown = [name for name in names if _plain(name) not in found]
  if not unknown:
    for name in names:
      if len(several := found[_plain(name)]) > 1:
        numbers = ' and '.join(map(str, several))
        raise ValueError(f'{where}: {name!r} is the name of the classes {numbers}, expected folders named by numbers')
    return tuple(found[_plain(name)][0] for name in names)
  if all(name.isdecimal() and int(name) < len(known) for name in names):
    return tuple(map(int, names))
  listed = ', '.join(map(repr, unknown[:_LISTED])) + ', ...' * (len(unknown) > _LISTED)
  raise ValueError(
    f'{where}: {len(unknown)} of {len(names)} folders are no classes of the network: {listed}; expected its class '
    f'names, such as {known[0]!r}, or their numbers, 0 to {len(known) - 1}'
  )


def _plain(name: str) -> str:
  """A name without what is often written otherwise."""
  return ' '.join(name.casefold().replace('_', ' ').replace('-', ' ').split())
