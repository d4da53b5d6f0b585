"""A run goes on under another config: what is kept, what begins anew, what is refused; interrupted like any other."""

import json
import shutil

import jax
import numpy as np
import optax
import pytest
from interruptions import interrupted_after

from configs import default
from resjax import cli, report, trained
from resjax.data import loader
from resjax.training import extending, loop, run, state
from resjax.training.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures('shallow', 'built_once')


def tiny(**fields):
  """Four steps an epoch, at a rate that stays: what the schedule does is tested with the optimiser."""
  config = default.get_config()
  config.resolutions = (16, 8)
  config.model.name = 'resnet_small'
  config.model.num_classes = 3
  config.model.width = 0.25
  config.data.source, config.data.name, config.data.size = 'fake', '', 70
  config.data.flip = 'independent'
  config.eval.batch_size, config.eval.every_epochs = 80, 0
  config.batch_size, config.epochs = 16, 1.5
  config.optimizer.learning_rate, config.optimizer.schedule = 0.01, 'constant'
  config.log_steps = 1
  config.checkpoint.every_epochs, config.checkpoint.keep = 0.5, 1
  config.update_from_flattened_dict(fields)
  return config


OTHER = {'epochs': 4.0, 'batch_size': 24, 'optimizer.learning_rate': 0.002, 'optimizer.schedule': 'cosine'}


def states(workdir):
  """What training saved last, by path."""
  with Checkpoints(workdir) as checkpoints:
    loaded = checkpoints.restore(run.build(tiny()).state_shapes())
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(loaded)}


def copied(workdir, place):
  return shutil.copytree(workdir, place / 'run')


@pytest.fixture(scope='module')
def first(shallow, built_once, tmp_path_factory):
  """A finished run of six steps."""
  workdir = tmp_path_factory.mktemp('runs') / 'run'
  return workdir, loop.train_and_evaluate(tiny(), workdir)


@pytest.fixture(scope='module')
def extended(first, tmp_path_factory):
  """The same, extended to four epochs with other batches: ten steps of 1.5 epochs, then five of the rest."""
  workdir = copied(first[0], tmp_path_factory.mktemp('runs'))
  return workdir, loop.train_and_evaluate(tiny(**OTHER), workdir, extend=True)


def test_more_epochs_at_the_same_rate_are_the_longer_run_bit_for_bit(first, tmp_path):
  loop.train_and_evaluate(tiny(epochs=2.5), tmp_path / 'whole')
  workdir = copied(first[0], tmp_path)
  loop.train_and_evaluate(tiny(epochs=2.5), workdir, extend=True)
  whole, parts = states(tmp_path / 'whole'), states(workdir)
  assert whole.keys() == parts.keys() and len(whole) > 40
  for name, value in whole.items():
    if 'count' not in name:  # of updates, by which the schedule goes
      np.testing.assert_array_equal(value, parts[name], err_msg=name)


def test_the_result_before_stays_with_its_network(first, extended):
  workdir, results = extended
  kept = workdir / 'results-6.json'
  assert kept.read_bytes() == (first[0] / 'results.json').read_bytes()
  assert (workdir / 'accuracy-6.png').read_bytes() == (first[0] / 'accuracy.png').read_bytes()
  assert {path.name for path in (workdir / 'checkpoints').iterdir()} >= {'6', '11'}  # of which one is the latest
  before, there = trained.read(first[0]), trained.read(workdir, step=6)
  assert before.network.digest == there.network.digest and trained.read(workdir).network.digest != there.network.digest
  assert report.read(workdir) == json.loads(json.dumps(results))
  (past,) = results['history']
  assert past == {'step': 6, 'images': 96, 'epochs': 1.5, 'finished': True, 'config': first[1]['config']}
  assert results['config']['batch_size'] == 24 and report.read(workdir)['history'] == [past]
  assert results['train_seconds'] > first[1]['train_seconds']


def test_steps_and_metrics_go_on_counting(extended):
  lines = [json.loads(line) for line in (extended[0] / 'metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines if 'train/loss' in line] == list(range(1, 12))
  assert [line['step'] for line in lines if 'eval/top1_mean' in line] == [6, 11]


def seen(monkeypatch):
  """A list that gets the numbers of the images of each training batch."""
  numbers, whole = [], loader.train_batches

  def batches(*arguments, **options):
    iterator = whole(*arguments, **options)
    try:
      for batch in iterator:
        numbers.append(sorted(batch['index'].tolist()))
        yield batch
    finally:
      iterator.close()

  monkeypatch.setattr(loader, 'train_batches', batches)
  return numbers


def test_the_data_go_on_behind_the_last_image_that_was_seen(first, tmp_path, monkeypatch):
  numbers = seen(monkeypatch)
  loop.train_and_evaluate(tiny(**OTHER), copied(first[0], tmp_path), extend=True)
  order = [np.random.RandomState([0, 0, epoch]).permutation(70) for epoch in range(4)]
  stream = np.concatenate(order)[6 * 16 :]
  for step, batch in enumerate(numbers[:5]):
    assert batch == sorted(stream[24 * step : 24 * step + 24].tolist())


def test_an_extension_that_was_killed_goes_on_bit_for_bit_by_the_same_command(first, extended, tmp_path, monkeypatch):
  """Once before anything of it was saved, then in its middle."""
  workdir = copied(first[0], tmp_path)
  for steps in (0, 3):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
      interrupted_after(steps, patch)
      loop.train_and_evaluate(tiny(**OTHER), workdir, extend=True)
  assert not (workdir / 'results.json').exists()
  results = loop.train_and_evaluate(tiny(**OTHER), workdir, extend=True)
  whole, parts = states(extended[0]), states(workdir)
  assert whole.keys() == parts.keys()
  for name, value in whole.items():
    np.testing.assert_array_equal(value, parts[name], err_msg=name)
  same = ('resolutions', 'ensemble', 'history', 'config')
  assert all(results[name] == json.loads(json.dumps(extended[1]))[name] for name in same)
  assert (workdir / 'results-6.json').read_bytes() == (extended[0] / 'results-6.json').read_bytes()


def test_the_command_says_what_changes_and_a_run_is_extended_twice(first, tmp_path, capsys, monkeypatch):
  """Also where it was stopped in its middle, at a step that was no update's."""
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    interrupted_after(3, patch)
    loop.train_and_evaluate(tiny(epochs=1.0), tmp_path)
  monkeypatch.setattr('resjax.config.load', lambda recipe, fields: tiny(**dict(eval(field) for field in fields)))
  monkeypatch.setattr('resjax.cli._is_field', lambda *_: True)
  monkeypatch.setattr('faulthandler.enable', lambda: None)
  command = ['train', '--config=own', f'--workdir={tmp_path}', '--processes=1', '--extend']
  changes = ["('epochs', 1.5)", "('optimizer.ema_decay', 0.9)", "('optimizer.accumulate', 2)"]
  cli.main([*command, *changes])
  out = capsys.readouterr().out
  assert f'Extending the run in {tmp_path}, from step 2 (0.5 epochs) to 6:\n  config.epochs: 1.0 -> 1.5\n' in out
  assert '  config.optimizer.ema_decay: 0.0 -> 0.9\n' in out and 'averages of gradients go on' in out
  assert '  the average of the parameters begins with those of now\n' in out and 'kept:' not in out
  cli.main([*command, "('epochs', 2.0)", "('optimizer.name', 'adamw')"])
  out = capsys.readouterr().out
  assert 'from step 6 (1.5 epochs) to 8' in out and 'kept: results-6.json, accuracy-6.png, checkpoints/6\n' in out
  assert 'averages of gradients begin anew\n' in out and 'the average of the parameters is dropped' in out
  results = report.read(tmp_path)
  assert [(past['step'], past['finished']) for past in results['history']] == [(2, False), (6, True)]
  cli.main([*command, "('epochs', 2.0)", "('optimizer.name', 'adamw')"])
  assert 'holds this run, finished' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'model.width': 0.5}, r'another network, or one with another start \(config.model.width: 0.25 there, 0.5 here\):'),
    ({'resolutions': (16, 12)}, r'config.resolutions: \[16, 8\] there, \[16, 12\] here'),
    ({'data.normalize': 'unit', 'epochs': 9.0}, r"\(config.data.normalize: 'imagenet' there, 'unit' here\)"),
    ({'init.checkpoint': 'x'}, r"config.init.checkpoint: '' there, 'x' here"),
    ({'optimizer.learning_rate': 0.3}, r'^config.epochs: got 1.5, expected more than the 1.5 that are over$'),
    ({'data.source': 'named', 'epochs': 2.0}, r'^config.data: the classes a, b, c, expected those of workdir .*: 0, 1'),
  ],
)
def test_what_can_not_be_extended_is_refused_and_nothing_is_touched(first, fields, message, monkeypatch):
  sources = run.sources.SOURCES
  named = lambda config, split: type(
    '', (), {'num_classes': 3, 'class_names': ('a', 'b', 'c'), '__len__': lambda _: 70}
  )()
  monkeypatch.setitem(sources, 'named', named)
  before = sorted(path.name for path in first[0].iterdir())
  with pytest.raises(ValueError, match=message) as error:
    loop.train_and_evaluate(tiny(**fields), first[0], extend=True)
  assert '\n' not in str(error.value) and sorted(path.name for path in first[0].iterdir()) == before


def test_a_folder_without_a_run_is_not_extended(tmp_path):
  with pytest.raises(ValueError, match='holds no run, expected one to extend'):
    loop.train_and_evaluate(tiny(), tmp_path / 'typo', extend=True)
  assert not list(tmp_path.iterdir())


def test_without_the_word_a_finished_run_is_refused_and_the_word_is_named(first):
  with pytest.raises(ValueError, match='config.epochs: 1.5 there, 3.0 here.: give its config, --extend to go on under'):
    loop.train_and_evaluate(tiny(epochs=3.0), first[0])
  with pytest.raises(ValueError, match='give its config, or another --workdir'):
    loop.train_and_evaluate(tiny(seed=1, **{'model.width': 0.5}), first[0])


def test_a_step_that_is_to_stay_is_kept_beside_the_latest(tmp_path):
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.preserve(2)
    for step in range(1, 5):
      checkpoints.save(state.TrainState(np.full((), step), {'w': np.ones(2)}, {}, ()), {'finished': False}, None)
    checkpoints.wait()
    assert checkpoints.steps == [2, 4]


def test_what_has_no_name_yet_takes_none_that_is_there(tmp_path):
  (tmp_path / 'results.json').write_text('new')
  (tmp_path / 'results-6.json').write_text('old')
  assert extending.set_aside(tmp_path, 6) == ['results-6.json.2']
  assert (tmp_path / 'results-6.json').read_text() == 'old' and not (tmp_path / 'results.json').exists()


@pytest.mark.parametrize('accumulate', [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_momentum_goes_on_and_the_schedule_begins_anew(accumulate):
  params = {'w': np.ones(3, np.float32)}
  old, new = (optax.chain(optax.trace(0.9), optax.scale_by_learning_rate(lambda count: 0.1 * count)) for _ in 'ab')
  old, new = (
    tx if every == 1 else optax.MultiSteps(tx, every).gradient_transformation()
    for tx, every in zip((old, new), accumulate)
  )
  before, after = state.create({'params': params, 'batch_stats': {}}, old), None
  _, opt_state = old.update(params, before.opt_state, params)
  _, opt_state = old.update(params, opt_state, params)
  after = state.create({'params': params, 'batch_stats': {}}, new)
  carried, _ = extending.carried(after, before.replace(step=np.int32(2), opt_state=opt_state))
  inner = carried.opt_state.inner_opt_state if accumulate[1] > 1 else carried.opt_state
  assert inner[0].trace['w'][0] == pytest.approx(1.9 if accumulate[0] == 1 else 1.0) and int(inner[1].count) == 0
  assert jax.tree.structure(carried.opt_state) == jax.tree.structure(after.opt_state)
  assert int(carried.step) == 2


def test_what_a_loss_anneals_begins_anew(monkeypatch):
  """DRNet's temperature goes by the batch's `step`, over the steps that its method is told of."""
  told = {}

  def make_loss_fn(model, config, *, total_steps, axis_name):
    told['steps'] = total_steps
    return lambda params, batch_stats, batch, key: (0.0 * params['alpha'].sum(), (batch_stats, {'at': batch['step']}))

  monkeypatch.setattr(run.METHODS['rsnet'], 'make_loss_fn', make_loss_fn)
  parts = run.build(tiny(epochs=2.0))
  past = {'step': 6, 'images': 96, 'epochs': 1.0, 'finished': True, 'config': {}}
  for history in ((), (past,)):
    made = run.build(tiny(epochs=2.0)) if not history else run.continued(parts, history)
    before = made.fresh_state().replace(step=jax.device_put(np.int32(made.begin.step), made.devices.replicated))
    batch = made.devices.put({'label': np.zeros(16, np.int32)})
    after, first = made.train_step(before, batch)
    assert [int(first['at']), int(made.train_step(after, batch)[1]['at'])] == [0, 1]
    assert told['steps'] == made.total_steps - made.begin.step == (4 if history else 8)
  assert made.total_steps == 10 and made.reached(8) == (8, 128, 1.5)


@pytest.mark.parametrize('history', [({},), ({'step': 6, 'images': 96, 'epochs': 'one'},), ('x',)])
def test_a_damaged_history_is_one_line(history):
  with pytest.raises(ValueError, match='^history: damaged in the checkpoint') as error:
    run.continued(run.build(tiny()), history)
  assert '\n' not in str(error.value)
