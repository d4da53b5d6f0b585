"""Images per second and core: this loader beside the reference's way, for five resolutions.

The reference decodes a photograph with PIL, crops it and resizes the crop once for each
resolution. resjax decodes and crops once, to the largest resolution; the others are made on the
device. Both ways draw the same regions of the same photographs, in turns, in one thread.

  python benchmarks/loader.py                 # scikit-learn's two photographs, cut into tiles
  python benchmarks/loader.py --dir=FOLDER    # the JPEGs of a folder, at any depth
  python benchmarks/loader.py --pod           # and what the hosts of a TPU v5e-256 would have to do

The table gives the median over rounds of images per second of CPU time and of wall time; the
spread is that of the lowest and the highest round.
"""

import argparse
import importlib
import importlib.metadata
import io
import itertools
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from resjax.data.crops import random_region, train_crops
from resjax.planning import needs, topology

RESOLUTIONS = (224, 192, 160, 128, 96)
TILE = (375, 500)  # the usual size of ImageNet's photographs
WARM_UP = 4  # photographs before the clock starts

# The pod, and Google's figure for its hosts; what a step takes on its chips is what `resjax plan` says.
POD, VCPUS = 'v5e-256', 28  # vCPUs for each chip (112 for 4, 224 for 8)
RECIPES = ('rsnet_r18', 'rsnet_r50', 'rsnet_mobilenetv2')


def tiles() -> list[bytes]:
  """Cuts scikit-learn's two photographs (427 x 640) into overlapping tiles, JPEGs of quality 95."""
  from sklearn.datasets import load_sample_images

  files = []
  height, width = TILE
  for photograph in load_sample_images().images:
    tops = np.linspace(0, photograph.shape[0] - height, 5).astype(int)
    lefts = np.linspace(0, photograph.shape[1] - width, 8).astype(int)
    for top, left in itertools.product(tops, lefts):
      buffer = io.BytesIO()
      tile = photograph[top : top + height, left : left + width]
      Image.fromarray(tile).save(buffer, 'JPEG', quality=95)
      files.append(buffer.getvalue())
  return files


def folder(path: str, limit: int) -> list[bytes]:
  """Reads the first JPEGs of a folder into memory, evenly taken from all."""
  paths = sorted(p for p in pathlib.Path(path).rglob('*') if p.suffix.lower() in ('.jpg', '.jpeg'))
  if not paths:
    raise FileNotFoundError(f'--dir: {path}, expected a folder with .jpg files')
  return [paths[i].read_bytes() for i in np.linspace(0, len(paths) - 1, min(limit, len(paths))).astype(int)]


def reference(data: bytes, rng: np.random.Generator) -> list[np.ndarray]:
  """PIL decodes, crops, and resizes the crop to each resolution."""
  picture = Image.open(io.BytesIO(data)).convert('RGB')
  top, left, height, width = random_region(rng, picture.height, picture.width)
  crop = picture.crop((left, top, left + width, top + height))
  return [np.asarray(crop.resize((r, r), Image.Resampling.BILINEAR)) for r in RESOLUTIONS]


def ours(data: bytes, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
  """What `config.data.pyramid = 'device'` asks of the host."""
  return train_crops(data, RESOLUTIONS[:1], rng, may_shrink=True)


def ours_on_host(data: bytes, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
  """What `config.data.pyramid = 'host'` asks of the host: the reference's pixels."""
  return train_crops(data, RESOLUTIONS, rng)


WAYS = {'reference': reference, "resjax, pyramid 'device'": ours, "resjax, pyramid 'host'": ours_on_host}


def run(way: Callable, files: list[bytes], seed: int) -> tuple[float, float]:
  """Images per second of CPU time and of wall time."""
  for i, data in enumerate(files[:WARM_UP]):
    way(data, np.random.default_rng([seed, i]))
  cpu, wall = time.process_time(), time.perf_counter()
  for i, data in enumerate(files):
    way(data, np.random.default_rng([seed, i]))
  return len(files) / (time.process_time() - cpu), len(files) / (time.perf_counter() - wall)


def line(name: str, rates: list[tuple[float, float]], base: list[tuple[float, float]]) -> str:
  """One row of the table: medians, spreads, and the median of the rounds' ratios to the reference."""
  cells = []
  for clock in (0, 1):
    values = [rate[clock] for rate in rates]
    cells.append(f'{statistics.median(values):.0f} ({min(values):.0f}–{max(values):.0f})')
    cells.append(f'{statistics.median(v / b[clock] for v, b in zip(values, base)):.2f}')
  return f'| {name} | ' + ' | '.join(cells) + ' |'


def pod(rates: dict[str, float]) -> str:
  """The share of the pod's host CPUs that loading would take, if a vCPU did what a core does here.

  Args:
    rates: Images per second of CPU time, by way.
  """
  lines = [
    f'\nTPU {POD}, {VCPUS} vCPUs for each chip, {topology.UTILIZATION:.0%} of the peak rate assumed\n',
    '| recipe | multiply-adds, forward | images/s, chip | images/s, pod | needed of a vCPU, images/s |'
    + ''.join(f' {name}: CPU used |' for name in rates),
    '|---' * (5 + len(rates)) + '|',
  ]
  for name in RECIPES:
    config = importlib.import_module(f'configs.{name}').get_config()
    cost, step = needs.multiply_adds(config, 1)
    chip, chips = topology.chip_of(POD).peak * topology.UTILIZATION / step, topology.chips_of(POD)
    shares = ''.join(f' {chip / VCPUS / rate:.0%} |' for rate in rates.values())
    lines.append(f'| {name} | {cost / 1e9:.2f} G | {chip:,.0f} | {chip * chips:,.0f} | {chip / VCPUS:.0f} |{shares}')
  return '\n'.join(lines)


def main() -> None:
  """Runs all ways in turns and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--dir', help='folder of JPEGs; without it, tiles of two photographs')
  parser.add_argument('--images', type=int, default=200, help='at most so many files of the folder')
  parser.add_argument('--rounds', type=int, default=9)
  parser.add_argument('--pod', action='store_true', help="also compare with what a TPU v5e-256's hosts need")
  args = parser.parse_args()
  files = folder(args.dir, args.images) if args.dir else tiles()
  sizes = sorted(Image.open(io.BytesIO(data)).size for data in files)
  rates = {name: [] for name in WAYS}
  for i in range(args.rounds):
    for name, way in WAYS.items():
      rates[name].append(run(way, files, seed=i))
  kilobytes = statistics.mean(map(len, files)) / 1000
  print(f'{len(files)} JPEGs, median {sizes[len(sizes) // 2]} pixels, mean {kilobytes:.0f} kB; {args.rounds} rounds')
  versions = [f'{name} {importlib.metadata.version(name)}' for name in ('Pillow', 'simplejpeg', 'numpy')]
  print(f'{platform.machine()}, Python {platform.python_version()}, {", ".join(versions)}, one thread\n')
  print('| way | images/s of CPU | × | images/s of wall | × |')
  print('|---|---|---|---|---|')
  for name in WAYS:
    print(line(name, rates[name], rates['reference']))
  if args.pod:
    print(pod({name: statistics.median(cpu for cpu, _ in values) for name, values in rates.items()}))


if __name__ == '__main__':
  main()
