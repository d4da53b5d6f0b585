"""Where arrays stand: states whole on every device, batches split over them, rows back in order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import SingleDeviceSharding

from configs import default
from resjax import compiling
from resjax.training import devices
from resjax.training.devices import Devices

WAYS = ['shard_map', 'pmap']


def batch(size=16):
  pixels = np.arange(size * 6, dtype=np.uint8).reshape(size, 2, 3)
  return {'images': (pixels,), 'index': np.arange(size, dtype=np.int32)}


def test_all_devices_are_one_axis_unless_some_are_named():
  assert Devices().mesh.shape == {'data': 8} and Devices().devices == jax.devices()
  few = Devices(devices=jax.devices()[2:5])
  assert few.mesh.shape == {'data': 3} and list(few.mesh.devices) == jax.devices()[2:5]
  assert few.platform == 'cpu' and few.parallel == 'shard_map'


def test_an_unknown_way_is_one_line():
  with pytest.raises(ValueError, match=r"^parallel: got 'vmap', expected one of shard_map, pmap$"):
    Devices('vmap')


def test_batch_norm_of_one_image_at_a_time_is_told_of():
  def note(count=8, **fields):
    config = default.get_config()
    config.update_from_flattened_dict({'batch_size': 8} | {k.replace('__', '.'): v for k, v in fields.items()})
    return Devices(devices=jax.devices()[:count]).alone_note(config)

  assert note() == (
    'config.batch_size: 8 on 8 devices: BatchNorm learns from one image at a time, of which a map of one pixel says '
    'nothing; expected two images or more on each device, or config.sync_batch_norm=True'
  )
  alone = note(1, batch_size=1)
  assert alone.startswith('config.batch_size: 1 on 1 device: ') and alone.endswith(
    '; expected two images or more on it'
  )
  assert note(1, batch_size=1, sync_batch_norm=True) and note(method='drnet', drnet__statistics='all')
  frozen = {'method': 'drnet', 'drnet__statistics': 'all', 'drnet__frozen': True}
  others = {'sync_batch_norm': True}, {'optimizer__statistics': 'kept'}, {'method': 'drnet'}, {'model__name': 'own:net'}
  for fields in (frozen, {'batch_size': 16}, *others):
    assert note(**fields) is None, fields


def test_pmap_is_for_one_host(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(ValueError, match=r"^parallel: got 'pmap' on 2 hosts, expected 'shard_map'$"):
    Devices('pmap')


def test_what_is_made_stands_whole_on_every_device_in_a_buffer_of_its_own():
  place = Devices()
  made = place.create(lambda x: {'a': x, 'b': x, 'c': 2 * x}, np.arange(3.0, dtype=np.float32))
  for name, factor in (('a', 1), ('b', 1), ('c', 2)):
    assert made[name].sharding == place.replicated
    for shard in made[name].addressable_shards:
      np.testing.assert_array_equal(shard.data, factor * np.arange(3.0))
  buffers = [shard.data.unsafe_buffer_pointer() for leaf in made.values() for shard in leaf.addressable_shards]
  assert len(set(buffers)) == len(buffers) == 24


def test_shapes_are_those_of_what_would_be_made():
  place, make = Devices(), lambda key: {'w': jax.random.normal(key, (2, 3)), 'n': jnp.zeros((), jnp.int32)}
  described = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), tree)
  shapes = place.shapes(make, jax.random.key(0))
  assert described(shapes) == described(place.create(make, jax.random.key(0)))
  assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(shapes))


def test_placed_takes_shapes_and_types_and_one_sharding():
  sharding = SingleDeviceSharding(jax.devices()[3])
  expected = {'a': jax.ShapeDtypeStruct((2, 3), np.uint8, sharding=sharding)}
  assert devices.placed({'a': np.zeros((2, 3), np.uint8)}, sharding) == expected


def test_a_batch_is_split_in_order():
  put = Devices().put(batch())
  shards = sorted(put['index'].addressable_shards, key=lambda shard: shard.device.id)
  np.testing.assert_array_equal([shard.data for shard in shards], np.arange(16).reshape(8, 2))
  assert put['images'][0].shape == (16, 2, 3) and put['images'][0].sharding == Devices().split


def test_a_batch_for_pmap_has_an_axis_of_devices():
  put = Devices('pmap', jax.devices()[:4]).put(batch())
  np.testing.assert_array_equal(put['index'], np.arange(16).reshape(4, 4))
  np.testing.assert_array_equal(put['images'][0].reshape(16, 2, 3), batch()['images'][0])


@pytest.mark.parametrize('parallel', WAYS)
def test_rows_of_an_evaluation_come_back_in_the_order_of_the_batch(parallel):
  place = Devices(parallel)

  def body(variables, batch):
    return {'row': batch['index'] * variables, 'device': 0 * batch['index'] + jax.lax.axis_index('data')}

  found = place.eval(body)(jnp.int32(10), place.put(batch()))
  np.testing.assert_array_equal(found['row'], 10 * np.arange(16))
  np.testing.assert_array_equal(found['device'], np.repeat(np.arange(8), 2))
  assert isinstance(found['row'], np.ndarray)


@pytest.mark.parametrize('parallel', WAYS)
def test_a_training_step_sees_its_part_and_gives_up_the_old_state(parallel):
  place = Devices(parallel)
  step = place.train(lambda state, batch: (state + jax.lax.psum(batch['index'].sum(), 'data'), jnp.zeros(())))
  old = place.create(jnp.int32, 5)
  new, _ = step(old, place.put(batch()))
  assert int(new) == 5 + sum(range(16)) and old.is_deleted()


def test_what_is_made_once_is_compiled_quickly_to_the_same_numbers(monkeypatch):
  """Bit for bit: seeds draw the networks that they drew before."""
  make = lambda key: {
    'kernel': nn.initializers.he_normal()(key, (3, 3, 4, 5)),
    'bias': 0.1 * jax.random.normal(key, (33,)) + 1.0,
  }
  key = jax.random.key(3)
  monkeypatch.setenv('XLA_FLAGS', '')
  assert compiling.quick('gpu') == {} and compiling.quick('cpu') == {compiling.LEVEL: 1}
  made, expected = (
    Devices(devices=jax.devices()[:1]).create(make, key),
    jax.jit(make, compiler_options={compiling.LEVEL: 3})(key),
  )
  jax.tree.map(np.testing.assert_array_equal, made, expected)
  monkeypatch.setenv('XLA_FLAGS', f'--{compiling.LEVEL}=3')
  assert compiling.quick('cpu') == {}
