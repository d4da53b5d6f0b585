"""One step's body under two wrappers and on one or eight devices: the same numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from configs import default
from resjax import models, rsnet
from resjax.planning import compiler
from resjax.training import optimizer, state, step
from resjax.training.devices import Devices

RESOLUTIONS = (16, 8)
TINY = {'name': 'resnet_small', 'num_classes': 5, 'width': 0.25, 'stages': (1,)}
BATCH = 32

# Sums in another order, over three steps at a learning rate of 0.1.
TOLERANCE = 2e-5


def make_config(**fields):
  config = default.get_config()
  config.resolutions = RESOLUTIONS
  config.batch_size = BATCH
  config.data.flip = 'independent'
  for name, value in fields.items():
    setattr(config, name, value)
  return config


def batches(count=3):
  rng = np.random.default_rng(0)
  return [
    {
      'images': (rng.integers(0, 256, (BATCH, 16, 16, 3), np.uint8),),
      'label': rng.integers(0, 5, BATCH).astype(np.int32),
      'index': np.arange(i * BATCH, (i + 1) * BATCH, dtype=np.int32),
    }
    for i in range(count)
  ]


class Setup:
  """A tiny RS-Net on some devices."""

  def __init__(self, config, count, parallel='shard_map', accumulate=1, ema=0.0):
    config.optimizer.accumulate = accumulate
    axis_name = step.AXIS if config.sync_batch_norm else None
    model = models.create(**TINY, axis_name=axis_name)
    self.devices = Devices(parallel, jax.devices()[:count])
    tx = optimizer.create(config, 10, 100)
    self.body = step.make_train_step(rsnet.make_loss_fn(model, config), tx, seed=0, ema_decay=ema, parallel=parallel)
    self.train = self.devices.train(self.body)
    self.eval = self.devices.eval(rsnet.make_eval_fn(model, config))
    self._make = jax.jit(
      lambda key: state.create(rsnet.init(model, config, key), tx, ema=ema > 0), out_shardings=self.devices.replicated
    )
    self.fresh()

  def fresh(self):
    self.state = self._make(jax.random.key(0))
    return self

  def run(self, items):
    for batch in items:
      self.state, metrics = self.train(self.state, self.devices.put(batch))
    return jax.device_get(self.state), jax.device_get(metrics)


@functools.cache
def setup_on(count, parallel, sync):
  """One compiled step per kind; tests that change the state begin with `fresh`."""
  return Setup(make_config(sync_batch_norm=sync), count, parallel)


@functools.cache
def reference(count, parallel, sync):
  return setup_on(count, parallel, sync).fresh().run(batches())


def check(got, expected):
  (state_a, metrics_a), (state_b, metrics_b) = got, expected
  for (path, a), (_, b) in zip(
    jax.tree_util.tree_leaves_with_path((state_a, metrics_a)),
    jax.tree_util.tree_leaves_with_path((state_b, metrics_b)),
    strict=True,
  ):
    scale = max(1.0, float(np.abs(b).max()))
    np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * scale, err_msg=jax.tree_util.keystr(path))


def test_eight_devices_compute_what_one_does_with_synchronised_batch_norm():
  check(reference(8, 'shard_map', True), reference(1, 'shard_map', True))


@pytest.mark.parametrize('sync', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_pmap_computes_what_shard_map_does(sync):
  check(reference(8, 'pmap', sync), reference(8, 'shard_map', sync))


def test_per_device_batch_norm_is_the_split_computed_by_hand():
  """Eight parts of the batch, each normalised by itself; gradients, statistics and metrics averaged."""
  config = make_config()
  model = models.create(**TINY)
  tx = optimizer.create(config, 10, 100)
  loss_fn = rsnet.make_loss_fn(model, config)
  current = jax.jit(lambda key: state.create(rsnet.init(model, config, key), tx))(jax.random.key(0))

  @jax.jit
  def part(current, batch):
    key = jax.random.fold_in(jax.random.key(0), current.step)
    grad = jax.value_and_grad(loss_fn, has_aux=True)
    (_, aux), grads = grad(current.params, current.batch_stats, batch, key)
    return grads, *aux

  for batch in batches():
    parts = [part(current, jax.tree.map(lambda x, i=i: x[i * 4 : i * 4 + 4], batch)) for i in range(8)]
    grads, statistics, metrics = jax.tree.map(lambda *x: sum(x) / 8, *parts)
    updates, opt_state = tx.update(grads, current.opt_state, current.params)
    params = optax.apply_updates(current.params, updates)
    metrics['gradient_norm'] = optax.tree.norm(grads)
    current = state.TrainState(current.step + 1, params, statistics, opt_state)
  check(reference(8, 'shard_map', False), (jax.device_get(current), jax.device_get(metrics)))


def test_the_mean_of_gradients_alone_would_be_eight_times_too_large():
  """Why the step averages the loss inside the differentiated function as well (jax.shard_map's default check)."""
  mesh = Devices().mesh
  x = jnp.arange(8.0)

  def body(w, x, inside):
    loss = lambda w: (w * x).sum() if not inside else jax.lax.pmean((w * x).sum(), 'data')
    return jax.lax.pmean(jax.grad(loss)(w), 'data')

  run = lambda inside: jax.jit(
    jax.shard_map(functools.partial(body, inside=inside), mesh=mesh, in_specs=(P(), P('data')), out_specs=P())
  )(1.0, x)
  assert float(run(True)) == x.mean() and float(run(False)) == 8 * x.mean()


def test_plain_jit_over_a_split_batch_would_be_synchronised_batch_norm():
  """Why the step is an SPMD body: the global view normalises over all devices, with one all-reduce a layer."""
  config = make_config()
  setup = setup_on(8, 'shard_map', False).fresh()
  model = models.create(**TINY)
  batch = batches(1)[0]
  loss_fn = jax.jit(rsnet.make_loss_fn(model, config))
  key = jax.random.fold_in(jax.random.key(0), 0)
  params, statistics = setup.state.params, setup.state.batch_stats
  _, (global_view, _) = loss_fn(params, statistics, setup.devices.put(batch), key)
  _, (one_device, _) = loss_fn(*jax.device_get((params, statistics)), batch, key)
  got, _ = setup.run([batch])
  variances = lambda statistics: np.concatenate([v.ravel() for v in jax.tree.leaves(statistics)])
  np.testing.assert_allclose(variances(global_view), variances(one_device), rtol=0, atol=1e-5)
  assert np.abs(variances(got.batch_stats) - variances(global_view)).max() > 1e-3


def test_gradients_and_statistics_are_exchanged_once():
  setup = setup_on(8, 'shard_map', False).fresh()
  batch = setup.devices.put(batches(1)[0])
  text = setup.train.lower(setup.state, batch).compile().as_text()
  size = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
  exchanged = compiler.collectives(text)['all-reduce'] - size((setup.state.params, setup.state.batch_stats))
  assert 0 <= exchanged < 200  # the rest are metrics, scalars


def test_one_compilation_serves_all_steps():
  setup = setup_on(8, 'shard_map', False).fresh()
  setup.run(batches(4))
  assert setup.train._cache_size() == 1


def test_the_state_can_be_donated():
  """Private copies that alias one buffer could not be: the state is built inside jit, and the old one is reused."""
  setup = setup_on(8, 'shard_map', False).fresh()
  shards = [shard.data for leaf in jax.tree.leaves(setup.state) for shard in leaf.addressable_shards]
  assert len({shard.unsafe_buffer_pointer() for shard in shards}) == len(shards)
  old = setup.state
  setup.run(batches(1))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))


@pytest.mark.parametrize('parallel', ['shard_map', 'pmap'])
def test_evaluation_gives_one_rank_per_image_and_resolution(parallel):
  setup, alone = setup_on(8, parallel, False).fresh(), setup_on(1, 'shard_map', False).fresh()
  batch = batches(1)[0]
  ranks = setup.eval(setup.state.variables, setup.devices.put(batch))['ranks']
  assert ranks.shape == (BATCH, 3) and ranks.dtype == np.int32
  np.testing.assert_array_equal(ranks, alone.eval(alone.state.variables, alone.devices.put(batch))['ranks'])


def test_accumulation_averages_the_gradients_of_its_steps():
  """Two batches in one update of plain SGD move as far as the mean of their gradients says."""
  config = make_config()
  config.optimizer.schedule = 'constant'
  config.optimizer.momentum = 0.0
  config.optimizer.weight_decay = 0.0
  setup = Setup(config, 1, accumulate=2)
  before = jax.device_get(setup.state)
  first, second = batches(2)
  middle, _ = setup.run([first])
  for a, b in zip(jax.tree.leaves(middle.params), jax.tree.leaves(before.params), strict=True):
    np.testing.assert_array_equal(a, b)
  after, _ = setup.run([second])
  single = Setup(config, 1)
  moves = []
  for number, batch in enumerate((first, second)):
    start = jax.tree.map(jnp.array, before)
    start = start.replace(
      step=jnp.int32(number), opt_state=single.state.opt_state, batch_stats=(before, middle)[number].batch_stats
    )
    end, _ = jax.jit(jax.shard_map(single.body, mesh=single.devices.mesh, in_specs=(P(), P('data')), out_specs=P()))(
      start, batch
    )
    moves.append(jax.tree.map(lambda a, b: np.asarray(a) - b, end.params, before.params))
  expected = jax.tree.map(lambda p, a, b: p + (a + b) / 2, before.params, *moves)
  for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)
  assert int(after.step) == 2


@pytest.mark.parametrize('accumulate', [1, 2])
def test_the_averages_of_parameters_and_statistics_follow_and_are_what_is_evaluated(accumulate):
  """At first quickly: the average keeps 1/10, 2/11, 3/12, ... of itself, until that is more than the decay."""
  setup = Setup(make_config(), 1, accumulate=accumulate, ema=0.18)
  ema = jax.device_get({'params': setup.state.params, 'batch_stats': setup.state.batch_stats})
  decays = iter([1 / 10, 0.18, 0.18, 0.18])  # 2/11 is more than 0.18
  for number, batch in enumerate(batches(4)):
    current, _ = setup.run([batch])
    if number % accumulate == accumulate - 1:  # the last of the steps makes the update
      d = next(decays)
      now = {'params': current.params, 'batch_stats': current.batch_stats}
      ema = jax.tree.map(lambda e, n, d=d: d * e + (1 - d) * n, ema, now)
    for a, b in zip(jax.tree.leaves(current.variables), jax.tree.leaves(ema), strict=True):
      np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_the_average_of_parameters_that_do_not_move_does_not_move_by_a_bit():
  """As those of a frozen network: 0.9 p + 0.1 p is not p in floating point."""
  config = make_config()
  config.optimizer.learning_rate = 0.0
  setup = Setup(config, 1, ema=0.9)
  before = jax.device_get(setup.state.params)
  after, _ = setup.run(batches(2))
  for a, b in zip(jax.tree.leaves(after.ema['params']), jax.tree.leaves(before), strict=True):
    np.testing.assert_array_equal(a, b)


def test_bfloat16_keeps_float32_state():
  config = make_config()
  model = models.create(**TINY, dtype='bfloat16')
  variables = jax.jit(lambda key: rsnet.init(model, config, key))(jax.random.key(0))
  loss, (statistics, _) = jax.jit(rsnet.make_loss_fn(model, config))(
    variables['params'], variables['batch_stats'], batches(1)[0], jax.random.key(0)
  )
  assert loss.dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves((variables, statistics))} == {jnp.dtype('float32')}
