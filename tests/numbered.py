"""Images that carry their own number, and the batches that the loader makes of them."""

import io
import itertools

import numpy as np
from PIL import Image

from configs import default
from resjax.data import loader


class Numbered:
  """Images that carry their own number in every pixel; some can't be read."""

  num_classes = 7
  class_names = tuple('abcdefg')
  needed = None

  def __init__(self, size, bad=(), side=8):
    self.size, self.bad, self.side = size, frozenset(bad), side

  def __len__(self):
    return self.size

  def __getitem__(self, index):
    if index in self.bad:
      return {'image': b'no image', 'label': 0}
    pixels = np.full((self.side, self.side, 3), index % 256, np.uint8)
    return {'image': pixels, 'label': index % 7}

  def name_of(self, index):
    return f'numbered {index}'


def make_config(**fields):
  config = default.get_config()
  config.resolutions = (8, 4)
  config.model.num_classes = 7
  config.batch_size = 16
  config.eval.batch_size = 16
  config.eval.crop_fraction = 1.0
  config.data.crop = 'full'
  config.data.threads = 2
  for name, value in fields.items():
    config.update_from_flattened_dict({name.replace('__', '.'): value})
  return config


def take(batches, count):
  with_end = list(itertools.islice(batches, count))
  batches.close()
  return with_end


def train(source, config, count, start=0, host=0, hosts=1, devices=1):
  sharding = {'process_index': host, 'process_count': hosts, 'local_devices': devices}
  return take(loader.train_batches(source, config, start, **sharding), count)


def evaluate(source, config, host=0, hosts=1, devices=1):
  return list(loader.eval_batches(source, config, process_index=host, process_count=hosts, local_devices=devices))


def equal(a, b):
  assert len(a) == len(b)
  for x, y in zip(a, b, strict=True):
    assert x.keys() == y.keys()
    for key in x.keys() - {'images'}:
      np.testing.assert_array_equal(x[key], y[key])
    for p, q in zip(x['images'], y['images'], strict=True):
      np.testing.assert_array_equal(p, q)


def rows_of(batches, key):
  return [b['images'][0] if key == 'images' else b[key] for b in batches]


def jpeg(seed):
  buffer = io.BytesIO()
  pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
  Image.fromarray(pixels).save(buffer, 'JPEG')
  return buffer.getvalue()
