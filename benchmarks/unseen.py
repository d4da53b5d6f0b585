"""Accuracy at sizes that the network was not trained at, by what its BatchNorm is there.

Every image of the evaluation split is scored at every multiple of --step from the smallest trained size (or --lowest,
for a network of one size, an I-Net) to 1.25 times the largest, and at the trained sizes, each crop made from the full
image; --crop-fraction says how much of it, that is, how large things look. BatchNorm is that of the nearest trained
one, interpolated between the two neighbours, or the interpolated one with statistics of unlabelled training images.

  python benchmarks/unseen.py --workdir=runs/quickstart [--step=4] [--lowest=8] [--crop-fraction=1.0] [--images=1024]
    [--json=FILE]

Prints a Markdown table.
"""

import argparse
import contextlib
import importlib.metadata
import json
import pathlib
import platform
import sys
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from resjax import macs, models, preprocess, trained, unseen
from resjax.data import loader, sources
from resjax.switchable import Variables, view

BEYOND = 1.25  # times the largest trained size


class Sample:
  """So many examples of a source, drawn without their labels in mind."""

  def __init__(self, source: Any, count: int):
    """Draws, always the same ones; all where there are no more."""
    self.source = source
    self.chosen = np.random.default_rng(0).permutation(len(source))[:count].tolist()

  def __len__(self) -> int:
    return len(self.chosen)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self.source[self.chosen[index]]

  def name_of(self, index: int) -> str:
    """Returns what messages call an example."""
    return self.source.name_of(self.chosen[index])


def sizes_of(trained: tuple[int, ...], step: int, lowest: int | None = None) -> tuple[int, ...]:
  """The sizes of the table, highest first."""
  multiples = range(-(-(lowest or min(trained)) // step) * step, int(BEYOND * max(trained)) + 1, step)
  return tuple(sorted({*multiples, *trained}, reverse=True))


def batches(source: Any, config: ConfigDict, sizes: tuple[int, ...], size: int) -> Iterator[tuple[tuple, np.ndarray]]:
  """Yields the crops uint8 `[B, r, r, 3]` of each size, and the labels `[B]`, of the images that can be read."""
  config = config.copy_and_resolve_references()
  config.resolutions, config.eval.pyramid, config.eval.batch_size = sizes, 'host', size
  with contextlib.closing(loader.eval_batches(source, config)) as stream:
    for batch in stream:
      read = batch['mask'] > 0
      yield tuple(images[read] for images in batch['images']), batch['label'][read]


def networks_at(
  model: nn.Module, variables: Variables, size: int, images: Iterator[jax.Array]
) -> dict[str, tuple[Variables, str]]:
  """The plain network's variables at a size, and what its BatchNorm is, by way."""
  found = {how: unseen.add(variables, size, how) for how in ('nearest', 'interpolate')}
  found['recalibrated'] = unseen.recalibrate(model, found['interpolate'][0], size, images)
  return {how: (view(wide, size), line) for how, (wide, line) in found.items()}


def measure(
  workdir: str, step: int, images: int, lowest: int | None = None, crop_fraction: float | None = None
) -> dict[str, Any]:
  """Returns the rows of the table, highest size first, and what they were measured on."""
  found = trained.read(workdir)
  variables, config = found.network.variables, found.config
  model, normalize = models.from_config(config), config.data.normalize
  config.eval.crop_fraction = crop_fraction or config.eval.crop_fraction
  sizes = sizes_of(config.resolutions, step, lowest)
  sample = Sample(sources.create(config, config.data.train_split), images)
  crops = [crops for crops, _ in batches(sample, config, sizes, config.batch_size)]
  networks = {}
  for i, size in enumerate(sizes):
    normalised = (preprocess.prepare((batch[i],), (size,), normalize)[0] for batch in crops)
    networks[size] = networks_at(model, variables, size, normalised)
  correct = jax.jit(lambda plain, x, label: (model.apply(plain, x, train=False).argmax(-1) == label).sum())
  source = sources.create(config, config.data.eval_split)
  right, count = {size: {} for size in sizes}, 0
  for scored, labels in batches(source, config, sizes, config.eval.batch_size):
    count += len(labels)
    for i, size in enumerate(sizes):
      x, label = preprocess.prepare((scored[i],), (size,), normalize)[0], jnp.asarray(labels)
      once = {line: plain for plain, line in networks[size].values()}
      for line, plain in once.items():
        right[size][line] = right[size].get(line, 0) + int(correct(plain, x, label))
  rows = [
    {
      'size': size,
      'trained': size in config.resolutions,
      'macs': macs.of_model(model, size),
      'top1': {how: right[size][line] / count for how, (_, line) in networks[size].items()},
      'batch_norm': {how: line for how, (_, line) in networks[size].items()},
    }
    for size in sizes
  ]
  return {
    'rows': rows,
    'images': count,
    'recalibration_images': sum(len(batch[0]) for batch in crops),
    'crop_fraction': config.eval.crop_fraction,
  }


def show(found: dict[str, Any]) -> None:
  """Prints the table."""
  versions = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in ('jax', 'flax', 'numpy'))
  print(f'{found["images"]} images scored, crop fraction {found["crop_fraction"]:g}')
  print(f'recalibrated on {found["recalibration_images"]} images, without labels')
  print(f'{platform.machine()}, {jax.devices()[0].device_kind}, Python {platform.python_version()}, {versions}\n')
  print('| input | multiply-adds | nearest | interpolated | recalibrated |')
  print('|---|---|---|---|---|')
  for row in found['rows']:
    name = f'**{row["size"]} px**, trained' if row['trained'] else f'{row["size"]} px'
    accuracies = ' | '.join(f'{100 * value:.1f}' for value in row['top1'].values())
    print(f'| {name} | {row["macs"] / 1e6:.2f} M | {accuracies} |')


def main() -> None:
  """Measures, prints and saves."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', default='runs/quickstart', help='of a finished run')
  parser.add_argument('--step', type=int, default=4, help='pixels between the sizes')
  parser.add_argument('--images', type=int, default=1024, help='unlabelled training images to recalibrate on')
  parser.add_argument('--lowest', type=int, help='pixels of the smallest size; default: the smallest trained one')
  parser.add_argument('--crop-fraction', type=float, help="of the crop in the image; default: the run's")
  parser.add_argument('--json', help='file for the numbers')
  args = parser.parse_args()
  if args.crop_fraction is not None and not 0 < args.crop_fraction <= 1:
    parser.error(f'--crop-fraction: got {args.crop_fraction}, expected more than 0, at most 1')
  for name in ('step', 'images', 'lowest'):
    if getattr(args, name) is not None and getattr(args, name) < 1:
      parser.error(f'--{name}: got {getattr(args, name)}, expected a positive integer')
  try:
    found = measure(args.workdir, args.step, args.images, args.lowest, args.crop_fraction)
    if args.json:
      pathlib.Path(args.json).write_text(json.dumps(found, indent=2) + '\n')
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')
  show(found)


if __name__ == '__main__':
  main()
