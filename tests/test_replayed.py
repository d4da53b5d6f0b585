"""DRNet, one resolution at a time: loss, gradients, statistics and metrics of the joint step."""

import jax
import numpy as np
import optax
import pytest
import tiny_drnet
from test_two_pass import TOLERANCE, close

from resjax import config as configuration
from resjax import drnet, models
from resjax.training import replayed, run, state, step
from resjax.training.devices import Devices
from resjax.training.given import Given


def compare(config, count, model):
  """One step of each way: metrics, statistics and, in the momentum of its first step, the gradients."""
  tx, devices = optax.chain(optax.trace(0.9), optax.scale(-0.1)), Devices(devices=jax.devices()[:count])
  terms = drnet.terms(model, config, 10)
  given = lambda now: Given(jax.random.key_data(step.key_of(config.seed, now.step)), 0, {}, 0.0, terms(now.step))
  loss_fn = drnet.make_loss_fn(model, config, total_steps=10, axis_name=step.AXIS)
  joint = devices.train(step.make_train_step(loss_fn, tx, seed=config.seed))
  turns = replayed.make_train_step(model, config, lambda _: tx, devices, given)

  def fresh(key):
    variables = drnet.init(model, config, key)
    return state.create(variables, tx)

  make = jax.jit(fresh, out_shardings=devices.replicated)
  batch = devices.put(tiny_drnet.batches(1, config.batch_size)[0])
  (joint, metrics), (ours, found) = (jax.device_get(take(make(jax.random.key(1)), batch)) for take in (joint, turns))
  assert metrics.keys() == found.keys()
  for name, value in metrics.items():
    np.testing.assert_allclose(found[name], value, rtol=TOLERANCE, atol=1e-7, err_msg=name)
  for part in ('shared', 'private', 'predictor'):
    close(ours.opt_state[0].trace[part], joint.opt_state[0].trace[part])
    assert optax.tree.norm(joint.opt_state[0].trace[part]) > 1e-3
  close(ours.params, joint.params)
  close(ours.batch_stats, joint.batch_stats)
  return metrics


def test_it_is_the_joint_step_on_several_devices():
  metrics = compare(tiny_drnet.make_config(label_smoothing=0.1), 4, tiny_drnet.model())
  assert 0.1 < metrics['share_16'] < 0.9 and metrics['loss_budget'] >= 0


def test_it_is_where_each_image_runs_at_its_own_size_and_is_computed_anew_by_a_pruned_network():
  pruned = models.create('resnet_small', num_classes=5, width=0.25, stages=(1,), inner=((2,),))
  compare(tiny_drnet.make_config(**{'drnet.estimator': 'routed', 'drnet.budget': 0.7, 'remat': 'all'}), 1, pruned)


@pytest.mark.slow
@pytest.mark.parametrize(
  'fields',
  [{'private': 'none'}, {'private': 'affine', 'data.mixup': 0.5}, {'widths': (1.0, 0.5)}, {'drnet.statistics': 'all'}],
)
def test_it_is_with_one_batch_norm_and_with_mixtures(fields):
  """A device sends eight images or more to each size: fewer are filled up, in turns by what all devices have."""
  metrics = compare(tiny_drnet.make_config(batch_size=128, **fields), 2, tiny_drnet.model())
  assert 0.2 < metrics['share_16'] < 0.8


@pytest.mark.slow
def test_it_is_with_one_batch_norm_and_few_images_on_one_device():
  metrics = compare(tiny_drnet.make_config(batch_size=8, private='none'), 1, tiny_drnet.model())
  assert 0.1 < metrics['share_16'] < 0.9


def test_a_run_takes_it_where_the_config_says_so():
  config = tiny_drnet.make_config(memory='two_pass', **{'model.name': 'resnet_small', 'drnet.start': 'scratch'})
  configuration.validate(config)
  config.model.width, config.model.num_classes = 0.25, 5
  config.drnet.budget = 0.9
  _, _, train_step = run.make_training(config, Devices(), 10, 100)
  assert len(train_step.learn) == 2 and train_step.look == ()
