"""The state before the first step, and which of its parameters are evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resjax.training import state

VARIABLES = {
  'params': {'shared': {'kernel': np.arange(6.0, dtype=np.float32)}},
  'batch_stats': {'8': {'mean': np.ones(2)}},
}


def create(**options):
  return state.create(jax.tree.map(jnp.asarray, VARIABLES), optax.sgd(0.1, momentum=0.9), **options)


def test_before_the_first_step():
  fresh = create()
  assert fresh.step.dtype == jnp.int32 and fresh.step.shape == () and int(fresh.step) == 0
  jax.tree.map(np.testing.assert_array_equal, fresh.variables, VARIABLES)
  momentum = jax.tree.leaves(fresh.opt_state)
  assert [leaf.shape for leaf in momentum] == [(6,)] and not momentum[0].any()
  assert fresh.ema is None


def test_the_average_begins_at_the_parameters_in_memory_of_its_own():
  fresh = create(ema=True)
  kernel, average = fresh.params['shared']['kernel'], fresh.ema['shared']['kernel']
  np.testing.assert_array_equal(average, kernel)
  assert average.unsafe_buffer_pointer() != kernel.unsafe_buffer_pointer()


@pytest.mark.parametrize('ema', [False, True])
def test_the_average_is_what_is_evaluated_where_there_is_one(ema):
  trained = create(ema=ema)
  trained = trained.replace(params=jax.tree.map(lambda x: x + 1, trained.params))
  expected = np.arange(6.0) + (0 if ema else 1)
  np.testing.assert_array_equal(trained.variables['params']['shared']['kernel'], expected)
  assert trained.variables['batch_stats'] is trained.batch_stats


def test_a_state_is_arrays_alone():
  """So that it can be saved, donated and put on devices: nothing that is no array, and keys follow from the step."""
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(create(ema=True)))
  assert not any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(create(ema=True)))
