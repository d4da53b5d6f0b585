"""What is computed anew on the way back instead of being kept: the same numbers, and less that is kept."""

import math

import jax
import numpy as np
import pytest
import tiny_drnet

from resjax import apply, drnet, rsnet

# Float32 products that are fused with others, relative to the norm of all gradients.
TOLERANCE = 1e-6
METHODS = {'rsnet': rsnet, 'drnet': drnet}


def loss_of(method, **fields):
  """The loss as a function of the parameters, and its parameters."""
  config = tiny_drnet.make_config(method=method, **fields)
  variables = tiny_drnet.fresh()
  batch = tiny_drnet.batches(1)[0] | {'step': np.int32(0)}
  loss_fn = METHODS[method].make_loss_fn(tiny_drnet.model(), config, total_steps=3)
  return lambda params: loss_fn(params, variables['batch_stats'], batch, jax.random.key(0)), variables['params']


@pytest.mark.parametrize('fields', [{'method': 'rsnet'}, {'method': 'drnet'}, {'drnet.estimator': 'routed'}], ids=str)
@pytest.mark.parametrize('what', ['convolutions', 'all'])
def test_loss_statistics_and_gradients_are_the_same(fields, what):
  found = []
  for remat in ('none', what):
    loss, params = loss_of(**{'method': 'drnet', **fields, 'remat': remat})
    found.append(jax.jit(jax.value_and_grad(loss, has_aux=True))(params))
  ((loss, (statistics, _)), grads), ((ours, (our_statistics, _)), our_grads) = found
  np.testing.assert_allclose(ours, loss, rtol=TOLERANCE)
  norm = math.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(grads)))
  for a, b in zip(jax.tree.leaves(our_grads), jax.tree.leaves(grads), strict=True):
    assert float(np.linalg.norm(a - b)) <= TOLERANCE * norm
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), our_statistics, statistics)


def kept(method, what):
  """The bytes that the way back is handed."""
  loss, params = loss_of(method, remat=what)
  pull = jax.eval_shape(lambda params: jax.vjp(loss, params, has_aux=True)[1], params)
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull))


@pytest.mark.parametrize('method', ['rsnet', 'drnet'])
def test_less_is_kept(method):
  everything, convolutions, nothing = (kept(method, what) for what in apply.REMAT)
  assert nothing < 0.9 * convolutions and convolutions < 0.6 * everything


def test_without_it_the_network_itself_runs_and_nothing_is_computed_anew_without_training():
  model = tiny_drnet.model()
  assert apply.rematerialised(model, 'none') is model
  images = jax.ShapeDtypeStruct((2, 16, 16, 3), np.float32)
  variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
  ours = apply.rematerialised(model, 'all')
  evaluated, trained = (
    str(jax.make_jaxpr(ours, static_argnums=2)(variables, images, train)) for train in (False, True)
  )
  assert 'prevent_cse' in trained and 'prevent_cse' not in evaluated
