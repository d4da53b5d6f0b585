"""The quantiser: levels, thresholds, codes, a step of least squares against NumPy in float64, averages, gradients."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from resjax import quantisation as q

fit = jax.jit(q.fit, static_argnums=2)
quantise = jax.jit(q.quantise, static_argnums=2)


def weights(bits, shape=(3, 3, 4, 6), seed=0):
  """Weights as they begin, and their first basis."""
  fan_out = shape[0] * shape[1] * shape[-1]
  x = jax.random.normal(jax.random.key(seed), shape) * (2 / fan_out) ** 0.5
  return x, q.first_weights(bits, fan_out, shape[-1])


def activations(bits, shape=(4, 5, 5, 3), seed=0):
  return jax.nn.relu(jax.random.normal(jax.random.key(seed), shape)), q.first_activations(bits)


def reference(x, basis, signed):
  """What one filter, or one layer, becomes: values, codes and the next basis, in float64, by trying all levels."""
  x, basis = np.asarray(x, float).ravel(), np.asarray(basis, float)
  codes = q.codes(len(basis), signed).astype(float)
  near = np.abs(x[:, None] - (codes @ basis)[None]).argmin(1)
  b = codes[near]
  ridge = 1e-4 if signed else 0
  new = np.linalg.solve(b.T @ b + ridge * np.eye(len(basis)), b.T @ x + ridge * basis)
  return b @ basis, b, new


def test_first_bases():
  # 2^j 0.6745 sqrt(2 / (3 * 3 * 64)) / 2 and 2^j 0.6745 * 2 / 3, by hand
  first = q.first_weights(2, 3 * 3 * 64, 5)
  np.testing.assert_allclose(first, [[0.019873, 0.039745]] * 5, rtol=1e-4)
  np.testing.assert_allclose(q.first_activations(2), [0.449667, 0.899333], rtol=1e-6)
  np.testing.assert_allclose(q.first_activations(1), [1.349], rtol=1e-6)


def test_levels_thresholds_codes_and_values_by_hand():
  rising, codes = q.levels(jnp.array([1.0, 3.0]), True)
  np.testing.assert_array_equal(rising, [-4, -2, 2, 4])
  np.testing.assert_array_equal(codes, [[-1, -1], [1, -1], [-1, 1], [1, 1]])
  np.testing.assert_array_equal(q.thresholds(rising), [-3, 0, 3])
  x = jnp.array([-9.0, -3.0, -2.9, 0.0, 0.1, 3.0, 3.1])  # on a threshold the lower one
  np.testing.assert_array_equal(q.places(x, jnp.array([1.0, 3.0]), True), [0, 0, 1, 1, 2, 2, 3])
  np.testing.assert_array_equal(quantise(x, jnp.array([1.0, 3.0]), True), [-4, -4, -2, -2, 2, 2, 4])
  rising, codes = q.levels(jnp.array([3.0, 1.0]), False)  # whatever the basis's own order
  np.testing.assert_array_equal(rising, [0, 1, 3, 4])
  np.testing.assert_array_equal(codes, [[0, 0], [0, 1], [1, 0], [1, 1]])
  np.testing.assert_array_equal(quantise(jnp.array([0.4, 1.9, 2.1, 50.0]), jnp.array([3.0, 1.0]), False), [0, 1, 3, 4])


@pytest.mark.parametrize('bits', [1, 2, 3, 4])
def test_weights_take_as_many_values_as_bits_say_in_each_filter(bits):
  x, basis = weights(bits, (3, 3, 16, 6))
  y = np.asarray(quantise(x, basis, True))
  for filter_, own in zip(y.reshape(-1, 6).T, np.asarray(basis)):
    assert len(set(filter_.tolist())) == 2**bits
    assert set(filter_.tolist()) <= set((q.codes(bits, True) @ own).tolist())
  assert len(np.unique(quantise(*activations(bits), False))) == 2**bits
  np.testing.assert_array_equal(quantise(jnp.asarray(y), basis, True), y)  # quantised weights stay


@pytest.mark.parametrize('bits', [1, 2, 3])
def test_a_step_of_least_squares_is_that_of_numpy(bits):
  x, basis = weights(bits)
  new, count = fit(x, basis, True)
  assert count == x.size
  for c in range(x.shape[-1]):
    values, _, expected = reference(x[..., c], basis[c], True)
    np.testing.assert_allclose(quantise(x, basis, True)[..., c].ravel(), values, rtol=1e-6)
    np.testing.assert_allclose(new[c], expected, rtol=1e-4)
  x, basis = activations(bits)
  new, count = fit(x, basis, False)
  values, _, expected = reference(x, basis, False)
  assert count == x.size
  np.testing.assert_allclose(quantise(x, basis, False).ravel(), values, rtol=1e-6)
  np.testing.assert_allclose(new, expected, rtol=1e-4)


def test_the_ridge_of_weights_is_one_in_ten_thousand():
  """Four weights, each with a code of its own: `B^T B` is 4 I, and the step to their own basis 4 / 4.0001 of it."""
  basis, own = np.array([1.0, 3.0]), np.array([1.2, 3.3])
  x = (q.codes(2, True) @ own).reshape(2, 2, 1, 1)
  new, _ = fit(jnp.asarray(x, jnp.float32), jnp.asarray(basis[None], jnp.float32), True)
  np.testing.assert_allclose(new[0], basis + (own - basis) * 4 / (4 + 1e-4), rtol=1e-6)


@pytest.mark.parametrize(('make', 'signed'), [(weights, True), (activations, False)])
def test_the_error_falls_from_step_to_step(make, signed):
  x, basis = make(2)
  errors = []
  for _ in range(8):
    errors.append(float(((quantise(x, basis, signed) - x) ** 2).mean()))
    basis, _ = fit(x, basis, signed)
  assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(errors))
  assert errors[-1] < 0.9 * errors[0]
  # Of a normal distribution and 4 levels the least is 0.1175 of the variance (Max, 1960).
  if signed:
    x = jax.random.normal(jax.random.key(0), (200, 100, 1, 1))
    basis = jnp.array([[0.5, 1.0]])
    for _ in range(30):
      basis, _ = fit(x, basis, True)
    assert float(((quantise(x, basis, True) - x) ** 2).mean()) == pytest.approx(0.1175, rel=0.03)


def test_what_nothing_uses_stays():
  basis = q.first_activations(2)
  new, count = q.fit(jnp.zeros((2, 3, 3, 4)), basis, False)
  np.testing.assert_array_equal(new, basis)
  x = jnp.full((1, 2, 2, 3), basis[0])  # the second bit is never set
  new, _ = fit(x + 0.01, basis, False)
  np.testing.assert_allclose(new, basis + jnp.array([0.01, 0]), rtol=1e-5)


def test_a_mask_counts_the_same_as_fewer_images():
  x, basis = activations(2, (6, 4, 4, 3))
  mask = jnp.array([1, 0, 1, 1, 0, 0])
  new, count = fit(x, basis, False, mask=mask)
  expected, _ = fit(x[jnp.array([0, 2, 3])], basis, False)
  np.testing.assert_allclose(new, expected, rtol=1e-6)
  assert count == 3 * 4 * 4 * 3
  _, count = fit(x, basis, False, mask=jnp.zeros(6))
  assert count == 0


def test_devices_that_fit_together_find_what_one_does():
  x, basis = activations(2, (8, 4, 4, 3))
  mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  together = functools.partial(q.fit, signed=False, axis_name='data')
  new, count = jax.jit(jax.shard_map(together, mesh=mesh, in_specs=(P('data'), P()), out_specs=P()))(x, basis)
  expected, number = fit(x, basis, False)
  np.testing.assert_allclose(new, expected, rtol=1e-5)
  assert count == number


def test_the_average_is_debiased_and_forgets_its_start():
  rng = np.random.default_rng(0)
  found = rng.normal(size=(5, 3, 2)).astype(np.float32)
  average, left = jnp.full((3, 2), 1e6), jnp.ones(())
  for t, new in enumerate(found, 1):
    average, left = jax.jit(q.follow)(average, left, new)
    terms = [0.1 * 0.9 ** (t - i) * v.astype(float) for i, v in enumerate(found[:t], 1)]
    np.testing.assert_allclose(average, sum(terms) / (1 - 0.9**t), rtol=1e-5, atol=1e-6)
    if t == 1:
      np.testing.assert_array_equal(average, new)


def test_gradients_go_straight_through_and_end_at_the_highest_level():
  x, basis = weights(2)
  weight = jax.random.normal(jax.random.key(1), x.shape)
  grads = jax.grad(lambda x, b: (quantise(x, b, True) * weight).sum(), argnums=(0, 1))(x, basis)
  np.testing.assert_array_equal(grads[0], weight)
  np.testing.assert_array_equal(grads[1], 0)
  basis = jnp.array([1.0, 2.0])
  x = jnp.array([0.0, 0.2, 2.9, 3.0, 3.0001, 7.0])
  slope = jax.grad(lambda x: quantise(x, basis, False).sum())(x)
  np.testing.assert_array_equal(slope, [1, 1, 1, 1, 0, 0])
  # It is the difference quotient of what the step is taken for: the clipped value itself, kinks left out.
  inside = np.array([0.2, 2.9, 3.5, 7.0])
  differences = (np.minimum(inside + 1e-3, 3) - np.minimum(inside - 1e-3, 3)) / 2e-3
  slope = jax.grad(lambda x: quantise(x, basis, False).sum())
  np.testing.assert_allclose(slope(jnp.asarray(inside)), differences, atol=1e-9)
