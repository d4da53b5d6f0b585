"""Checkpoints come back bit for bit, on other devices too; the latest and the best are kept."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resjax import checkpoint
from resjax.training import state
from resjax.training.devices import Devices

VARIABLES = {
  'params': {'shared': {'w': jnp.arange(12.0).reshape(3, 4) / 7}, 'private': {'8': {}}},
  'batch_stats': {'8': {'bn': {'mean': jnp.ones(3)}}},
}
TX = optax.chain(optax.trace(0.9), optax.scale(-0.1))


def make(devices, step=0):
  def fresh():
    made = state.create(VARIABLES, TX, ema=True)
    return made.replace(step=made.step + step, params=jax.tree.map(lambda x: x + step, made.params))

  return devices.create(fresh)


def same(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


def test_a_state_comes_back_bit_for_bit_on_another_number_of_devices(tmp_path):
  one, eight = Devices(devices=jax.devices()[:1]), Devices()
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest is None
    checkpoints.save(make(one, 5), {'config': {'resolutions': [8, 4]}, 'train_seconds': 1.5}, None)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest == 5 and checkpoints.steps == [5]
    assert checkpoints.meta() == {'config': {'resolutions': [8, 4]}, 'train_seconds': 1.5}
    restored = checkpoints.restore(make(eight))
  same(restored, make(one, 5))
  assert {leaf.sharding for leaf in jax.tree.leaves(restored)} == {eight.replicated}


def test_the_latest_and_the_best_are_kept(tmp_path):
  devices = Devices(devices=jax.devices()[:1])
  with checkpoint.Checkpoints(tmp_path, keep=2) as checkpoints:
    for step, accuracy in ((1, 0.9), (2, 0.5), (3, None), (4, 0.6), (5, 0.7)):
      scores = None if accuracy is None else {checkpoint.BEST: accuracy}
      checkpoints.save(make(devices, step), {'config': {}}, scores)
      checkpoints.wait()
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.steps == [1, 4, 5]
    same(checkpoints.restore(make(devices), step=1), make(devices, 1))


def test_a_save_that_was_cut_short_is_not_the_latest(tmp_path):
  devices = Devices(devices=jax.devices()[:1])
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(make(devices, 3), {'config': {}}, None)
  (tmp_path / 'checkpoints' / '7.orbax-checkpoint-tmp').mkdir()
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest == 3
    same(checkpoints.restore(make(devices)), make(devices, 3))


def test_a_damaged_checkpoint_is_named(tmp_path):
  devices = Devices(devices=jax.devices()[:1])
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(make(devices, 3), {'config': {}}, None)
  for path in (tmp_path / 'checkpoints' / '3' / 'state').rglob('*'):
    if path.is_file():
      path.write_bytes(b'')
  with (
    checkpoint.Checkpoints(tmp_path) as checkpoints,
    pytest.raises(ValueError, match='checkpoints/3: .*expected a whole checkpoint') as error,
  ):
    checkpoints.restore(make(devices))
  assert '\n' not in str(error.value)


def test_saving_a_step_twice_keeps_it(tmp_path):
  devices = Devices(devices=jax.devices()[:1])
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(make(devices, 3), {'config': {}}, None)
    checkpoints.save(make(devices, 3), {'config': {}}, None)
    assert checkpoints.steps == [3]
