"""Schedules against hand-computed rates, SGD against torch's, decay by place and name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import default
from resjax.training import optimizer


def config(**fields):
  result = default.get_config()
  with result.unlocked():
    for name, value in fields.items():
      result.optimizer[name] = value
  return result


def test_cosine_has_the_papers_rates():
  rate = optimizer.schedule(config(), steps_per_epoch=1, total_steps=120)
  expected = {0: 0.1, 1: 0.0999828662, 30: 0.0853553391, 60: 0.05, 90: 0.0146446609, 119: 0.0000171338}
  for epoch, value in expected.items():
    np.testing.assert_allclose(rate(epoch), value, rtol=0, atol=2e-8)


def test_steps_fall_at_the_epochs_that_are_named():
  """As LQ-Nets' do; of two updates' gradients averaged, an epoch has half as many updates."""
  for accumulate in (1, 2):
    c = config(schedule='step', step_at=(30, 60, 85.5), step_factor=0.1, accumulate=accumulate)
    rate = optimizer.schedule(c, steps_per_epoch=10, total_steps=1200)
    for epoch, value in {0: 0.1, 29: 0.1, 30: 1e-2, 59: 1e-2, 60: 1e-3, 85: 1e-3, 86: 1e-4, 119: 1e-4}.items():
      np.testing.assert_allclose(rate(epoch * 10 // accumulate), value, rtol=1e-5, err_msg=str(epoch))


def test_step_falls_and_warm_up_rises():
  c = config(schedule='step', step_epochs=30.0, step_factor=0.1, warmup_epochs=3.0)
  rate = optimizer.schedule(c, steps_per_epoch=10, total_steps=1000)
  expected = {0: 0, 15: 0.05, 30: 0.1, 299: 0.1, 300: 0.01, 599: 0.01, 600: 0.001, 900: 0.0001, 999: 0.0001}
  for step, value in expected.items():
    np.testing.assert_allclose(rate(step), value, rtol=1e-5, atol=1e-9, err_msg=str(step))


def test_a_constant_rate_stays():
  rate = optimizer.schedule(config(schedule='constant'), steps_per_epoch=10, total_steps=100)
  assert [float(rate(s)) for s in (0, 50, 99)] == pytest.approx([0.1] * 3)


def test_accumulation_counts_updates_not_batches():
  c = config(accumulate=4, warmup_epochs=1.0)
  rate = optimizer.schedule(c, steps_per_epoch=8, total_steps=80)
  np.testing.assert_allclose([rate(0), rate(1), rate(2), rate(20)], [0, 0.05, 0.1, 0], atol=1e-8)


PARAMS = {
  'shared': {'conv1': {'kernel': jnp.ones((3, 3, 3, 4))}, 'head': {'kernel': jnp.ones((4, 2)), 'bias': jnp.ones(2)}},
  'private': {'32': {'bn1': {'scale': jnp.ones(4), 'bias': jnp.ones(4)}, 'odd': {'kernel': jnp.ones((2, 2))}}},
  'alpha': jnp.ones(2),
}


def test_decay_is_chosen_by_place_and_name():
  flat = {
    jax.tree_util.keystr(path, simple=True, separator='/'): value
    for path, value in jax.tree_util.tree_leaves_with_path(optimizer.decayed(PARAMS, 'kernels'))
  }
  assert {name for name, value in flat.items() if value} == {'shared/conv1/kernel', 'shared/head/kernel'}
  assert all(jax.tree.leaves(optimizer.decayed(PARAMS, 'all')))


def check_against_torch(c, make):
  """Five updates of ours and of torch's optimiser, made by `make(torch, parameters)`, end in the same place."""
  torch = pytest.importorskip('torch')
  tx = optimizer.create(c, 1, 10)
  start = np.array([1.0, -2.0, 0.5], np.float32)
  params = {'w': jnp.array(start)}
  state = tx.init(params)
  w = torch.nn.Parameter(torch.tensor(start))
  theirs = make(torch, [w])
  for i in range(5):
    gradient = np.sin(np.arange(3) + i).astype(np.float32)
    updates, state = tx.update({'w': jnp.array(gradient)}, state, params)
    params = optax.apply_updates(params, updates)
    w.grad = torch.tensor(gradient)
    theirs.step()
    np.testing.assert_allclose(params['w'], w.detach().numpy(), rtol=0, atol=1e-6)


def test_entries_have_rates_of_their_own_and_zero_stays():
  c = config(schedule='constant', learning_rate=0.5, momentum=0.0, weight_decay=0.0)
  tx = optimizer.create(c, 1, 10, {'network': 1.0, 'predictor': 0.25, 'alpha': 0.0})
  params = {name: jnp.ones(1) for name in ('shared', 'private', 'predictor', 'alpha')}
  updates, _ = tx.update(params, tx.init(params), params)
  assert {name: float(u[0]) for name, u in updates.items()} == {
    'shared': -0.5,
    'private': -0.5,
    'predictor': -0.125,
    'alpha': 0.0,
  }


@pytest.mark.parametrize('nesterov', [False, True])
def test_sgd_is_torchs(nesterov):
  c = config(schedule='constant', learning_rate=0.3, weight_decay=0.01, decay='all', nesterov=nesterov)
  check_against_torch(
    c, lambda torch, w: torch.optim.SGD(w, lr=0.3, momentum=0.9, weight_decay=0.01, nesterov=nesterov)
  )


def test_adamw_is_torchs():
  c = config(name='adamw', schedule='constant', learning_rate=0.01, weight_decay=0.1, decay='all')
  check_against_torch(c, lambda torch, w: torch.optim.AdamW(w, lr=0.01, weight_decay=0.1))


def test_an_average_over_more_updates_than_the_run_has_is_told_of():
  note = optimizer.average_note(config(ema_decay=0.999, accumulate=2), total_steps=1312)
  assert note == (
    'config.optimizer.ema_decay: 0.999 averages over about 1,000 updates, and this run has 656: it is warmed up to '
    '0.9865 at the end'
  )
  assert optimizer.average_note(config(ema_decay=0.75), total_steps=3)
  assert optimizer.average_note(config(ema_decay=0.75), total_steps=4) is None
  assert optimizer.average_note(config(), total_steps=1) is None
