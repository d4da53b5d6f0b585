"""What routers read of calibration images, kept in the workdir: from it any budget's knob follows."""

import hashlib
import pathlib
import re
import zipfile
import zlib

import jax
import numpy as np

from resjax import dial
from resjax.switchable import Variables

FILE = 'dial.npz'

# What is kept of a calibration's columns.
KEPT = ('odds', 'energy', 'scores')

Table = dict[str, np.ndarray]


def network_of(variables: Variables) -> str:
  """Returns a digest of all weights and statistics: what a calibration belongs to."""
  digest = hashlib.sha256()
  for name, leaf in jax.tree.leaves_with_path(variables):
    digest.update(jax.tree_util.keystr(name).encode() + np.asarray(leaf).tobytes())
  return digest.hexdigest()


def write(workdir: pathlib.Path, network: str, table: Table) -> None:
  """Keeps a calibration; the file is replaced at once.

  Args:
    workdir: The run's folder.
    network: As `network_of` says of the variables that it was made with.
    table: Columns of `KEPT`.
  """
  path = workdir / FILE
  part = path.with_suffix('.part')
  with part.open('wb') as file:
    np.savez_compressed(file, network=network, **table)
  part.replace(path)


def read(workdir: pathlib.Path, network: str) -> Table:
  """Returns the calibration of a network; arguments as of `write`.

  Raises:
    FileNotFoundError: There is none.
    ValueError: It is of other weights, or damaged.
  """
  path = workdir / FILE
  advice = f'calibrate first: resjax calibrate --workdir={workdir}'
  if not path.is_file():
    raise FileNotFoundError(f'{path}: not there, and a budget needs it; {advice}')
  try:
    with np.load(path) as file:
      table = dict(file)
    made_for = str(table.pop('network', ''))
  except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
    raise ValueError(f'{path}: damaged ({error}); {advice}') from None
  if made_for != network:
    raise ValueError(f'{path}: made with other weights, expected those of this checkpoint; {advice}')
  return table


def column(router: dial.Router, table: Table, reference: Table) -> np.ndarray:
  """Returns what a router reads of the images of a table.

  Args:
    router: Any but 'random' reads what `routing.Network.columns` has found.
    table: Of N images.
    reference: The calibration: an image's detail is its rank there.
  """
  if router.name == 'random':
    return even_draws(len(table['energy']))
  if router.name == 'detail':
    return dial.ranks_within(table['energy'], reference['energy'])
  return table[dial.COLUMNS[router.name]]


def even_draws(count: int) -> np.ndarray:
  """Returns what 'random' reads of so many images: numbers evenly over 0..1, in an order of its own."""
  return np.random.default_rng(0).permutation((np.arange(count) + 0.5) / count)


def dialled(router: dial.Router, table: Table, target: float) -> dial.Router:
  """Returns a router whose knob is set so that images like the calibration's cost `target` on the mean.

  Raises:
    ValueError: The router can't meet it.
  """
  return dial.dialled(router, column(router, table, table), target)


def follower(router: dial.Router, table: Table, target: float) -> dial.Follower:
  """Returns the router as one that keeps the images to come on the target, see `dial.Follower`."""
  return dial.Follower(router, column(router, table, table), target)


def reachable(router: dial.Router, table: Table) -> tuple[float, float]:
  """Returns the lowest and the highest mean cost that a router can be dialled to, in the unit of its costs."""
  return dial.reachable(router, column(router, table, table))


def parse_budget(budget: float | str, largest: float) -> tuple[float, bool]:
  """Returns a budget's number and whether it is in milliseconds; else it is in multiply-adds.

  Args:
    budget: At most 1, a share of `largest`; above, multiply-adds; as text such as '12ms', milliseconds.
    largest: Multiply-adds of one image at the largest resolution.

  Raises:
    ValueError: It is none of these.
  """
  text = str(budget).strip()
  match = re.fullmatch(r'([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(ms)?', text)
  try:
    number = float(match[1]) if match else 0.0
  except ValueError:
    number = 0.0
  if not 0 < number < float('inf'):
    raise ValueError(
      f"budget: got {budget!r}, expected a share such as 0.6, multiply-adds such as 9e8, or milliseconds such as '12ms'"
    )
  if match[2]:
    return number, True
  return (number * largest if number <= 1 else number), False
