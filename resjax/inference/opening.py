"""What a folder holds, opened for inference: the network of a run, or a bundle."""

import pathlib

from resjax import trained
from resjax.exporting import bundle
from resjax.inference.programs import Servable


def opened(folder: str | pathlib.Path, step: int | None = None) -> Servable:
  """Returns a bundle, or a run's network of a step; errors as of `bundle.read` and `trained.load`."""
  if not bundle.is_bundle(folder):
    return trained.load(folder, step=step)
  if step is not None:
    raise ValueError(f'step: got {step} for {folder}, a bundle, expected none')
  return bundle.read(folder)
