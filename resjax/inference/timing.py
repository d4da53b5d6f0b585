"""The cost table: seconds of every program, measured once on this machine and kept in a file."""

import dataclasses
import json
import logging
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from resjax import checksums, formats
from resjax.inference.runtime import Runtime
from resjax.resolution import plain

REPEATS = 3
# A program that is expected to take longer is not run: smaller buckets tell its cost, in proportion.
LONGEST = 1.0  # seconds


class Costs(NamedTuple):
  """What every program takes."""

  seconds: np.ndarray  # [R, S], of one call at each resolution, highest first, and of each bucket
  measured: np.ndarray  # bool [R, S]; False: in proportion to the best bucket that was measured


def costs(runtime: Runtime, buckets: Sequence[int], path: str | os.PathLike | None = None) -> Costs:
  """Returns the cost table of a runtime whose programs are compiled.

  Args:
    runtime: Its programs of these buckets are run, from crops that are put to logits on the host.
    buckets: Ascending sizes.
    path: A JSON file of tables, by what their numbers depend on; a table that is not in it is measured and added.
      None: measured.

  Raises:
    ValueError: The file is none of these.
  """
  if path is None:
    return measure(runtime, buckets)
  key = {**dataclasses.asdict(runtime.identity), 'resolutions': [*map(plain, runtime.resolutions)], 'buckets': buckets}
  key = json.loads(json.dumps(key))  # tuples as the file has them
  tables = _read(pathlib.Path(path))
  for table in tables:
    if table['of'] == key:
      return Costs(plausible(np.array(table['seconds'])), np.array(table['measured']))
  found = measure(runtime, buckets)
  tables.append({'of': key, 'seconds': found.seconds.tolist(), 'measured': found.measured.tolist()})
  _write(pathlib.Path(path), tables)
  return found


def measure(runtime: Runtime, buckets: Sequence[int], *, repeats: int = REPEATS, longest: float = LONGEST) -> Costs:
  """Measures every program: the fastest of a few calls, in turns over all programs, after a first that is not counted.

  What else runs on the machine makes calls slower, never faster; the turns let a busy while touch every program.

  Args:
    runtime: Its programs of these buckets are compiled.
    buckets: Ascending sizes; the smallest is always measured.
    repeats: Calls that count.
    longest: Seconds; a bucket whose call is expected to take longer, by the one before it, is not run. Its images
      cost what they cost in the best bucket that was.
  """
  crops = np.random.default_rng(0).integers(0, 256, (buckets[-1], *runtime.shape), np.uint8)
  places = range(len(runtime.resolutions))
  calls: dict[tuple[int, int], list[float]] = {}
  for place in places:
    expected = 0.0
    for bucket in buckets:
      if expected * bucket > longest:
        break
      expected = min(_call(runtime, crops, place, bucket) for _ in range(2)) / bucket
      calls[place, bucket] = []
  for _ in range(repeats):
    for place, bucket in calls:
      calls[place, bucket].append(_call(runtime, crops, place, bucket))
  measured = np.array([[(place, bucket) in calls for bucket in buckets] for place in places])
  image = np.full(measured.shape, np.inf)
  for place, bucket in calls:
    image[place, buckets.index(bucket)] = min(calls[place, bucket]) / bucket
  image = np.where(measured, image, image.min(1, keepdims=True))
  return Costs(plausible(image * np.array(buckets)), measured)


def plausible(seconds: np.ndarray) -> np.ndarray:
  """Returns a cost table without what a busy machine explains better than the programs do.

  Taken for granted is that a program which does less takes no longer: at a lower resolution, or in a smaller bucket.

  Args:
    seconds: `[R, S]`, highest resolution first, ascending buckets.
  """
  lower = np.minimum.accumulate(seconds, axis=0)
  return np.minimum.accumulate(lower[:, ::-1], axis=1)[:, ::-1]


def _call(runtime, crops, place, bucket):
  """Seconds of one program, from crops that are put to logits on the host."""
  batch = runtime.put(crops[:bucket])
  begin = time.perf_counter()
  np.asarray(runtime.dispatch(batch, place, bucket, np.arange(bucket)))
  return time.perf_counter() - begin


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
  """The tables of a file; none where it is not there, not for this user, or of a version that kept others."""
  try:
    content = path.read_bytes()
  except OSError:
    return []
  try:
    if content.startswith(b'['):  # of version 0.1, whose tables say less of what they are of
      return []
    stored = checksums.of_json(content)
    number, tables = stored['format'], stored['tables']
    for table in tables if number == formats.FORMAT else ():
      shape = (len(table['of']['resolutions']), len(table['of']['buckets']))
      seconds, measured = np.array(table['seconds'], float), np.array(table['measured'])
      if seconds.shape != shape or measured.shape != shape or measured.dtype != bool:
        raise ValueError('a table of another shape')
      if not (np.isfinite(seconds) & (seconds > 0)).all():
        raise ValueError('a time that is no positive number')
  except (ValueError, KeyError, TypeError) as error:
    reason = f'{type(error).__name__}: {error}'
    raise ValueError(
      f'{path}: not a file of cost tables ({reason}), expected one written by resjax; delete it'
    ) from error
  formats.check(number, path)
  return tables


def _write(path: pathlib.Path, tables: list[dict[str, Any]]) -> None:
  """Replaces the file at once, so that no reader sees half of it; where that fails, the next start measures again."""
  try:
    checksums.write(path, checksums.to_json({'format': formats.FORMAT, 'tables': tables}, indent=1))
  except OSError as error:
    logging.getLogger(__name__).warning('cost table not kept: %s', error)
