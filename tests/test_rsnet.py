"""RS-Net's init, loss and evaluation functions around the formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from resjax import losses, models, preprocess, rsnet, switchable

RESOLUTIONS = (16, 12, 8)


@pytest.fixture(scope='module')
def config():
  config = default.get_config()
  config.resolutions = RESOLUTIONS
  config.label_smoothing = 0.1
  return config


@pytest.fixture(scope='module')
def model():
  return models.create('resnet_small', num_classes=5, width=0.25, stages=(1, 1))


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(1)
  images = rng.integers(0, 256, (6, 16, 16, 3), np.uint8)
  return {'images': (images,), 'label': rng.integers(0, 5, 6).astype(np.int32), 'index': np.arange(6, dtype=np.int32)}


def test_init_shares_the_model_and_adds_alpha(config, model):
  variables = jax.jit(lambda key: rsnet.init(model, config, key))(jax.random.key(0))
  np.testing.assert_array_equal(variables['params']['alpha'], [1, 1, 1])
  assert set(variables['params']['private']) == set(variables['batch_stats']) == {'16', '12', '8'}


@pytest.mark.parametrize('kind', losses.DISTILLATIONS)
def test_the_loss_is_the_formula_on_the_forward_pass(config, model, batch, kind):
  config = config.copy_and_resolve_references()
  config.distillation = kind
  variables = jax.jit(lambda key: rsnet.init(model, config, key))(jax.random.key(0))
  key = jax.random.key(7)
  loss_fn = jax.jit(rsnet.make_loss_fn(model, config))
  loss, (statistics, metrics) = loss_fn(variables['params'], variables['batch_stats'], batch, key)

  @jax.jit
  def by_hand(variables):
    flips = preprocess.draw_flips(key, batch['index'], RESOLUTIONS, 'shared')
    images = preprocess.prepare(batch['images'], RESOLUTIONS, 'imagenet', flips)
    logits, new = switchable.forward(model, variables, images, RESOLUTIONS, train=True)
    alpha = variables['params']['alpha']
    total, terms = losses.rsnet_loss(logits, batch['label'], alpha, kind=kind, label_smoothing=0.1)
    return logits, new, total, terms

  logits, new, total, terms = by_hand(variables)
  np.testing.assert_allclose(loss, total, rtol=1e-5)
  for i, r in enumerate(RESOLUTIONS):
    np.testing.assert_allclose(metrics[f'loss_{r}'], terms['cross_entropy'][i], rtol=1e-5)
    np.testing.assert_allclose(metrics[f'distillation_{r}'], terms['distillation'][i], rtol=1e-4, atol=1e-6)
    assert float(metrics[f'top1_{r}']) == pytest.approx((logits[i].argmax(-1) == batch['label']).mean())
  for a, b in zip(jax.tree.leaves(statistics), jax.tree.leaves(new), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


class Fixed:
  """Stands for a network: its logits are given."""

  def __init__(self, logits):
    self.logits = logits

  def apply(self, variables, images, train):
    return self.logits[images.shape[1]]


def test_ranks_of_fixed_logits(config, batch):
  """Three resolutions with known logits; the ensemble's weights choose the second."""
  order = np.array([[4, 3, 2, 1, 0]] * 6, np.float32)  # class k has rank k
  logits = {16: order, 12: order[:, ::-1], 8: np.full((6, 5), np.nan, np.float32)}
  variables = {
    'params': {'shared': {}, 'private': {'16': {}, '12': {}, '8': {}}, 'alpha': jnp.array([0.0, 50.0, -jnp.inf])},
    'batch_stats': {'16': {}, '12': {}, '8': {}},
  }
  ranks = rsnet.make_eval_fn(Fixed(logits), config)(variables, batch)['ranks']
  labels = batch['label']
  np.testing.assert_array_equal(ranks[:, 0], labels)
  np.testing.assert_array_equal(ranks[:, 1], 4 - labels)
  np.testing.assert_array_equal(ranks[:, 2], 4)


def test_ranks_break_ties_as_argmax_does_and_never_reward_what_is_no_number():
  logits = jnp.array([[1.0, 1, 1], [0, 2, 2], [3, jnp.nan, 1], [jnp.nan, jnp.nan, jnp.nan], [3, 2, 1]])
  for label, expected in ((0, [0, 2, 1, 2, 0]), (1, [1, 0, 2, 2, 1]), (2, [2, 1, 2, 2, 2])):
    np.testing.assert_array_equal(rsnet.rank_of(logits, jnp.full(5, label)), expected)


def test_ranks_count_the_larger_logits():
  logits = jax.random.normal(jax.random.key(0), (3, 50, 10))
  labels = jax.random.randint(jax.random.key(1), (50,), 0, 10)
  order = np.argsort(-np.asarray(logits), axis=-1, kind='stable')
  expected = (order == np.asarray(labels)[None, :, None]).argmax(-1)
  np.testing.assert_array_equal(rsnet.rank_of(logits, labels), expected)
