"""Which class was taken for which: as a table and as a picture."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from resjax.report.letters import drawn
from resjax.telling import cell

if TYPE_CHECKING:
  from matplotlib import figure as mpl_figure

_MOST = 30  # classes in the picture
_LETTERS = 28  # of a name that fit beside them
_NUMBERED = 20  # up to so many classes the cells hold their counts
_INK, _GREY = '#1b2733', '#5c6570'


def distinct(names: Sequence[str]) -> tuple[str, ...]:
  """Returns the names, with its number behind one that several classes have."""
  count = Counter(names)
  return tuple(name if count[name] == 1 else f'{name} ({index})' for index, name in enumerate(names))


def write(matrix: np.ndarray, names: Sequence[str], path: str | os.PathLike[str], *, raw: bool = False) -> None:
  """Writes a CSV file: a row for each class that has images, a column for each that has any or was guessed.

  Args:
    matrix: int `[K, K]`, images by their true class (row) and what they were taken for (column).
    names: By class index.
    path: Of the file.
    raw: Names stand as they are; else as `telling.cell` makes them, for spreadsheets.
  """
  rows, columns = np.flatnonzero(matrix.sum(1)), np.flatnonzero(matrix.sum(0) + matrix.sum(1))
  names = distinct(names) if raw else [cell(name) for name in distinct(names)]
  with open(path, 'w', newline='', encoding='utf-8', errors='backslashreplace') as file:
    writer = csv.writer(file)
    writer.writerow(['true class, taken for:', *(names[k] for k in columns)])
    writer.writerows([names[k], *matrix[k, columns].tolist()] for k in rows)


def draw(matrix: np.ndarray, names: Sequence[str], title: str) -> mpl_figure.Figure:
  """Returns the picture: a row for each true class, coloured by the share of its images.

  Of more classes than fit, those with the most mistakes are shown; what was taken for a class that is not among them
  stands in a last column.

  Args:
    matrix: As of `write`.
    names: By class index.
    title: Stands above.
  """
  there = np.flatnonzero(matrix.sum(1))
  mistakes = matrix.sum(1) - np.diag(matrix)
  shown = np.sort(there[np.argsort(-mistakes[there], kind='stable')][:_MOST])
  cells = matrix[np.ix_(shown, shown)]
  labels, columns = [drawn(distinct(names)[k], _LETTERS) for k in shown], []
  others = matrix[shown].sum(1) - cells.sum(1)
  if others.any():
    cells, columns = np.concatenate([cells, others[:, None]], axis=1), ['another']
  if len(shown) < len(there):
    title += f'; {len(shown)} of {len(there)} classes, those with the most mistakes'
  side = 1.8 + 0.42 * len(shown)
  from matplotlib import figure as mpl_figure  # not before a picture is drawn

  figure = mpl_figure.Figure(figsize=(max(5.0, side + 0.4), max(3.6, side)), dpi=120, layout='constrained')
  axes = figure.add_subplot()
  share = cells / matrix[shown].sum(1, keepdims=True)
  axes.imshow(share, cmap='Blues', vmin=0, vmax=1, aspect='auto')
  axes.set_xticks(
    range(cells.shape[1]), [*labels, *columns], rotation=60, ha='right', rotation_mode='anchor', fontsize=8
  )
  axes.set_yticks(range(len(shown)), labels, fontsize=8)
  axes.set_xlabel('taken for', color=_GREY)
  axes.set_ylabel('true class', color=_GREY)
  axes.tick_params(length=0, colors=_INK)
  axes.spines[:].set_visible(False)
  if len(shown) <= _NUMBERED:
    for (row, column), count in np.ndenumerate(cells):
      if count:
        color = 'white' if share[row, column] > 0.5 else _INK
        axes.text(column, row, f'{count:,}', ha='center', va='center', fontsize=7, color=color)
  figure.suptitle(title, fontsize=9, color=_GREY)
  return figure
