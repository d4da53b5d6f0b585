"""The state before the first step, and which of its parameters are evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resjax import checkpoint
from resjax.training import state
from resjax.training.checkpoints import Checkpoints
from resjax.training.devices import Devices

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
  kernel, average = fresh.params['shared']['kernel'], fresh.ema['params']['shared']['kernel']
  np.testing.assert_array_equal(average, kernel)
  assert average.unsafe_buffer_pointer() != kernel.unsafe_buffer_pointer()


@pytest.mark.parametrize('ema', [False, True])
def test_the_average_is_what_is_evaluated_where_there_is_one(ema):
  trained = create(ema=ema)
  more = lambda tree: jax.tree.map(lambda x: x + 1, tree)
  trained = trained.replace(params=more(trained.params), batch_stats=more(trained.batch_stats))
  expected = np.arange(6.0) + (0 if ema else 1)
  np.testing.assert_array_equal(trained.variables['params']['shared']['kernel'], expected)
  np.testing.assert_array_equal(trained.variables['batch_stats']['8']['mean'], np.ones(2) + (0 if ema else 1))


def test_a_state_is_arrays_alone():
  """So that it can be saved, donated and put on devices: nothing that is no array, and keys follow from the step."""
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(create(ema=True)))
  assert not any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(create(ema=True)))


def test_an_average_of_parameters_alone_is_read_with_the_statistics_beside_it(tmp_path):
  """As version 0.1 kept it."""
  devices = Devices(devices=jax.devices()[:1])
  now = devices.create(lambda: create(ema=True))
  more = lambda tree: jax.tree.map(lambda x: x + 1, tree)
  older = now.replace(ema=more(now.ema['params']), batch_stats=more(now.batch_stats))
  expected = jax.device_get({'params': older.ema, 'batch_stats': older.batch_stats})
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(older, {'train_seconds': 1.0}, None)
  with Checkpoints(tmp_path) as checkpoints:
    restored = checkpoints.restore(now)
  jax.tree.map(np.testing.assert_array_equal, restored.ema, expected)
  jax.tree.map(np.testing.assert_array_equal, restored.params, now.params)
  jax.tree.map(np.testing.assert_array_equal, checkpoint.load(tmp_path).variables, expected)
  average, running = (tree['8']['mean'] for tree in (restored.ema['batch_stats'], restored.batch_stats))
  assert average.unsafe_buffer_pointer() != running.unsafe_buffer_pointer()  # both will be donated
