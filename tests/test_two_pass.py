"""One resolution at a time computes what all together do: loss, gradients, statistics, averages."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

from configs import default
from resjax import config as configuration
from resjax import rsnet
from resjax.training import optimizer, run, state, step, two_pass
from resjax.training.devices import Devices
from resjax.training.given import Given, Step

RESOLUTIONS = (16, 8)
BATCH = 16

# Float32 sums in another order, relative to the norm of all gradients.
TOLERANCE = 1e-5


class Net(nn.Module):
  """As small as a network with a BatchNorm in its middle can be: many programs are compiled here."""

  axis_name: str | None = None

  @nn.compact
  def __call__(self, x, *, train):
    x = nn.Conv(4, (3, 3), strides=2, use_bias=False)(x)
    x = nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=self.axis_name)(x)
    return nn.Dense(5)(nn.relu(x).mean((1, 2)))


def make_config(**fields):
  config = default.get_config()
  config.resolutions = RESOLUTIONS
  config.batch_size = BATCH
  config.data.flip = 'independent'
  config.update_from_flattened_dict(fields)
  return config


def batches(count, sizes=RESOLUTIONS[:1]):
  rng = np.random.default_rng(0)
  return [
    {
      'images': tuple(rng.integers(0, 256, (BATCH, size, size, 3), np.uint8) for size in sizes),
      'label': rng.integers(0, 5, BATCH).astype(np.int32),
      'index': np.arange(i * BATCH, (i + 1) * BATCH, dtype=np.int32),
    }
    for i in range(count)
  ]


def both_ways(config, count, tx):
  """The joint step, the step in two passes, and a state for each of them."""
  model = Net(axis_name=step.AXIS if config.sync_batch_norm else None)
  devices = Devices(devices=jax.devices()[:count])
  decay = config.optimizer.ema_decay
  given_of = lambda now: Given(jax.random.key_data(step.key_of(config.seed, now.step)), 0, {}, decay, {})
  joint = step.make_train_step(rsnet.make_loss_fn(model, config), tx, seed=config.seed, ema_decay=decay)
  steps = devices.train(joint), two_pass.make_train_step(model, config, lambda _: tx, devices, given_of)

  def fresh(key):
    variables = rsnet.init(model, config, key)
    alpha = jax.numpy.array([0.5, -1.0, 0.25])  # unequal, so that the ensemble is no plain mean
    variables['params']['alpha'] = alpha[: len(config.resolutions)]
    return state.create(variables, tx, ema=decay > 0)

  make = jax.jit(fresh, out_shardings=devices.replicated)
  return devices, [(take, make(jax.random.key(1))) for take in steps]


def compare(config, count=1, sizes=RESOLUTIONS[:1]):
  """One step of each: metrics, statistics and, in the momentum of its first step, the gradients."""
  devices, ways = both_ways(config, count, optax.chain(optax.trace(0.9), optax.scale(-0.1)))
  batch = devices.put(batches(1, sizes)[0])
  (joint, metrics), (ours, ours_metrics) = (jax.device_get(take(start, batch)) for take, start in ways)
  assert metrics.keys() == ours_metrics.keys()
  for name, value in metrics.items():
    np.testing.assert_allclose(ours_metrics[name], value, rtol=TOLERANCE, atol=1e-7, err_msg=name)
  close(ours.opt_state[0].trace, joint.opt_state[0].trace)
  close(ours.opt_state[0].trace['alpha'], joint.opt_state[0].trace['alpha'])
  close(ours.params, joint.params)
  close(ours.batch_stats, joint.batch_stats)
  return joint


def close(got, expected):
  """Equal to within the tolerance in norm, and no leaf left out."""
  jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.shape, got), jax.tree.map(np.shape, expected))
  difference = optax.tree.norm(jax.tree.map(np.subtract, got, expected))
  assert difference <= TOLERANCE * optax.tree.norm(expected)


@pytest.mark.parametrize('kind', ['full', pytest.param('vanilla', marks=pytest.mark.slow), 'none'])
def test_the_gradient_is_that_of_all_resolutions_together(kind):
  joint = compare(make_config(distillation=kind, label_smoothing=0.1, resolutions=(16, 12, 8)))
  for leaf in jax.tree.leaves(joint.opt_state[0].trace):
    assert np.abs(leaf).max() > 0


@pytest.mark.parametrize('sync', [False, True])
def test_it_is_on_eight_devices_too(sync):
  compare(make_config(sync_batch_norm=sync), count=8)


def test_it_is_with_one_batch_norm_for_all_resolutions():
  compare(make_config(shared_batch_norm=True), count=8)


@pytest.mark.parametrize('fields', [{'private': 'statistics'}, {'resolutions': (16, 16), 'data.flip': 'independent'}])
def test_it_is_where_a_part_is_private_or_sizes_repeat(fields):
  compare(make_config(distillation='without_ensemble', **fields))


def test_it_is_with_images_of_every_size_from_the_host():
  compare(make_config(**{'data.pyramid': 'host', 'data.flip': 'shared'}), sizes=RESOLUTIONS)


def test_it_is_with_one_resolution():
  compare(make_config(resolutions=(16,)))


def test_several_steps_with_accumulation_and_averaged_parameters():
  """Four steps make two updates; every array of the state, step and optimiser included."""
  config = make_config(**{'optimizer.accumulate': 2, 'optimizer.ema_decay': 0.9, 'optimizer.decay': 'all'})
  devices, ways = both_ways(config, 8, optimizer.create(config, 10, 100))
  ends = []
  for take, current in ways:
    for batch in batches(4):
      current, _ = take(current, devices.put(batch))
    ends.append(jax.device_get(current))
  joint, ours = ends
  assert int(ours.step) == int(joint.step) == 4
  for name in ('params', 'batch_stats', 'ema'):
    close(getattr(ours, name), getattr(joint, name))
  close(optax.tree.get(ours.opt_state, 'trace'), optax.tree.get(joint.opt_state, 'trace'))


def test_one_compilation_of_each_program_serves_all_steps_and_the_old_state_is_gone():
  config = make_config()
  devices, (_, (take, current)) = both_ways(config, 8, optax.sgd(0.1))
  programs = [*take.look, *take.learn, take.update]
  assert len(programs) == 1 + 2 + 1
  for batch in batches(3):
    old = current
    current, metrics = take(current, devices.put(batch))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))
  assert [program._cache_size() for program in programs] == [1] * 4
  assert current.params['alpha'].sharding.is_fully_replicated and metrics['loss'].shape == ()


def test_gradients_meet_once_a_step():
  """Only the update averages them over devices; the programs before it exchange no more than statistics."""
  config = make_config()
  devices, (_, (take, current)) = both_ways(config, 8, optax.sgd(0.1))
  batch = devices.put(batches(1)[0])
  exchanged = []

  def reading(program):
    def call(*args):
      text = program.lower(*args).as_text()
      exchanged.append(text.count('stablehlo.all_reduce'))
      return jax.eval_shape(program, *args)

    return call

  shapes = dataclasses.replace(
    take, look=tuple(map(reading, take.look)), learn=tuple(map(reading, take.learn)), update=reading(take.update)
  )
  shapes(current, batch)
  of_one = len(jax.tree.leaves(current.batch_stats)) // 2
  assert exchanged[:3] == [0, of_one, of_one]
  assert exchanged[3] >= len(jax.tree.leaves(current.params))


@pytest.mark.parametrize('memory, kind', [('two_pass', two_pass.TwoPass), ('joint', Step)])
def test_a_run_takes_it_where_the_config_says_so(memory, kind):
  config = make_config(memory=memory, **{'model.name': 'resnet_small'})
  _, _, train_step = run.make_training(config, Devices(), 10, 100)
  assert isinstance(train_step, kind)


@pytest.mark.parametrize(
  'fields, got',
  [({'parallel': 'pmap'}, "parallel='pmap'"), ({'method': 'drnet', 'drnet.frozen': True}, 'drnet.frozen')],
)
def test_what_it_does_not_do_is_refused_in_one_line(fields, got):
  config = make_config(memory='two_pass', **fields)
  with pytest.raises(ValueError, match=f"config.memory: got 'two_pass' with {got}"):
    configuration.validate(config)
