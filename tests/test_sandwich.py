"""The sandwich rule: a step is that of the network with the drawn branches alone, and nothing else of it moves."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from interruptions import interrupted_after
from test_loop import Record, tiny

from configs import default
from resjax import config as configuration
from resjax import sandwich, trained
from resjax.resolution import at_widths, name
from resjax.training import loop, run
from resjax.training.devices import Devices

WIDTHS = (1.0, 0.75, 0.5, 0.25)
BATCH = 16

# Float32 sums in another order, relative to the norm.
TOLERANCE = 1e-5


def make_config(**fields):
  config = default.get_config()
  config.resolutions, config.widths, config.sandwich = (16,), WIDTHS, 1
  config.model.name, config.model.num_classes = 'own_models:Full', 5
  config.distillation, config.batch_size = 'inplace', BATCH
  config.update_from_flattened_dict(fields)
  return config


def batch():
  rng = np.random.default_rng(0)
  return {
    'images': (rng.integers(0, 256, (BATCH, 16, 16, 3), np.uint8),),
    'label': rng.integers(0, 5, BATCH).astype(np.int32),
    'index': np.arange(BATCH, dtype=np.int32),
  }


@functools.cache
def draws(config_fields=(), steps=3000):
  config = make_config(**dict(config_fields))
  return np.asarray(jax.jit(jax.vmap(functools.partial(sandwich.draw, config)))(jnp.arange(steps)))


def test_a_draw_holds_both_ends_and_each_branch_between_as_often():
  fields = {'resolutions': (16, 8), 'widths': (1.0, 0.5, 0.25), 'sandwich': 2}
  found = draws(tuple(fields.items()))
  assert found.shape == (3000, 4) and found.dtype == np.int32
  assert (found[:, 0] == 0).all() and (found[:, -1] == 5).all() and (np.diff(found) > 0).all()
  often = np.bincount(found[:, 1:-1].ravel(), minlength=5)[1:]
  assert np.abs(often - 1500).max() < 4 * math.sqrt(3000 * 0.5 * 0.5)  # four standard deviations
  pairs = {tuple(row) for row in found[:, 1:-1]}
  assert len(pairs) == 6


def test_a_draw_is_of_the_seed_and_the_update():
  first = draws()
  assert (draws() == first).all() and (draws((('seed', 1),)) != first).any()
  gathered = draws((('optimizer.accumulate', 2),))
  assert (gathered[::2] == gathered[1::2]).all() and (gathered[::2] == first[: len(first) // 2]).all()


def own(tree, config, drawn):
  """Of parameters, statistics or an optimiser's averages: what the network with the drawn branches alone has of it."""
  names = [name(at_widths(config)[place]) for place in drawn]
  if isinstance(tree, dict):
    of = {key: tree[key] if key != 'alpha' else np.asarray(tree[key])[drawn] for key in tree if key != 'private'}
    sets = tree.get('private', {} if 'alpha' in tree else tree)
    kept = {key: sets[key] for key in names}
    return of | {'private': kept} if 'private' in tree else kept
  return jax.tree.map(lambda part: own(part, config, drawn), tree, is_leaf=lambda part: isinstance(part, dict))


def close(got, expected):
  """Equal to within the tolerance in norm, and of the same shapes."""
  jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.shape, got), jax.tree.map(np.shape, expected))
  distance = optax.tree.norm(jax.tree.map(np.subtract, got, expected))
  assert distance <= TOLERANCE * optax.tree.norm(expected)


def same(got, expected):
  return jax.tree.all(jax.tree.map(np.array_equal, got, expected))


@functools.cache
def alone(fields, parallel, widths):
  """The step of the network with these branches alone."""
  config = make_config(**dict(fields), widths=widths, sandwich=0)
  return run.make_training(config, Devices(parallel, jax.devices()[:2]), 10, 100)[2]


@pytest.mark.parametrize(
  ('parallel', 'fields'),
  [
    ('shard_map', {'optimizer.decay': 'all'}),
    ('shard_map', {'memory': 'two_pass', 'distillation': 'full'}),
    pytest.param('pmap', {'sync_batch_norm': True}, marks=pytest.mark.slow),
    pytest.param('shard_map', {'optimizer.name': 'adamw', 'remat': 'all'}, marks=pytest.mark.slow),
  ],
  ids=lambda of: of if isinstance(of, str) else '-'.join(map(str, of.values())),
)
def test_a_step_is_that_of_the_network_with_the_drawn_branches(parallel, fields):
  """Loss, metrics, parameters, momentum and statistics; of the others everything stays, bit for bit."""
  config, devices = make_config(**fields, parallel=parallel), Devices(parallel, jax.devices()[:2])
  _, fresh, take = run.make_training(config, devices, 10, 100)
  now, seen = devices.create(fresh, jax.random.key(1)), set()
  for step in range(4):  # both are drawn in these, and each is passed over when it has momentum
    before, drawn = jax.device_get(now), draws()[step]
    now, metrics = take(now, devices.put(batch()))
    after, metrics = jax.device_get((now, metrics))
    (place,) = drawn[1:-1]
    (other,) = {1, 2} - {int(place)}
    widths = tuple(WIDTHS[each] for each in drawn)
    passed = name(at_widths(config)[other])
    for was, moved in (
      (before.params['private'], after.params['private']),
      (before.batch_stats, after.batch_stats),
      *((a['private'], b['private']) for a, b in zip(averages_of(before), averages_of(after), strict=True)),
    ):
      assert {key for key in was if same(moved[key], was[key])} == {passed}
    assert after.params['alpha'][other] == before.params['alpha'][other]
    seen.add(int(place))
    told = {key: value for key, value in metrics.items() if not key.startswith('drawn_')}
    assert {key for key, value in told.items() if math.isnan(value)} == {key for key in told if key.endswith(passed)}
    assert metrics[f'drawn_{passed}'] == 0 and metrics[f'drawn_{name(at_widths(config)[place])}'] == 1
    expected, expected_metrics = alone(tuple(fields.items()), parallel, widths)(
      devices.create(lambda state: state, shrunk(before, config, drawn)), devices.put(batch())
    )
    for key, value in expected_metrics.items():
      np.testing.assert_allclose(metrics[key], value, rtol=TOLERANCE, atol=1e-7, err_msg=key)
    got, expected = shrunk(after, config, drawn), jax.device_get(expected)
    close(got.params, expected.params)
    close(got.batch_stats, expected.batch_stats)
    close(averages_of(got), averages_of(expected))
  assert seen == {1, 2}


def averages_of(state):
  """What an optimiser keeps for each parameter."""
  leaves = jax.tree.leaves(state.opt_state, is_leaf=lambda part: isinstance(part, dict))
  return [part for part in leaves if isinstance(part, dict)]


def shrunk(state, config, drawn):
  """A state as the network with the drawn branches alone has it."""
  return state.replace(
    params=own(state.params, config, drawn),
    batch_stats=own(state.batch_stats, config, drawn),
    opt_state=jax.tree.map(
      lambda part: own(part, config, drawn) if isinstance(part, dict) else part,
      state.opt_state,
      is_leaf=lambda part: isinstance(part, dict),
    ),
  )


def test_branches_that_are_passed_over_have_no_loss_in_the_log():
  record = Record()
  window = loop.Window(record, record, log_steps=2)
  rows = [{'loss': 1.0, 'loss_8': 4.0, 'drawn_8': 1.0}, {'loss': 3.0, 'loss_8': math.nan, 'drawn_8': 0.0}]
  for step, row in enumerate([*rows, rows[1], rows[1]], 1):
    window.add(step, row)
  window.flush()
  assert record.lines == [
    (2, {'train/loss': 2.0, 'train/loss_8': 4.0, 'train/drawn_8': 0.5}),
    (4, {'train/loss': 3.0, 'train/drawn_8': 0.0}),
  ]
  window.add(5, {'loss': 1.0, 'loss_8': math.nan, 'drawn_8': 1.0})
  with pytest.raises(FloatingPointError, match=r'step 5: loss_8 = nan'):
    window.flush()


@pytest.mark.usefixtures('built_once')
def test_a_run_that_is_interrupted_goes_on_as_it_would_have(tmp_path, monkeypatch):
  config = tiny()
  config.widths, config.sandwich, config.model.name, config.model.width = (1.0, 0.5), 1, 'own_models:Full', 1.0
  config.log_steps, config.optimizer.ema_decay, config.data.workers = 1, 0.9, 0
  results = loop.train_and_evaluate(config, tmp_path / 'whole')
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    interrupted_after(5, patch)
    loop.train_and_evaluate(config, tmp_path / 'parts')
  again = loop.train_and_evaluate(config, tmp_path / 'parts')
  assert again['resolutions'] == results['resolutions'] and list(results['resolutions']) == [
    '16',
    '16x0.5',
    '8',
    '8x0.5',
  ]
  assert trained.load(tmp_path / 'whole').digest == trained.load(tmp_path / 'parts').digest
  found = [
    [json.loads(line) for line in (tmp_path / folder / 'metrics.jsonl').read_text().splitlines()]
    for folder in ('whole', 'parts')
  ]
  ways = [[line.get('train/drawn_8') for line in lines if 'train/loss' in line] for lines in found]
  assert ways[0] == ways[1] and set(ways[0]) == {0.0, 1.0} and len(ways[0]) == 12
  for line in (line for line in found[0] if 'train/loss' in line):
    there = {way for way in ('16x0.5', '8') if f'train/loss_{way}' in line}
    assert there == {way for way in ('16x0.5', '8') if line[f'train/drawn_{way}'] == 1} and len(there) == 1


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'sandwich': 2},
      r'config\.sandwich: got 2 with resolutions=\(16,\) and widths=.*expected fewer than the 2 between',
    ),
    ({'sandwich': -1}, r'config\.sandwich: got -1, expected 0 or more'),
    ({'widths': (1.0,)}, r'config\.sandwich: got 1 with .*expected fewer than the 0 between'),
    ({'method': 'drnet'}, r"config\.sandwich: got 1 with method='drnet', expected 0"),
  ],
)
def test_what_it_is_not_for_is_refused_in_one_line(fields, message):
  with pytest.raises(ValueError, match=message):
    configuration.validate(make_config(**fields))
