"""DRNet over a network that stands still: labels for its predictor, the choice without noise, evaluation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_drnet import BATCH, RESOLUTIONS, batches, fresh, make_config, model

from resjax import drnet, gumbel, losses, models, preprocess, rsnet, switchable
from resjax.routing.oracle import smallest_right


def test_the_right_answers_are_labels_by_the_stated_rules():
  right = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 1], [0, 1, 0]], bool).T
  for array in (right.T, jnp.asarray(right.T)):
    np.testing.assert_array_equal(smallest_right(array, otherwise=0), [2, 1, 0, 0, 2, 2, 1])


@functools.cache
def frozen_logits():
  """A batch, its logits as at evaluation `[R, B, K]`, and the scores of the predictor in training `[B, R]`."""
  variables, batch = fresh(), batches(1)[0] | {'step': np.int32(0)}
  images = preprocess.prepare(batch['images'], RESOLUTIONS, 'imagenet')

  @jax.jit
  def run():
    logits, _ = switchable.forward(model(), variables, images, RESOLUTIONS, train=False)
    own = drnet.variables_of_predictor(variables)
    return logits, drnet.predictor_of(make_config()).scores(own, images[0], train=True)[0]

  return batch, *jax.device_get(run())


def frozen_gradient(estimator):
  config = make_config(**{'drnet.frozen': True, 'drnet.estimator': estimator, 'data.flip': 'none'})
  loss_fn = drnet.make_loss_fn(model(), config, total_steps=10)
  statistics, batch = fresh()['batch_stats'], frozen_logits()[0]
  run = jax.jit(jax.grad(lambda p: loss_fn(p, statistics, batch, jax.random.key(0)), has_aux=True))
  gradient, (statistics, metrics) = run(fresh()['params'])
  assert set(statistics) == {'predictor'}
  assert all((leaf == 0).all() for leaf in jax.tree.leaves({**gradient, 'predictor': {}}))
  assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradient['predictor']))
  return metrics


def test_the_supervised_predictor_learns_the_smallest_right_resolution():
  batch, logits, scores = frozen_logits()
  right = logits.argmax(-1) == batch['label']
  assert right.any() and not right.all()
  expected = losses.cross_entropy(scores, np.where(right[1], 1, 0))
  assert float(frozen_gradient('supervised')['loss_label']) == pytest.approx(float(expected), rel=1e-5)


def test_a_frozen_network_is_run_as_at_evaluation():
  """With its running statistics, not those of the batch."""
  batch, logits, scores = frozen_logits()
  chosen = (scores + np.asarray(gumbel.draw(jax.random.key(0), batch['index'], 2))).argmax(-1)
  expected = losses.cross_entropy(logits[chosen, np.arange(BATCH)], batch['label'])
  assert float(frozen_gradient('dense')['loss_class']) == pytest.approx(float(expected), rel=1e-5)


@pytest.fixture(scope='module')
def evaluated():
  """One compiled evaluation; a predictor that sends all images to one place, for each place."""
  eval_fn = jax.jit(drnet.make_eval_fn(model(), make_config()))
  variables, batch = fresh(), batches(1)[0]
  found = []
  for place in range(2):
    head = {'kernel': np.zeros_like(variables['params']['predictor']['head']['kernel']), 'bias': np.eye(2)[place] * 9.0}
    predictor = variables['params']['predictor'] | {'head': jax.tree.map(np.float32, head)}
    forced = variables | {'params': variables['params'] | {'predictor': predictor}}
    found.append(jax.device_get(eval_fn(forced, batch)))
  return eval_fn, found


def test_all_to_one_is_the_static_network_bit_for_bit_at_evaluation(evaluated):
  _, found = evaluated
  static = jax.jit(rsnet.make_eval_fn(model(), make_config()))(fresh(), batches(1)[0])['ranks']
  for place, table in enumerate(found):
    choice = table['scores'].argmax(-1)
    assert (choice == place).all()
    np.testing.assert_array_equal(np.take_along_axis(table['ranks'], choice[:, None], 1)[:, 0], static[:, place])


def test_evaluation_has_no_noise(evaluated):
  """The choice is the argmax of the scores, whatever an image's number; the scores are those of an undisturbed run."""
  eval_fn, _ = evaluated
  batch = batches(1)[0]
  first, second = (eval_fn(fresh(), batch | {'index': batch['index'] + shift}) for shift in (0, 7))
  jax.tree.map(np.testing.assert_array_equal, first, second)
  images = preprocess.prepare(batch['images'], RESOLUTIONS, 'imagenet')
  own = drnet.variables_of_predictor(fresh())
  scores, _ = jax.jit(lambda: drnet.predictor_of(make_config()).scores(own, images[0], train=False))()
  np.testing.assert_allclose(first['scores'], scores, rtol=0, atol=1e-5)


def test_shortcuts_have_their_own_normalisers():
  """Changing a shortcut's BatchNorm at one resolution changes that one's logits, and no bit of the other's."""
  network = models.create('resnet_small', num_classes=5, width=0.25, stages=(1, 1))
  variables = jax.device_get(jax.jit(lambda key: rsnet.init(network, make_config(), key))(jax.random.key(0)))
  images = preprocess.prepare(batches(1)[0]['images'], RESOLUTIONS, 'imagenet')
  run = jax.jit(lambda v: switchable.forward(network, v, images, RESOLUTIONS, train=False)[0])
  changed = jax.tree.map(np.copy, variables)
  changed['params']['private']['8']['stage2_block1']['downsample_bn']['scale'] *= 2
  before, after = run(variables), run(changed)
  np.testing.assert_array_equal(before[0], after[0])
  assert (np.abs(before[1] - after[1]) > 1e-4).any()


def test_evaluation_says_how_sure_the_network_is_in_log_odds(evaluated):
  eval_fn, _ = evaluated
  batch = batches(1)[0]
  images = preprocess.prepare(batch['images'], RESOLUTIONS, 'imagenet')
  logits, _ = jax.jit(lambda: switchable.forward(model(), fresh(), images, RESOLUTIONS, train=False))()
  probability = jax.nn.softmax(logits).max(-1).T
  found = eval_fn(fresh(), batch)['odds']
  assert found.shape == (BATCH, 2) and found.dtype == np.float32
  np.testing.assert_allclose(found, np.log(probability / (1 - probability)), rtol=0, atol=1e-4)
