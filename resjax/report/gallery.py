"""A picture of images by the resolution that a router sent them to."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import figure as mpl_figure

_RIGHT, _WRONG, _GREY = '#2e8b6f', '#c8443c', '#5c6570'


def gallery(images: Mapping[int, np.ndarray], rows: Sequence[dict[str, Any]], path: str | os.PathLike[str]) -> None:
  """Saves one row of images per resolution, each framed green where the network was right there and red where wrong.

  Args:
    images: uint8 `[H, W, 3]` by number.
    rows: As `resjax.measuring.gallery.row` makes them, with a `caption` for each image; a row may be empty.
    path: File to write; its ending chooses the format.
  """
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
