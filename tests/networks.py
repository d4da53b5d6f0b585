"""A tiny network whose resolutions differ, with or without a predictor: for the tests of all that runs one."""

import jax
import numpy as np

from configs import default
from resjax import drnet, models, rsnet, trained
from resjax.network import Network
from resjax.preprocess import Preprocessing

NAMES = tuple('abcde')

# MobileNetV2's first blocks: one that does not widen, one with a stride, and one with a shortcut.
INVERTED = ((1, 16, 1, 1), (6, 24, 2, 2))


def tiny(method='rsnet', noise=0.3, **fields):
  """A network of resolutions 16 and 8 and five classes.

  Args:
    method: With 'drnet' it has a predictor.
    noise: Added to all variables, so that a wrong resolution's normalisers show.
    **fields: Of the network, other than usual.
  """
  config = default.get_config()
  config.method, config.resolutions = method, (16, 8)
  config.drnet.predictor.size, config.drnet.predictor.width = 8, 0.25
  model = models.create('resnet_small', num_classes=5, width=0.25, stages=(1,))
  init = drnet.init if method == 'drnet' else rsnet.init
  variables = jax.jit(lambda key: init(model, config, key))(jax.random.key(0))
  rng = np.random.default_rng(0)
  moved = jax.tree.map(lambda x: np.asarray(x) + rng.uniform(0, noise, x.shape).astype(np.float32), variables)
  made = Network(
    model=model,
    variables=moved,
    resolutions=(16, 8),
    preprocessing=Preprocessing.of_config(config),
    class_names=NAMES,
    predictor=drnet.predictor_of(config) if method == 'drnet' else None,
  )
  return made.replace(**fields)


def save_imported(network, folder):
  """Writes a network of `tiny` as the workdir of an imported one; `trained.of_config` must make it where it is read."""
  config = default.get_config()
  config.resolutions, config.model.name, config.model.num_classes, config.model.width = (16, 8), 'resnet_small', 5, 0.25
  found = trained.Trained(network, config, 0, True, {'source': 'hf-hub:me/it', 'architecture': 'a', 'license': 'MIT'})
  trained.save(found, folder)
