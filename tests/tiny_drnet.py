"""A DRNet small enough to compile in a second: its config, network, variables and batches."""

import functools

import jax
import numpy as np

from configs import default
from resjax import drnet, models

RESOLUTIONS = (16, 8)
BATCH = 32


def make_config(**fields):
  config = default.get_config()
  config.method = 'drnet'
  config.resolutions = RESOLUTIONS
  config.batch_size = BATCH
  config.data.flip = 'independent'
  config.drnet.predictor.size = 8
  config.drnet.predictor.width = 0.5
  config.drnet.budget = 22_538.0  # half of the network's multiply-adds at 16 px, 13,834, and the predictor's, 8,704
  config.drnet.eta = 0.5
  config.drnet.tau = 2.0
  config.drnet.tau_end = 0.5
  config.update_from_flattened_dict(fields)
  return config


@functools.cache
def model(axis_name=None):
  return models.create('resnet_small', num_classes=5, width=0.25, stages=(), axis_name=axis_name)


def batches(count=3, images=BATCH):
  rng = np.random.default_rng(0)
  return [
    {
      'images': (rng.integers(0, 256, (images, 16, 16, 3), np.uint8),),
      'label': rng.integers(0, 5, images).astype(np.int32),
      'index': np.arange(i * images, (i + 1) * images, dtype=np.int32),
    }
    for i in range(count)
  ]


@functools.cache
def fresh():
  return jax.device_get(jax.jit(lambda key: drnet.init(model(), make_config(), key))(jax.random.key(0)))
