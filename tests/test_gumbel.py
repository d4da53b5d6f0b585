"""The choice: exact answers, exact one-hots, frequencies, and noise that belongs to the example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resjax import gumbel, preprocess

SCORES = [0.2, -0.3, 0.5]
UNIFORM = [0.7, 0.2, 0.4]
COSTS = [4.11, 2.52, 1.09]


def exact():
  """The scores and the noise of the reference answers, in the precision that is on."""
  uniform = jnp.array([UNIFORM], float)
  return jnp.array([SCORES], float), -jnp.log(-jnp.log(uniform))


@pytest.mark.usefixtures('x64')
def test_the_choice_and_its_gradient_are_the_reference_answers():
  scores, noise = exact()
  np.testing.assert_allclose(noise[0], [1.0309304332, -0.4758849953, 0.0874215718], rtol=0, atol=1e-10)
  costs = jnp.array([COSTS], float)
  cost = lambda scores, tau: (gumbel.choose(scores, noise, tau) * costs).sum()
  value, gradient = jax.value_and_grad(cost)(scores, 1.0)
  assert float(value) == 4.11
  np.testing.assert_allclose(gradient[0], [0.6535300075, -0.0409137227, -0.6126162848], rtol=0, atol=1e-10)


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize(
  ('tau', 'soft'),
  [(1.0, [0.6024598962, 0.0809802803, 0.3165598235]), (0.5, [0.7727016159, 0.0139609216, 0.2133374626])],
)
def test_backward_is_the_jacobian_of_the_softmax_at_the_temperature(tau, soft):
  scores, noise = exact()
  choice, pull = jax.vjp(lambda s: gumbel.choose(s, noise, tau), scores)
  np.testing.assert_array_equal(choice, [[1, 0, 0]])
  soft = np.array(soft)
  jacobian = (np.diag(soft) - np.outer(soft, soft)) / tau
  for j, row in enumerate(np.eye(3)):
    np.testing.assert_allclose(pull(jnp.array(row[None]))[0][0], jacobian[j], rtol=0, atol=2e-10)


def test_the_choice_is_exactly_one_hot_and_does_not_depend_on_the_temperature():
  noise = gumbel.draw(jax.random.key(0), jnp.arange(500), 4)
  scores = 3 * jax.random.normal(jax.random.key(1), (500, 4))
  run = jax.jit(gumbel.choose)
  choices = [np.asarray(run(scores, noise, tau)) for tau in (5.0, 1.0, 0.01)]
  assert set(np.unique(choices[0])) == {0.0, 1.0} and (choices[0].sum(1) == 1).all()
  np.testing.assert_array_equal(choices[0], choices[1])
  np.testing.assert_array_equal(choices[0], choices[2])


def test_frequencies_are_the_softmax():
  count = 20_000
  scores = jnp.array([SCORES])
  noise = jax.jit(gumbel.draw, static_argnums=2)(jax.random.key(3), jnp.arange(count), 3)
  found = np.asarray(gumbel.choose(jnp.broadcast_to(scores, noise.shape), noise, 1.0)).mean(0)
  expected = np.asarray(jax.nn.softmax(scores[0]))
  deviation = np.sqrt(expected * (1 - expected) / count)
  assert (np.abs(found - expected) < 4 * deviation).all()


def test_noise_belongs_to_the_example_and_the_step():
  index = jnp.array([5, 9, 2**31 - 1, 0])
  key = jax.random.key(0)
  noise = gumbel.draw(key, index, 3)
  np.testing.assert_array_equal(gumbel.draw(key, index[::-1], 3), noise[::-1])
  np.testing.assert_array_equal(gumbel.draw(key, index[1:2], 3), noise[1:2])
  assert (gumbel.draw(jax.random.key(1), index, 3) != noise).all()


def test_noise_is_not_that_of_the_flips():
  """Drawn with the same key, an example's flip would tell its noise."""
  index, key = jnp.arange(4000), jax.random.key(0)
  flips = np.asarray(preprocess.draw_flips(key, index, (2, 1), 'independent'))
  noise = np.asarray(gumbel.draw(key, index, 2))
  for flip in flips:
    assert np.abs(np.corrcoef(flip, noise.T)[0, 1:]).max() < 0.07


def test_the_temperature_stays_or_falls():
  np.testing.assert_allclose([gumbel.temperature(p, 2.0, 2.0) for p in (0, 0.3, 1)], 2.0, rtol=1e-6)
  falling = [float(gumbel.temperature(p, 4.0, 0.25)) for p in (0, 0.25, 0.5, 0.75, 1)]
  np.testing.assert_allclose(falling, [4, 2, 1, 0.5, 0.25], rtol=1e-6)
