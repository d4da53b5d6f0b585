"""A run that goes on with another config: what may change, and what is the network's own or over."""

from collections.abc import Mapping, Sequence
from typing import Any

Changed = Mapping[str, tuple[Any, Any]]

# Sections and fields that say what the variables are and what they mean.
NETWORK = (
  'method',
  'resolutions',
  'widths',
  'private',
  'shared_batch_norm',
  'model.name',
  'model.num_classes',
  'model.width',
  'model.inner',
  'model.quantise',
  'data.normalize',
  'drnet.predictor',
)

# Those that say how a run began.
START = ('init', 'model.zero_init_last_gamma', 'drnet.start', 'drnet.checkpoint', 'drnet.pretrain')


def among(field: str, names: Sequence[str]) -> bool:
  """Whether a field is one of some, or in a section that is."""
  return any(field == name or field.startswith(name + '.') for name in names)


def of_network(changed: Changed) -> dict[str, tuple[Any, Any]]:
  """Returns the changed fields that no run can go on with."""
  return {field: values for field, values in changed.items() if among(field, NETWORK + START)}


def lines(changed: Changed) -> list[str]:
  """Returns a line for each field with a value there and another one here."""
  return [f'config.{field}: {old!r} there, {new!r} here' for field, (old, new) in changed.items()]


def check(changed: Changed, where: str) -> None:
  """Refuses to extend a run to another network.

  Args:
    changed: As of `stored.changed`.
    where: What messages call the stored run.

  Raises:
    ValueError: Fields of the network or of the start differ; all are named.
  """
  if refused := of_network(changed):
    raise ValueError(
      f'{where} holds another network, or one with another start ({"; ".join(lines(refused))}): expected the same with '
      '--extend, or another --workdir (--config.init.checkpoint takes the weights along)'
    )
