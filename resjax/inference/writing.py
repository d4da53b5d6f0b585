"""Predictions as CSV, JSON lines or Parquet: a file is complete, or it is not there."""

import contextlib
import csv
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from resjax import telling
from resjax.inference.predictions import Prediction
from resjax.resolution import name

FORMATS = ('csv', 'jsonl', 'parquet')

# How files of each begin.
BEGINS = {'csv': b'image,class_index,', 'jsonl': b'{"image": ', 'parquet': b'PAR1'}

Write = Callable[[Prediction], None]

_FIELDS = ('image', 'class_index', 'label', 'probability', 'resolution', 'macs', 'error')


def format_of(path: str | None, named: str | None) -> str:
  """Returns the format that is named, or else that of a file's ending.

  Raises:
    ValueError: Neither says one, or Parquet is wanted where it can't be written.
  """
  kind = named or pathlib.Path(path or '').suffix.removeprefix('.').lower()
  if kind not in FORMATS:
    raise ValueError(f'--output: got {path}, expected a name ending in .{", .".join(FORMATS)}, or --format beside it')
  if kind == 'parquet':
    if path is None:
      raise ValueError('--format: got parquet without a file, expected --output=FILE beside it')
    try:
      import pyarrow.parquet  # noqa: F401
    except ImportError:
      raise ValueError("--format: got parquet, which needs pyarrow: pip install 'resjax[parquet]'") from None
  return kind


@contextlib.contextmanager
def writer(path: str | None, kind: str, top_k: int = 1, *, raw: bool = False) -> Iterator[Write]:
  r"""Yields what writes a prediction.

  What is written stands beside the file, under another name, until it is complete; then it takes the file's place. What
  is no file, such as /dev/stdout, is written to as it is. What UTF-8 has no bytes for, as in names that are none, is
  written as `\udce9`. A prediction that can't be written becomes a row with an error.

  Args:
    path: Of the file; None: standard output.
    kind: One of `FORMATS`.
    top_k: Classes of each prediction. Above 1 a CSV has columns `label_2` and so on, the others a list `top`.
    raw: A CSV has names as they are; else as `telling.cell` makes them, for spreadsheets.

  Raises:
    OSError: The file can't be written.
  """
  if path is None:
    with _rows(sys.stdout, kind, top_k, raw) as write:
      yield _guarded(write)
    return
  target = pathlib.Path(path).resolve()
  if target.exists() and not target.is_file():
    with _opened(target) as file, _rows(file, kind, top_k, raw) as write:
      yield _guarded(write)
    return
  beside = target.with_name(f'.{target.name}.{os.getpid()}.tmp')
  try:
    if kind == 'parquet':
      with _parquet(beside, top_k) as write:
        yield _guarded(write)
    else:
      with _opened(beside) as file, _rows(file, kind, top_k, raw) as write:
        yield _guarded(write)
    beside.replace(target)
  finally:
    beside.unlink(missing_ok=True)


def _opened(path: pathlib.Path) -> TextIO:
  """A file to write text to."""
  return path.open('w', newline='', encoding='utf-8', errors='backslashreplace')


def _guarded(write: Write) -> Write:
  """What writes a prediction, or why it could not be written."""

  def one(p: Prediction) -> None:
    try:
      write(p)
    except (ValueError, TypeError, csv.Error) as error:
      write(Prediction(ascii(p.image)[1:-1], error=f'can not be written ({telling.one_line(error)})'))

  return one


@contextlib.contextmanager
def _rows(file: TextIO, kind: str, top_k: int, raw: bool) -> Iterator[Write]:
  """Writes line by line."""
  if kind == 'jsonl':
    yield lambda p: print(json.dumps(_nested(p, top_k), ensure_ascii=False), file=file)
    return
  more = [f'{field}_{place}' for place in range(2, top_k + 1) for field in ('class_index', 'label', 'probability')]
  rows = csv.DictWriter(file, [*_FIELDS, *more], lineterminator='\r\n' if file is not sys.stdout else '\n')
  rows.writeheader()
  shown = (lambda value: value) if raw else telling.cell

  def write(p: Prediction) -> None:
    row = _row(p) | dict(zip(more, [value for guess in p.top[1:] for value in guess]))
    rows.writerow({field: shown(value) for field, value in row.items()})

  yield write


@contextlib.contextmanager
def _parquet(path: pathlib.Path, top_k: int) -> Iterator[Write]:
  """Writes a table when all its rows are known."""
  import pyarrow
  import pyarrow.parquet

  guess = {'class_index': pyarrow.int64(), 'label': pyarrow.string(), 'probability': pyarrow.float64()}
  fields = {'image': pyarrow.string(), **guess, 'resolution': pyarrow.string(), 'macs': pyarrow.float64()}
  fields |= {'error': pyarrow.string()}
  if top_k > 1:
    fields['top'] = pyarrow.list_(pyarrow.struct(list(guess.items())))
  rows: list[Any] = []
  kind = pyarrow.struct(list(fields.items()))
  yield lambda p: rows.append(pyarrow.scalar(_utf8(_nested(p, top_k)), kind))  # raises where a value does not fit
  table = pyarrow.Table.from_struct_array(pyarrow.array(rows, kind))
  pyarrow.parquet.write_table(table, path)


def _utf8(value: Any) -> Any:
  """A value with text that UTF-8 has bytes for."""
  if isinstance(value, str):
    return telling.utf8(value)
  if isinstance(value, list):
    return [_utf8(one) for one in value]
  return {key: _utf8(one) for key, one in value.items()} if isinstance(value, dict) else value


def _row(p: Prediction) -> dict[str, Any]:
  """A prediction by column."""
  values = {field.name: getattr(p, field.name) for field in dataclasses.fields(p) if field.name != 'top'}
  return values | {'resolution': None if p.resolution is None else name(p.resolution)}


def _nested(p: Prediction, top_k: int) -> dict[str, Any]:
  """The same, with its likeliest classes as a list where more than one was asked for."""
  return _row(p) | ({'top': [guess._asdict() for guess in p.top]} if top_k > 1 else {})
