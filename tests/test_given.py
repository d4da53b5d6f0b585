"""What a compiled step is given: runs that differ in their numbers alone share a program, and compute what they did."""

import jax
import numpy as np
import pytest
from tiny_drnet import batches, make_config, model

from resjax import models
from resjax.training import optimizer, run, step
from resjax.training.devices import Devices, placed
from resjax.training.run import METHODS

# A recipe of each kind of step, and numbers in which its runs may differ.
KINDS = {
  'rsnet': {'method': 'rsnet', 'optimizer.ema_decay': 0.9, 'optimizer.accumulate': 2},
  'adamw': {'method': 'rsnet', 'optimizer.name': 'adamw', 'optimizer.layer_decay': 0.8},
  'two_pass': {'method': 'rsnet', 'memory': 'two_pass'},
  'drnet': {'method': 'drnet'},
}
OF_DRNET = {'drnet.eta': 0.7, 'drnet.tau': 3.0, 'drnet.tau_end': 0.3, 'drnet.budget': 0.9}
NUMBERS = {
  'seed': 2**31 + 5,
  'epochs': 3.0,
  'optimizer.learning_rate': 0.03,
  'optimizer.schedule': 'step',
  'optimizer.step_epochs': 0.5,
  'optimizer.warmup_epochs': 0.5,
  'optimizer.weight_decay': 3e-3,
  'optimizer.momentum': 0.8,
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
  monkeypatch.setattr(models, 'from_config', lambda config, axis_name=None: model(axis_name))


def lowered(devices, total, **fields):
  """The text of each program of a run's step: what the compilation cache goes by."""
  config = make_config(**fields)
  _, fresh, take = run.make_training(config, devices, 10, total)
  now = devices.shapes(fresh, jax.random.key(0))
  batch = placed(batches(1)[0], devices.split)
  given = placed(jax.eval_shape(take.given, now), devices.replicated)
  if config.memory == 'joint':
    return [take.program.lower(now, batch, given).as_text()]
  look = take.look[0].lower(now.params, now.batch_stats, given, batch, None)
  args = (now.params, now.batch_stats, given, batch, look.out_info)
  grads = jax.eval_shape(take.learn[0], *args, None)[2]
  learn, update = take.learn[0].lower(*args, None), take.update.lower(now, batch, given, look.out_info, grads)
  return [program.as_text() for program in (look, learn, update)]


@pytest.mark.parametrize('kind', KINDS)
def test_runs_that_differ_in_numbers_alone_share_their_programs(kind):
  devices = Devices(devices=jax.devices()[:2])
  others = NUMBERS | (OF_DRNET if kind == 'drnet' else {})
  if kind == 'rsnet':
    others |= {'optimizer.ema_decay': 0.8}
  one = lowered(devices, 100, **KINDS[kind])
  assert one == lowered(devices, 30, **KINDS[kind] | others)
  assert one != lowered(devices, 100, **KINDS[kind] | {'optimizer.decay': 'all'})  # which is no number


def test_the_network_of_another_seed_is_drawn_by_the_same_program():
  devices, texts = Devices(devices=jax.devices()[:1]), set()
  for seed in (0, 1):
    _, fresh, _ = run.make_training(make_config(seed=seed), devices, 10, 100)
    texts.add(jax.jit(fresh).lower(jax.random.key(seed)).as_text())
  assert len(texts) == 1


@pytest.mark.parametrize('parallel', ['shard_map', pytest.param('pmap', marks=pytest.mark.slow)])
def test_a_step_computes_what_it_does_with_its_numbers_as_constants(parallel):
  """Bit for bit: a run of a version before goes on as it would have."""
  fields = {'optimizer.warmup_epochs': 0.25, 'optimizer.ema_decay': 0.9, 'seed': 3, 'parallel': parallel}
  config, devices = make_config(**fields), Devices(parallel, jax.devices()[:1])
  network, fresh, given = run.make_training(config, devices, 10, 40, first=1)
  method = METHODS[config.method]
  tx = optimizer.create(config, 10, 40, method.rates(config))
  loss_fn = method.make_loss_fn(network, config, total_steps=40, axis_name=step.AXIS)
  constant = devices.train(step.make_train_step(loss_fn, tx, seed=3, ema_decay=0.9, parallel=parallel, first=1))
  ends = []
  for take in (given, constant):
    now = devices.create(fresh, jax.random.key(3))
    for batch in batches(3):
      now, metrics = take(now, devices.put(batch))
    ends.append(jax.device_get((now, metrics)))
  jax.tree.map(np.testing.assert_array_equal, *ends)
  assert float(ends[0][1]['tau']) == pytest.approx(2 * 0.25 ** (1 / 40))
  assert int(optimizer.updates_of(ends[0][0].opt_state)) == 3
