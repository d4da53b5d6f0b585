"""What the benchmarks' figures depend on, and how tables of docs/ show them."""

import importlib.metadata
import os
import pathlib
import platform
import shlex
import sys
from typing import Any

Figures = dict[str, Any]


def versions(*packages: str) -> dict[str, str]:
  """Returns the versions of those packages that are there."""
  found = {}
  for package in packages:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def described(*packages: str) -> Figures:
  """Returns the command that this process is, the machine, and versions of Python and of packages that are there.

  Of a path that begins at the root the last part stands for all.
  """
  from resjax.inference.runtime import processor

  arguments = [pathlib.PurePath(a).name if a.startswith('/') else a for a in sys.argv[1:] if '--json' not in a]
  processors = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  return {
    'command': ' '.join(['python', f'benchmarks/{pathlib.Path(sys.argv[0]).name}', *map(shlex.quote, arguments)]),
    'machine': f'{processors} processor{"s" * (processors != 1)} of {processor()}',
    'versions': {'Python': platform.python_version(), **versions(*packages)},
  }


def heading(figures: Figures) -> list[str]:
  """Returns the lines above a table: command, machine, versions, and what else is to be told."""
  versions = ', '.join(f'{name} {version}' for name, version in figures['versions'].items())
  more = f'; {figures["note"]}' if figures.get('note') else ''
  return ['', f'`{figures["command"]}`:', '', f'{figures["machine"]}; {versions}{more}.']


def spread(found: dict[str, float], scale: float = 1, digits: int = 0) -> str:
  """Returns a median with the quartiles: '1,250 [1,240, 1,260]'."""
  median, low, high = (f'{found[name] * scale:,.{digits}f}' for name in ('median', 'low', 'high'))
  return f'{median} [{low}, {high}]'


def table(head: str, rows: list[list[str]]) -> list[str]:
  """Returns a table's lines, none where it has no rows."""
  if not rows:
    return []
  return ['', f'| {head} |', '|' + '---|' * len(rows[0]), *(f'| {" | ".join(row)} |' for row in rows)]
