"""What routers read of calibration images, kept in the workdir: from it any budget's knob follows."""

import contextlib
import io
import json
import operator
import pathlib
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from resjax import checkpoint, checksums, formats
from resjax.inference.engines import Engines
from resjax.inference.origin import Origin
from resjax.inference.programs import Servable
from resjax.resolution import plain
from resjax.routing import Budget, Columns, Dialled, looks
from resjax.routing.dial import at_knob, dialled, mean_cost, reachable

FILE = 'dial.npz'

# Says what it was made on, as JSON in bytes.
_ORIGIN = 'made_on'

_DAMAGES = (ValueError, TypeError, LookupError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)

_END_OF_ZIP = b'PK\x05\x06'

# What is kept of a calibration's columns, beside what other routers look for; the last where there is a predictor.
KEPT = ('energy', 'odds', 'scores')

# Routers that are kept: who asks for many budgets gets the latest ones at once, and the others made anew.
_ROUTERS = 64

# How far the calibration itself may be from a budget before that is worth a note.
_OFF = 0.03


class Calibration:
  """A network's calibration, read when it is first wanted, and the routers that were set by it."""

  def __init__(self, network: Servable, workdir: pathlib.Path | None, note: Callable[[str], None]):
    """Reads nothing yet.

    Args:
      network: What was, or will be, calibrated; of a bundle, the knobs that it came with serve until it is.
      workdir: Where the calibration is kept, made if it is missing: now, so that one that is moved away later is not
        made again; None: nowhere.
      note: Gets a line that the user should read.
    """
    self._network, self._workdir, self._note = network, workdir, note
    if workdir is not None:
      with contextlib.suppress(OSError):  # what is to be written there later tells
        workdir.mkdir(parents=True, exist_ok=True)
    self._columns: Columns | None = None
    self._routers: dict[tuple[str, Budget], Dialled] = {}

  @property
  def columns(self) -> Columns:
    """What routers read of the calibration images: 'odds', those of `routing.looks` and, with a predictor, 'scores'.

    Raises:
      FileNotFoundError: This network has not been calibrated.
      ValueError: The calibration is of another network, or damaged.
    """
    if self._columns is None:
      if self._workdir is None:
        raise FileNotFoundError('calibration: none yet, expected a call of calibrate(images) before a budget')
      self._columns = read(self._workdir, self._network)
    return self._columns

  def check_place(self) -> None:
    """Raises OSError, before any work is done, where new columns could not be kept."""
    if self._workdir is not None:
      try:
        with tempfile.TemporaryFile(dir=self._workdir):
          pass
      except OSError as error:
        raise OSError(f'{self._workdir / FILE}: {error.strerror}; expected a folder that can be written') from error

  def keep(self, columns: Columns, origin: Origin | None = None) -> None:
    """Takes new columns, and writes them where there is a workdir, with what they are of.

    Raises:
      ValueError: The network gave what is no number.
    """
    self._columns = _checked(columns, self._network)
    self._routers.clear()
    if self._workdir is not None:
      write(self._workdir, self._network, self._columns, origin)

  def knob(self, name: str, budget: Budget) -> float | None:
    """Returns the knob that a bundle came with for a router and budget; None: it follows from the calibration.

    Raises:
      FileNotFoundError: There is neither.
      ValueError: The calibration is of another network, or damaged.
    """
    kept = self._columns is not None or (self._workdir is not None and (self._workdir / FILE).is_file())
    knobs = self._network.knobs
    if kept or knobs is None:
      self.columns  # noqa: B018  raises
      return None
    if (name, budget) not in knobs:
      known = ', '.join(other.exact for router, other in knobs if router == name) or 'none'
      raise FileNotFoundError(
        f'budget: got {budget.exact} for router {name!r}, expected one that the bundle was set to, {known}, or '
        f'calibrate it: resjax calibrate IMAGE ... --workdir={self._workdir}'
      )
    return knobs[name, budget]

  def router(self, engines: Engines, name: str, budget: Budget) -> Dialled:
    """Returns a router set to a budget, made once; a note says so where the calibration's own images miss it.

    Raises:
      ValueError: The network has no such router, or the router can't meet the budget.
    """
    if (name, budget) not in self._routers:
      knob = self.knob(name, budget)
      if knob is not None:
        return at_knob(engines.router(name), knob)
      columns, target = self.columns, budget.target(max(self._network.macs))
      router = for_budget(engines, name, columns, budget)
      reached = mean_cost(router, router.read(columns))
      if abs(reached / target - 1) > _OFF:
        self._note(
          f'budget {budget}: on the {len(columns["energy"])} calibration images router {name!r} comes to '
          f'{reached / target:.2f} of it and no nearer; more, or more varied, images would help'
        )
      self._routers[name, budget] = router
      if len(self._routers) > _ROUTERS:
        del self._routers[next(iter(self._routers))]
    return self._routers[name, budget]


def made_with(network: Servable) -> dict[str, Any]:
  """Returns what a calibration depends on besides the weights, as JSON values.

  The dtype is left out: it rounds what is kept, and moves no mean.
  """
  preprocessing = network.preprocessing
  found = {
    'resolutions': [*map(plain, network.resolutions)],
    'predictor': network.predictor and network.predictor.size,
    **{field: getattr(preprocessing, field) for field in ('normalize', 'interpolation', 'crop_fraction')},
  }
  return json.loads(json.dumps(found))  # tuples as the file has them


def write(workdir: pathlib.Path, network: Servable, columns: Columns, origin: Origin | None = None) -> None:
  """Keeps a calibration; the file is replaced at once.

  Args:
    workdir: The run's folder.
    network: That it was made with.
    columns: Those of `KEPT`.
    origin: What they are of.
  """
  path = workdir / FILE
  entries = {'network': network.digest, 'with': json.dumps(made_with(network)), 'format': formats.FORMAT}
  entries |= {} if origin is None else {_ORIGIN: np.frombuffer(origin.to_json().encode(), np.uint8)}
  file = io.BytesIO()
  np.savez_compressed(file, **{name: np.array(entry) for name, entry in (entries | dict(columns)).items()})  # type: ignore[arg-type]
  checksums.write(path, checksums.sealed(file.getvalue()))


def read(workdir: pathlib.Path, network: Servable) -> dict[str, np.ndarray]:
  """Returns the calibration of a network; arguments as of `write`.

  Raises:
    FileNotFoundError: There is none.
    ValueError: It is of another network or other sizes or inputs of it, damaged, or of a newer version.
  """
  path = workdir / FILE
  if not path.is_file():
    raise FileNotFoundError(f'{path}: not there, and a budget needs it; {_advice(workdir)}')
  try:
    entries = _content(path)
    digest, number = str(entries.pop('network', '')), operator.index(entries.pop('format', np.array(0)).item())
    there = dict(json.loads(str(entries.pop('with', '{}'))))  # version 0.1 did not say
  except _DAMAGES as error:
    raise ValueError(f'{path}: damaged ({error}); {_advice(workdir)}') from None
  formats.check(number, path)
  if digest != network.digest:
    raise ValueError(f'{path}: made with other weights, expected those of this checkpoint; {_advice(workdir)}')
  for field, value in made_with(network).items():
    if there.get(field, value) != value:
      raise ValueError(
        f'{path}: made with {field} {there[field]}, expected {value} as this network has; {_advice(workdir)}'
      )
  try:
    return _checked(entries, network)
  except ValueError as error:
    raise ValueError(f'{path}: damaged ({error}); {_advice(workdir)}') from None


def origin(workdir: str | pathlib.Path) -> tuple[Origin | None, int] | None:
  """Returns what the calibration in a workdir was made on, and how many images it has; None where there is none.

  Of one that an older version made, what it was made on is None.

  Raises:
    ValueError: It is damaged.
  """
  path = pathlib.Path(workdir) / FILE
  if not path.is_file():
    return None
  try:
    entries = _content(path)
    made = Origin.of_json(entries[_ORIGIN].tobytes().decode()) if _ORIGIN in entries else None
    return made, len(entries['energy'])
  except _DAMAGES as error:
    raise ValueError(f'{path}: damaged ({error}); {_advice(path.parent)}') from None


def _content(path: pathlib.Path) -> dict[str, np.ndarray]:
  """All that is in the file; one of `_DAMAGES` where it is damaged."""
  content = path.read_bytes()
  if content[-22:-18] != _END_OF_ZIP:  # which older versions wrote nothing behind
    content = checksums.opened(content)
  with np.load(io.BytesIO(content)) as file:
    return dict(file)


def _advice(workdir: pathlib.Path) -> str:
  """What to do where there is no calibration that fits: an imported network has no images of its own."""
  if not (workdir / 'checkpoints').is_dir():  # made by hand
    return 'calibrate first: classifier.calibrate(images)'
  try:
    imported = bool(checkpoint.load_meta(workdir).get('origin'))
  except (ValueError, OSError):
    imported = False
  return f'calibrate first: resjax calibrate {"IMAGE ... " * imported}--workdir={workdir}'


def _checked(columns: Columns, network: Servable) -> dict[str, np.ndarray]:
  """Those columns of `KEPT` that the network's routers read, and those that other routers have looked for.

  Raises:
    ValueError: One is missing, is not of this network's resolutions, or holds no numbers.
  """
  found, count = {}, np.size(columns.get('energy', ()))
  for name in KEPT if network.predictor else KEPT[:-1]:
    shape = (count,) if name == 'energy' else (count, len(network.resolutions))
    column = np.asarray(columns.get(name, ()))
    if not count or column.shape != shape or column.dtype.kind != 'f' or np.isnan(column).any():
      raise ValueError(f'{name}: got {column.dtype} {column.shape}, expected numbers {shape}')
    found[name] = column
  for name in looks().keys() & columns.keys() - set(KEPT):
    column = np.asarray(columns[name])
    if column.shape[:1] != (count,) or column.dtype.kind != 'f' or np.isnan(column).any():
      raise ValueError(f'{name}: got {column.dtype} {column.shape}, expected numbers ({count}, ...)')
    found[name] = column
  return found


def set_to(router: Dialled, columns: Columns, target: float) -> Dialled:
  """Returns a router whose knob is set so that images like the calibration's cost `target` on the mean.

  Raises:
    ValueError: The router can't meet it.
  """
  return dialled(router, router.read(columns), target)


def for_budget(engines: Engines, name: str, columns: Columns, budget: Budget) -> Dialled:
  """Returns a network's router, set so that images like the calibration's meet a budget.

  Raises:
    ValueError: The network has no such router; or as of `met`.
  """
  return met(engines.router(name, columns, timed=budget.timed), columns, budget, max(engines.macs))


def met(router: Dialled, columns: Columns, budget: Budget, largest: float) -> Dialled:
  """Returns a router, whose costs are in the budget's unit, set so that images like the calibration's meet the budget.

  Args:
    router: Not set yet.
    columns: Of the calibration.
    budget: Which.
    largest: Multiply-adds of one image at the largest resolution.

  Raises:
    ValueError: The router can't meet it; limits are in the unit in which it was asked.
  """
  try:
    return set_to(router, columns, budget.target(largest))
  except ValueError:
    low, high = (budget.like(cost, largest) for cost in limits(router, columns))
    raise ValueError(f'budget: got {budget}, expected {low} to {high} with router {router.name!r}') from None


def limits(router: Dialled, columns: Columns) -> tuple[float, float]:
  """Returns the lowest and the highest mean cost that a router can be set to, in the unit of its costs."""
  return reachable(router, router.read(columns))
