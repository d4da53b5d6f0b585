"""The surest of the images that are wrong: named in a CSV file, shown in a picture."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from resjax.report.letters import drawn
from resjax.telling import cell

if TYPE_CHECKING:
  from matplotlib import figure as mpl_figure

_COLUMNS = 5  # images in a row of the picture
_LETTERS = 24  # of a class's name that fit above an image
_WRONG, _GREY = '#c8443c', '#5c6570'

# Of the CSV file, in their order.
FIELDS = ('image', 'label', 'guess', 'probability', 'rank', 'wrong_at')


def surest(
  labels: np.ndarray,
  guesses: np.ndarray,
  ranks: np.ndarray,
  odds: np.ndarray,
  *,
  most: int,
  ways: Sequence[str],
  name_of: Callable[[int], str],
  class_names: Sequence[str],
) -> list[dict[str, Any]]:
  """Returns the images that the first way gets wrong, the surest first.

  Args:
    labels: int `[N]`.
    guesses: int `[N]`, the likeliest class in the first way.
    ranks: int `[N, C]`, the place of the true class in each way, 0 for right; -1: the image could not be read.
    odds: float `[N]`, log-odds of the likeliest class in the first way.
    most: At most so many.
    ways: Names of the ways, such as '224'.
    name_of: Returns what an image is called, from its number among the N.
    class_names: By class index.

  Returns:
    For each image what `FIELDS` names, and its `number` among the N: `rank` is the place of the true class, from 1;
    `wrong_at` the ways in which it is wrong.
  """
  wrong = np.flatnonzero(ranks[:, 0] > 0)
  wrong = wrong[np.argsort(-odds[wrong], kind='stable')][:most]
  return [
    {
      'number': number,
      'image': name_of(number),
      'label': class_names[labels[number]],
      'guess': class_names[guesses[number]],
      'probability': 1 / (1 + math.exp(-float(odds[number]))),
      'rank': int(ranks[number, 0]) + 1,
      'wrong_at': ' '.join(way for way, rank in zip(ways, ranks[number]) if rank > 0),
    }
    for number in wrong.tolist()
  ]


def write(rows: Sequence[dict[str, Any]], path: str | os.PathLike[str], *, raw: bool = False) -> None:
  """Writes a CSV file of what `surest` returns; `raw`: names as they are, else as `telling.cell` makes them."""
  with open(path, 'w', newline='', encoding='utf-8', errors='backslashreplace') as file:
    writer = csv.DictWriter(file, FIELDS, extrasaction='ignore')
    writer.writeheader()
    for row in rows:
      values = row | {'probability': f'{row["probability"]:.6f}'}
      writer.writerow(values if raw else {field: cell(value) for field, value in values.items()})


def draw(rows: Sequence[dict[str, Any]], images: Sequence[np.ndarray], title: str) -> mpl_figure.Figure:
  """Returns a picture of images, each with what it is, what it was taken for and how surely.

  Args:
    rows: As `surest` returns them.
    images: uint8 `[H, W, 3]`, one for each.
    title: Stands above.
  """
  lines = max(1, -(-len(rows) // _COLUMNS))
  from matplotlib import figure as mpl_figure  # not before a picture is drawn

  figure = mpl_figure.Figure(figsize=(2.1 * _COLUMNS, 2.5 * lines + 0.4), dpi=100, layout='constrained')
  axes = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
  for place in axes:
    place.set_axis_off()
  for place, row, image in zip(axes, rows, images):
    place.imshow(image)
    place.set_title(drawn(row['label'], _LETTERS), fontsize=8, color=_GREY, pad=14)
    taken = f'{drawn(row["guess"], _LETTERS)} {100 * row["probability"]:.0f} %'
    place.text(0.5, 1.02, taken, fontsize=8, color=_WRONG, ha='center', va='bottom', transform=place.transAxes)
  figure.suptitle(title, fontsize=9, color=_GREY)
  return figure
