"""Bits are flipped and files cut short in all that is stored and read back: how often is that not noticed?

python tests/faults/flips.py --flips=200 --truncations=50

A small run is made, with its calibration, cost table, result, lists of its data, cache of images and a bundle, and the
workdir of an imported network; then one file at a time is damaged at random, read as it is used, and put right again.
"""

import argparse
import collections
import logging
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import numpy as np  # noqa: E402

from configs import default  # noqa: E402
from resjax import checkpoint, checksums, report, trained  # noqa: E402
from resjax.data import identity  # noqa: E402
from resjax.data.cache import FolderCache  # noqa: E402
from resjax.exporting import bundle  # noqa: E402
from resjax.inference import Classifier, calibrating, timing  # noqa: E402
from resjax.training import loop  # noqa: E402
from resjax.training.checkpoints import Checkpoints  # noqa: E402


class Images:
  """Encoded images that are always the same."""

  num_classes, class_names, needed = 2, ('a', 'b'), None

  def __len__(self):
    return 3

  def __getitem__(self, index):
    return {'image': bytes(range(100 + index)), 'label': index % 2}

  def name_of(self, index):
    return str(index)


def make(root):
  """Makes all that is stored, below a folder."""
  config = default.get_config()
  config.update_from_flattened_dict(
    {'resolutions': (16, 8), 'model.name': 'resnet_small', 'model.num_classes': 2, 'model.width': 0.25}
    | {'data.source': 'fake', 'data.name': '', 'data.size': 16, 'data.workers': 0, 'batch_size': 8, 'epochs': 2.0}
    | {'eval.batch_size': 8, 'eval.every_epochs': 0, 'checkpoint.every_epochs': 1.0}
  )
  loop.train_and_evaluate(config, root / 'run')
  classifier = Classifier(trained.load(root / 'run'), workdir=root / 'run', max_batch=2)
  classifier.calibrate(np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8))
  bundle.write(classifier.network, root / 'bundle', stablehlo=True)
  read = trained.read(root / 'run')
  trained.save(read, root / 'imported')
  cache = FolderCache(Images(), str(root / 'cache'), 'images')
  for index in range(len(cache)):
    cache[index]


class Noticed(Exception):
  """Damage was named."""


class Stored:
  """What `make` made, and who reads what of it; each reader raises or logs where it notices damage."""

  def __init__(self, root):
    self.root, self.run = root, root / 'run'
    self.network = trained.load(self.run)
    self.newest = max(int(path.name) for path in (self.run / 'checkpoints').iterdir())
    self.kinds = {
      'checkpoint, read by training': (sorted(self._step().rglob('*')), self.train),
      'checkpoint, read by all others': (sorted(self._step().rglob('*')), lambda: trained.load(self.run)),
      'results.json': ([self.run / 'results.json'], lambda: report.read(self.run)),
      'imported network': (
        sorted((root / 'imported').rglob('*')),
        lambda: trained.load(root / 'imported'),
      ),
      'dial.npz': ([self.run / 'dial.npz'], lambda: calibrating.read(self.run, self.network)),
      'dial.npz, for the images it was made on': ([self.run / 'dial.npz'], lambda: calibrating.origin(self.run)),
      'costs.json': ([self.run / 'costs.json'], lambda: timing._read(self.run / 'costs.json')),
      'data.lists': ([self.run / 'data.lists'], lambda: identity.read(self.run)),
      'bundle': (sorted((root / 'bundle').iterdir()), lambda: bundle.read(root / 'bundle')),
      'cache': (sorted((root / 'cache').glob('*/0/*')), self.cached),
    }

  def _step(self):
    return self.run / 'checkpoints' / str(self.newest)

  def train(self):
    """As a run that goes on reads its newest step."""
    with Checkpoints(self.run) as checkpoints:
      if checkpoints.newest_whole() == self.newest:
        return
    (place,) = (self.run / 'damaged').iterdir()
    place.rename(self._step())
    raise Noticed(f'{place} was set aside')

  def cached(self):
    """Reads every image; a damaged one comes from its source."""
    cache, source = FolderCache(Images(), str(self.root / 'cache'), 'images'), Images()
    for index in range(len(source)):
      assert cache[index] == source[index], 'a damaged image was served'


def noticed(read, path):
  """Whether a reader tells of damage; where it does not say which file it is in, that is an error."""
  records = []
  handler = logging.Handler()
  handler.emit = records.append
  loggers = [logging.getLogger(name) for name in (None, 'absl')]
  for logger in loggers:
    logger.addHandler(handler)
  try:
    read()
  except (ValueError, Noticed) as error:
    records.append(logging.makeLogRecord({'msg': str(error)}))
  finally:
    for logger in loggers:
      logger.removeHandler(handler)
  said = [record.getMessage() for record in records]
  assert not said or any(path.name in line for line in said), (path, said)
  return bool(said)


def damaged(content, draw, flip):
  """The content with one bit flipped, or cut short."""
  if not flip:
    return content[: draw.randrange(len(content))]
  changed = bytearray(content)
  changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
  return bytes(changed)


def trial(stored, kind, draw, flip):
  """Damages a file of a kind; returns whether that was noticed, and puts it right."""
  paths, read = stored.kinds[kind]
  path = draw.choice([path for path in paths if path.is_file() and path.stat().st_size])
  content = path.read_bytes()
  path.write_bytes(damaged(content, draw, flip))
  try:
    return noticed(read, path), path
  finally:
    path.write_bytes(content)
    other = next((path.parents[1] / 'cache').glob('*/0'), None) if kind == 'cache' else None
    assert other is None or other.is_dir()


def times(folder, repeats=5):
  """Seconds of verifying and of reading a step, the fastest of some; and its bytes."""
  step = max((folder / 'checkpoints').iterdir(), key=lambda path: int(path.name))
  spent = collections.defaultdict(list)
  for _ in range(repeats):
    for name, act in (('verify', lambda: checksums.verify(step)), ('both', lambda: checkpoint.load(folder))):
      begin = time.perf_counter()
      act()
      spent[name].append(time.perf_counter() - begin)
  size = sum(path.stat().st_size for path in step.rglob('*') if path.is_file())
  return min(spent['verify']), min(spent['both']) - min(spent['verify']), size


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--flips', type=int, default=200)
  parser.add_argument('--truncations', type=int, default=50)
  parser.add_argument('--seed', type=int, default=0)
  options = parser.parse_args()
  root = pathlib.Path(tempfile.mkdtemp())
  try:
    make(root)
    stored, draw, silent = Stored(root), random.Random(options.seed), []
    for flip, count in ((True, options.flips), (False, options.truncations)):
      told = collections.Counter()
      for number in range(count):
        kind = list(stored.kinds)[number % len(stored.kinds)]
        found, path = trial(stored, kind, draw, flip)
        told[kind] += found
        silent += [] if found else [str(path.relative_to(root))]
      print(f'{count} {"flips" if flip else "truncations"}: {count - len(silent)} noticed, {len(silent)} used silently')
      print('  ' + '; '.join(f'{kind} {number}' for kind, number in told.items()))
    print(f'used silently: {", ".join(silent) or "none"}')
    verify, read, size = times(root / 'run')
    print(f'a step of {size:,} bytes: {1e3 * verify:.1f} ms to verify, {1e3 * read:.1f} ms to read')
    sys.exit(bool(silent))
  finally:
    shutil.rmtree(root)


if __name__ == '__main__':
  main()
