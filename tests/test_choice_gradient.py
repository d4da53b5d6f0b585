"""Where DRNet's gradient goes: from the logits to the choice; none passes through the resize of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_drnet
from jax.lax import stop_gradient
from test_estimators import BATCH, RESOLUTIONS, model, problem

from resjax import drnet, estimators, gumbel, losses, preprocess, switchable


@pytest.mark.usefixtures('x64')
def test_the_choice_learns_the_product_of_the_losss_gradient_and_each_resolutions_logits():
  """`dL/dh_j = <dL/dz, z_j>`, by hand and by central differences of a choice that is not quite one-hot, in float64."""
  variables, images, labels, scores, noise = problem('float64')
  hard = np.asarray(gumbel.choose(scores, noise, 1.0))

  @jax.jit
  def loss(choice):
    logits, _ = estimators.dense(model('float64'), variables, images, RESOLUTIONS, choice, train=False)
    return losses.cross_entropy(logits, labels)

  gradient = jax.jit(jax.grad(loss))(hard)
  each, _ = switchable.forward(model('float64'), variables, images, RESOLUTIONS, train=False)
  z = np.einsum('br,rbk->bk', hard, each)
  error = np.asarray(jax.nn.softmax(z)) - np.eye(3)[labels]
  np.testing.assert_allclose(gradient, np.einsum('bk,rbk->br', error / BATCH, each), rtol=0, atol=1e-12)
  for place in np.ndindex(*hard.shape):
    moved = [hard + s * 1e-5 * (np.arange(hard.size).reshape(hard.shape) == np.ravel_multi_index(place, hard.shape))
             for s in (1, -1)]  # fmt: skip
    assert float(loss(moved[0]) - loss(moved[1])) / 2e-5 == pytest.approx(float(gradient[place]), abs=1e-8)


def test_no_gradient_passes_through_the_resize(monkeypatch):
  """With images that are constants on the way back the predictor, and the network, learn the same, bit for bit."""
  config = tiny_drnet.make_config(**{'data.flip': 'none'})
  variables, (batch,) = tiny_drnet.fresh(), tiny_drnet.batches(1)
  batch |= {'step': jnp.zeros((), jnp.int32)}
  prepare, resized = preprocess.prepare, []

  def constant(*args, **options):
    resized.append(args[1])
    return tuple(stop_gradient(image) for image in prepare(*args, **options))

  def gradients():
    loss_fn = drnet.make_loss_fn(tiny_drnet.model(), config)
    of = jax.jit(jax.grad(lambda params: loss_fn(params, variables['batch_stats'], batch, jax.random.key(1))[0]))
    return of(variables['params'])

  free = gradients()
  monkeypatch.setattr(preprocess, 'prepare', constant)
  held = gradients()
  assert tuple(tiny_drnet.RESOLUTIONS) in resized
  jax.tree.map(np.testing.assert_array_equal, free, held)
  assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(free['predictor'])) > 1e-6
