"""Which images stand for a group of many, and a picture of images by the resolution that a router sent them to."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from resjax.resolution import Resolution, plain

_COLUMNS = 10  # images of each resolution
_RIGHT, _WRONG, _GREY = '#2e8b6f', '#c8443c', '#5c6570'


def row(
  kind: str,
  place: int,
  pixels: Resolution,
  inside: np.ndarray,
  order: np.ndarray,
  most: int,
  describe: Callable[[int, int], dict[str, Any]],
) -> dict[str, Any]:
  """Returns `{'kind', 'pixels', 'count', 'images': [...]}`: the first images of a group, and how many it has.

  Args:
    kind: What the group is, for who draws it.
    place: Of the resolution that it is about, 0 for the highest.
    pixels: That resolution.
    inside: bool `[N]`, the group.
    order: `[N]`, the lowest come first.
    most: Images in the row.
    describe: Of an image's number among the N, and `place`; with `number` in the source, and `right`.
  """
  rows = np.flatnonzero(inside)
  rows = rows[np.argsort(order[rows], kind='stable')][:most]
  images = [describe(int(i), place) for i in rows]
  return {'kind': kind, 'pixels': plain(pixels), 'count': int(inside.sum()), 'images': images}


def sent(
  table: Mapping[str, np.ndarray], numbers: np.ndarray, resolutions: Sequence[Resolution]
) -> list[dict[str, Any]]:
  """Returns rows of a gallery: a few images of each resolution that the predictor sent there, drawn at random.

  Args:
    table: Of N images: `scores` and `ranks` `[N, R]`, and `needed` `[N]` pixels where that is known.
    numbers: `[N]`, the images' numbers in their source.
    resolutions: Highest first.
  """
  choice = table['scores'].argmax(1)
  order = np.random.default_rng(0).permutation(len(choice)).argsort()
  needed = table.get('needed')

  def describe(i: int, place: int) -> dict[str, Any]:
    caption = '' if needed is None else f'needs {needed[i]}'
    return {'number': int(numbers[i]), 'caption': caption, 'right': bool(table['ranks'][i, place] == 0)}

  return [
    row('sent', place, resolution, choice == place, order, _COLUMNS, describe)
    for place, resolution in enumerate(resolutions)
  ]


def gallery(images: Mapping[int, np.ndarray], rows: Sequence[dict[str, Any]], path: str | os.PathLike[str]) -> None:
  """Saves one row of images per resolution, each framed green where the network was right there and red where wrong.

  Args:
    images: uint8 `[H, W, 3]` by number.
    rows: As `row` makes them, with a `caption` for each image; a row may be empty.
    path: File to write; its ending chooses the format.
  """
  from matplotlib import figure as mpl_figure  # not before a picture is drawn

  columns = max(1, *(len(row['images']) for row in rows))
  figure = mpl_figure.Figure(figsize=(0.9 * columns + 1, 1.15 * len(rows) + 0.4), dpi=150, layout='constrained')
  axes = figure.subplots(len(rows), columns, squeeze=False)
  for line, row in zip(axes, rows):
    line[0].set_ylabel(f'{row["pixels"]} px', rotation=0, ha='right', va='center', fontweight='bold')
    for number, place in enumerate(line):
      place.set(xticks=[], yticks=[])
      place.spines[:].set_visible(number < len(row['images']))
      if number < len(row['images']):
        entry = row['images'][number]
        place.imshow(images[entry['number']], interpolation='nearest')
        place.spines[:].set(color=_RIGHT if entry['right'] else _WRONG, linewidth=2)
        place.set_xlabel(entry['caption'], fontsize=7, color=_GREY, labelpad=2)
    if not row['images']:
      line[0].text(0, 0.5, 'none', color=_GREY, transform=line[0].transAxes)
  figure.suptitle('Sent to each resolution; green: right there, red: wrong', fontsize=9, color=_GREY)
  figure.savefig(path)
