"""Exported files without resjax: how many photographs with a known class they get right, at each resolution.

  pip install onnxruntime numpy pillow                      # for a folder of ONNX files, or a bundle
  pip install jax flatbuffers pillow                        # for files of StableHLO
  python benchmarks/exported.py LABELS.csv FOLDER|FILE ...

LABELS.csv has a line for each image, below one of titles: its file, from the folder of LABELS.csv, and its class index.
Every image is cropped at the resolution itself, as `resjax predict --resolution=R` crops it; one StableHLO file of
several resolutions takes crops of the largest. Bilinear, crop fraction 0.875.
"""

import csv
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageOps

BATCH, FRACTION = 16, 0.875


def crop(path: pathlib.Path, size: int) -> np.ndarray:
  """The centre of an image whose shorter side is int(size / FRACTION): uint8 [size, size, 3]."""
  image = ImageOps.exif_transpose(Image.open(path)).convert('RGB')
  short = int(size / FRACTION)
  wide = image.width >= image.height
  w, h = (int(short * image.width / image.height), short) if wide else (short, int(short * image.height / image.width))
  left, top = round((w - size) / 2), round((h - size) / 2)
  return np.asarray(image.resize((w, h), Image.Resampling.BILINEAR))[top : top + size, left : left + size]


def models(path: pathlib.Path) -> Iterator[tuple[str, int, Callable[[np.ndarray], Any]]]:
  """What a file or folder holds: names, sizes of crops, functions of crops."""
  if path.suffix == '.stablehlo':
    import jax
    from jax import export

    exported = export.deserialize(bytearray(path.read_bytes()))
    call, size = jax.jit(exported.call), exported.in_avals[-1].shape[1]
    if len(exported.in_avals) == 1:
      yield path.name, size, call
      return
    for place in range(5):
      yield f'{path.name}, place {place}', size, lambda crops, place=place: call(np.int32(place), crops)
    return
  import onnxruntime

  files = [path] if path.is_file() else sorted(path.glob('[0-9]*.onnx'), key=lambda file: -int(file.stem))
  for file in files:
    session = onnxruntime.InferenceSession(str(file))
    yield file.name, int(file.stem), lambda crops, session=session: session.run(None, {'crops': crops})[0]


def main() -> None:
  """Prints a line for each model."""
  labels, *paths = map(pathlib.Path, sys.argv[1:])
  with labels.open(newline='') as file:
    images = [(labels.parent / row[0], int(row[1])) for row in list(csv.reader(file))[1:]]
  for path in paths:
    for name, size, call in models(path):
      right = 0
      for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        logits = np.asarray(call(np.stack([crop(file, size) for file, _ in part])))
        right += int((logits.argmax(-1) == [index for _, index in part]).sum())
      print(f'{path.name}: {name}: {right} of {len(images)}', flush=True)


if __name__ == '__main__':
  main()
