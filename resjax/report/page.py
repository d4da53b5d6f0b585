"""The result page: a study as one HTML file that needs nothing else."""

import base64
import io
import pathlib
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from resjax.report import charts
from resjax.report.table import macs_text

# Larger pictures are JPEG: a page of photographs stays small.
_LARGEST_PNG = 64  # pixels


def render(study: dict[str, Any], pictures: dict[int, np.ndarray]) -> str:
  """Returns the page.

  Args:
    study: As `resjax.measuring.study` returns it, and what the page was made with: `title`, `split`, `command`, `date`,
      `machine`, `dtype`, `versions`, `config`, `changed` and `reported`; the last two may be None.
    pictures: uint8 `[H, W, 3]`, by the numbers that the study's gallery names.
  """
  made = environment()
  made.filters['by_largest_share'] = lambda classes: sorted(classes, key=lambda entry: list(entry[1].values()))
  shown = {
    'accuracy_macs': charts.accuracy(study, 'macs'),
    'accuracy_milliseconds': charts.accuracy(study, 'milliseconds'),
    'shares': charts.shares(study),
    'reliability': charts.reliability(study),
  }
  addresses = {number: data_uri(pixels) for number, pixels in pictures.items()}
  return made.get_template('page.html.j2').render(study=study, charts=shown, pictures=addresses)


def environment() -> jinja2.Environment:
  """Returns what makes pages: the templates of this folder, and how they show numbers."""
  made = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  made.filters |= {'percent': percent, 'macs': macs_text, 'number': '{:,}'.format}
  return made


def percent(fraction: float | None, digits: int = 1) -> str:
  """Returns a fraction in percent without the sign; a dash where there is none."""
  return '–' if fraction is None else f'{100 * fraction:.{digits}f}'


def data_uri(pixels: np.ndarray) -> str:
  """Returns a picture, uint8 `[H, W, 3]`, as an address that holds it: PNG where it is small, else JPEG."""
  kind = 'PNG' if max(pixels.shape[:2]) <= _LARGEST_PNG else 'JPEG'
  out = io.BytesIO()
  Image.fromarray(pixels).save(out, kind, quality=85, optimize=True)
  return f'data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}'
