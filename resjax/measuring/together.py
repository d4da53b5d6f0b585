"""Several networks scored as one: the mean of what each says of an image, from crops made as each wants them."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from resjax.inference.runtime import Makes
from resjax.inference.runtimes.xla import XlaRuntime
from resjax.measuring.evaluation import ENSEMBLE, Evaluation, Runners, evaluated
from resjax.network import Network

MEANS = ('logits', 'probabilities')


def evaluate(
  networks: Sequence[Network],
  names: Sequence[str],
  source: Any,
  classes: Sequence[int] | None = None,
  *,
  mean: str = 'logits',
  max_batch: int = 64,
  threads: int | None = None,
  runtime: Makes = XlaRuntime,
  seen: Callable[[int], None] = lambda count: None,
) -> Evaluation:
  """Returns what networks say of every image of a source: all together first, then each by its name.

  A network of several resolutions answers as their ensemble.

  Args:
    networks: Of the same classes in the same order.
    names: Of the networks; the ways of what is returned are 'ensemble' and these.
    source: As of `evaluation.evaluate`, and so are all that follow, but for `mean`.
    classes: See there.
    mean: Of what the ensemble's answer is the plain mean: 'logits', as in RS-Net's ensemble where all weights are
      equal, or 'probabilities'.
    max_batch: See there.
    threads: See there.
    runtime: See there.
    seen: See there.

  Raises:
    ValueError: As there; or the classes of one are not those of the first, or a name stands twice.
  """
  together = _Together(networks, names, mean, runtime, max_batch)
  return evaluated(together, source, classes, threads=threads, seen=seen)


class _Together:
  """Networks beside each other, see `evaluation.Runs`."""

  network: Network | None = None

  def __init__(self, networks: Sequence[Network], names: Sequence[str], mean: str, runtime: Makes, max_batch: int):
    if mean not in MEANS:
      raise ValueError(f'mean: got {mean!r}, expected one of {", ".join(MEANS)}')
    self.ways = (ENSEMBLE, *names)
    if double := [name for place, name in enumerate(self.ways) if name in self.ways[:place]]:
      raise ValueError(f'networks: {double[0]} stands twice, expected a name for each')
    check_classes(networks, names)
    self.class_names, self._mean = networks[0].class_names, mean
    self._members = [Runners(network, runtime, max_batch) for network in networks]
    each = [member.macs[-1] for member in self._members]
    self.macs = (sum(each), *each)
    self.size = min(member.size for member in self._members)
    self._ends = list(itertools.accumulate(member.row for member in self._members))

  def flat(self, image: bytes | np.ndarray) -> np.ndarray:
    """Returns the crops of all members, one row an image."""
    return np.concatenate([member.flat(image) for member in self._members])

  def run(self, rows: np.ndarray) -> tuple[np.ndarray, None]:
    """Returns what `Runs` says; of probabilities their logarithms stand for logits."""
    parts = np.split(rows, self._ends[:-1], axis=1)
    each = np.stack([member.run(part)[0][-1] for member, part in zip(self._members, parts, strict=True)])
    if self._mean == 'logits':
      return np.concatenate([each.mean(0)[None], each]), None
    log_p = each - np.logaddexp.reduce(each, axis=-1, keepdims=True)
    mean = np.logaddexp.reduce(log_p, axis=0) - np.log(len(each))
    return np.concatenate([mean[None], each]), None


def check_classes(networks: Sequence[Network], names: Sequence[str]) -> None:
  """Raises ValueError unless networks, called by these names, have the same classes in the same order."""
  first = networks[0].class_names
  for network, name in zip(networks, names, strict=True):
    ours = network.class_names
    if len(ours) != len(first):
      raise ValueError(f'{name}: {len(ours)} classes, expected {len(first)} as in {names[0]}')
    for place, (one, other) in enumerate(zip(first, ours)):
      if one != other:
        raise ValueError(f'{name}: class {place} is {other!r}, expected {one!r} as in {names[0]}')
