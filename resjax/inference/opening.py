"""What a folder holds, opened for inference: the network of a run, or a bundle."""

import dataclasses
import pathlib

from resjax import trained
from resjax.exporting import bundle
from resjax.inference.programs import Servable


def opened(folder: str | pathlib.Path, step: int | None = None, max_pixels: int | None = None) -> Servable:
  """Returns a bundle, or a run's network of a step, `limited`; errors as of `bundle.read` and `trained.load`."""
  if not bundle.is_bundle(folder):
    return limited(trained.load(folder, step=step), max_pixels)
  if step is not None:
    raise ValueError(f'step: got {step} for {folder}, a bundle, expected none')
  return limited(bundle.read(folder), max_pixels)


def limited(network: Servable, max_pixels: int | None) -> Servable:
  """Returns a network, or a bundle, that refuses images of more pixels; None: as it is."""
  if max_pixels is None:
    return network
  preprocessing = dataclasses.replace(network.preprocessing, max_pixels=max_pixels)
  return dataclasses.replace(network, preprocessing=preprocessing)  # type: ignore[type-var]
