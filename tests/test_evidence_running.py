"""Runs one after the other: kept, shared, failing; nothing is trained here."""

import dataclasses
import shutil
import types

import numpy as np
import pytest

from resjax import config as configuration
from resjax import lock
from resjax.evidence import Arm, Study, estimates, jobs, running
from resjax.evidence.records import Record, Way


@pytest.fixture
def trained(monkeypatch):
  """The workdirs that were trained in, one after the other; training is made up, and fails where batch_size is 13."""
  places = []

  def train(config, place):
    places.append(str(place))
    place.mkdir(parents=True, exist_ok=True)
    if config.batch_size == 13:
      raise FloatingPointError('loss is nan')
    if config.batch_size == 14:
      raise RuntimeError('a fault')
    (place / 'results.json').write_text('{}')
    return {'train_seconds': 8.0 * config.epochs, 'params': 7, 'data': {}, 'versions': {'jax': '1'}}

  monkeypatch.setattr(running, 'train_and_evaluate', train)
  monkeypatch.setattr(running, 'build', lambda config: config)
  right = np.ones(4, bool)
  monkeypatch.setattr(running.scoring, 'ways_of', lambda *_: {'32': Way(right, 1.0), 'ensemble': Way(~right, 2.0)})
  return places


def of(seeds=(0, 1), **arms):
  return jobs.of_study(Study('A study', 'quickstart', arms or {'a': Arm(), 'b': Arm(times=2)}, ()), seeds)


def test_finished_runs_are_kept_and_not_repeated(trained, tmp_path):
  said, wanted = [], of()
  outcome = running.run_all(wanted, tmp_path, running.Kept(tmp_path / 'records'), said.append)
  assert not outcome.failed and not outcome.taken and len(trained) == len(set(trained)) == 4
  assert said[1] == f'b, seed 0: 32 100.0, ensemble 0.0; 56 s of training, in {wanted[1].weights}'
  kept = running.Kept(tmp_path / 'records')
  again = running.run_all([*wanted, *of(c=Arm({'epochs': 7.0}))], tmp_path, kept, said.append)  # c is as b
  assert not again.failed and len(trained) == 4 and len(said) == 4
  changed = of(a=Arm({'label_smoothing': 0.1}))
  running.run_all(changed, tmp_path, kept, said.append)
  assert len(trained) == 6 and kept.find(changed[0].key).about['config']['label_smoothing'] == 0.1


def test_a_record_has_no_folder_of_the_machine_and_is_found_from_any(trained, tmp_path):
  there, here = (
    of(seeds=(0,), a=Arm({'data.dir': f'/home/{who}/photographs', 'data.cache': f'/home/{who}/made'}))
    for who in ('ada', 'bob')
  )
  after = jobs.Job('c', 0, there[0].config, start=dataclasses.replace(there[0], start=there[0]))
  running.run_all([*there, after], tmp_path, running.Kept(tmp_path / 'records'), str)
  texts = [path.read_text() for path in (tmp_path / 'records').iterdir()]
  assert len(texts) == 2 and not any('/home' in text for text in texts) and there[0].config.data.cache
  assert running.Kept(tmp_path / 'records').find(here[0].key).about['seed'] == 0
  assert running._changed(here[0], there[0]) == {}  # nor have networks that are together


def test_a_run_that_fails_is_told_of_and_the_next_one_begins(trained, tmp_path, capsys):
  wanted = of((0,), bad=Arm({'batch_size': 13}), worse=Arm({'batch_size': 14}), good=Arm())
  said = []
  outcome = running.run_all(wanted, tmp_path, running.Kept(tmp_path / 'records'), said.append)
  assert [(job.arm, line) for job, line in outcome.failed] == [
    ('bad', 'loss is nan'),
    ('worse', 'RuntimeError: a fault'),
  ]
  assert said[0] == 'bad, seed 0: failed: loss is nan' and said[2].startswith('good, seed 0: 32 100.0')
  assert 'Traceback' in capsys.readouterr().err and len(list((tmp_path / 'records').iterdir())) == 1


def test_ctrl_c_ends_it(trained, tmp_path, monkeypatch):
  def stop(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(running, 'train_and_evaluate', stop)
  with pytest.raises(KeyboardInterrupt):
    running.run_all(of(), tmp_path, running.Kept(tmp_path / 'records'))


def test_what_a_run_starts_from_is_trained_once_and_its_place_is_given(trained, tmp_path, monkeypatch):
  arms = {'net': Arm(), **{name: Arm({'drnet.eta': eta}, recipe='drnet_quickstart', start='net')
                           for name, eta in (('x', 0.1), ('y', 0.2))}}  # fmt: skip
  wanted = of((0,), **arms)
  running.run_all(wanted[1:], tmp_path, running.Kept(tmp_path / 'records'), lambda line: None)
  places = [place.removeprefix(f'{tmp_path}/runs/') for place in trained]
  assert places == [f'{job.weights}/run' for job in wanted]
  running.run_all(wanted, tmp_path, kept := running.Kept(tmp_path / 'records'), lambda line: None)
  assert len(trained) == 4 and {record.about['arm'] for record in kept.all().values()} == {'net', 'x', 'y'}
  config = configuration.from_json(kept.find(wanted[1].key).about['config'])
  assert str(tmp_path) not in str(config)


def test_networks_together_are_trained_where_they_are_not_there(trained, tmp_path, monkeypatch):
  scored = []

  def together(source, places):
    scored.append([place.parent.name for place in places])
    return {'ensemble': Way(np.array([True, False]), 7.0)}

  monkeypatch.setattr(running.scoring, 'together', together)
  monkeypatch.setattr(running.sources, 'create', lambda config, split: split)
  wanted = of((0,), a=Arm(), three=Arm(together=('a', 'a', 'a')))
  kept = running.Kept(tmp_path / 'records')
  assert not running.run_all(wanted, tmp_path, kept, lambda line: None).failed
  assert scored == [[member.weights for member in wanted[1].members]] and len(set(scored[0])) == 3
  assert len(set(trained)) == 3
  record = kept.find(wanted[1].key)
  assert record.about['params'] == 21 and record.about['members'] == [{}, {'seed': 1000}, {'seed': 2000}]


def test_a_pruned_start_is_made_for_the_run_and_found_again(trained, tmp_path, monkeypatch):
  arms = {
    'net': Arm(),
    'tuned': Arm({'epochs': 1.0}, start='net', prune=0.5),
    'both': Arm(recipe='drnet_quickstart', start='tuned'),
  }
  saved = []

  def read(place, fixed):
    return Found(config=wanted[0].config, network=place.parent.name)

  Found = dataclasses.make_dataclass('Found', ['config', 'network'])
  monkeypatch.setattr(running.trained, 'read', read)
  monkeypatch.setattr(running.trained, 'save', lambda found, place: saved.append((found, place)))
  monkeypatch.setattr(running.pruning, 'pruned', lambda network, ratio: (network, ratio))
  starts = []
  plain = running.train_and_evaluate

  def train(config, place):
    starts.append(config.init.checkpoint or config.drnet.checkpoint)
    return plain(config, place)

  monkeypatch.setattr(running, 'train_and_evaluate', train)
  monkeypatch.setattr(running.configuration, 'settled', lambda config, place: config)
  wanted = of((0,), **arms)
  net, tuned, both = wanted
  kept = running.Kept(tmp_path / 'records')
  assert not running.run_all([both], tmp_path, kept, lambda line: None).failed  # the others are trained for it
  assert starts == ['', f'{tmp_path}/runs/{tuned.weights}/pruned', f'{tmp_path}/runs/{tuned.weights}/run']
  ((found, place),) = saved
  assert found.network == (net.weights, 0.5) and found.config.model.inner == ((8,), (16,), (32,))
  assert running.Kept(tmp_path / 'records').find(both.key).about['prunes'] == [0.0, 0.5, 0.0]
  running.run_all([tuned], tmp_path, kept, lambda line: None)
  assert running.Kept(tmp_path / 'records').find(tuned.key).about['prunes'] == [0.5, 0.0]


def test_a_run_that_another_process_has_is_passed_over(trained, tmp_path):
  wanted = of((0,))
  with lock.alone(tmp_path / 'runs' / wanted[0].weights):  # as another process would: each has a file of its own
    outcome = running.run_all(wanted, tmp_path, running.Kept(tmp_path / 'records'), lambda line: None)
    assert [job.arm for job in outcome.taken] == ['a'] and len(trained) == 1
  assert not running.run_all(wanted, tmp_path, running.Kept(tmp_path / 'records'), lambda line: None).taken
  assert len(trained) == 2


def test_a_run_whose_start_another_process_has_is_passed_over(trained, tmp_path):
  late = Arm({'drnet.eta': 0.1}, recipe='drnet_quickstart', start='net')
  wanted = of((0,), net=Arm(), late=late)
  with lock.alone(tmp_path / 'runs' / wanted[0].weights):
    outcome = running.run_all(wanted, tmp_path, running.Kept(tmp_path / 'records'), lambda line: None)
  assert [job.arm for job in outcome.taken] == ['net', 'late'] and not trained


def test_a_run_that_another_process_ends_meanwhile_is_not_run_again(trained, tmp_path, monkeypatch):
  wanted = of((0,))[:1]
  running.run_all(wanted, tmp_path / 'other', running.Kept(tmp_path / 'other'), lambda line: None)
  take = running._take

  def late(*args):
    shutil.copytree(tmp_path / 'other', tmp_path / 'records', dirs_exist_ok=True)
    return take(*args)

  monkeypatch.setattr(running, '_take', late)
  outcome = running.run_all(wanted, tmp_path, running.Kept(tmp_path / 'records'), lambda line: None)
  assert len(trained) == 1 and not outcome.taken


def test_other_data_are_refused(trained, tmp_path, monkeypatch):
  kept = running.Kept(tmp_path / 'records')
  running.run_all(of((0,)), tmp_path, kept, lambda line: None)
  for record in kept.all().values():
    record.about['data'].update({split: {'digest': 'other', 'entries': 3} for split in ('train', 'eval')})
  monkeypatch.setattr(running.sources, 'create', lambda config, split: split)
  here = types.SimpleNamespace(digest='this', entries=(1, 2))
  monkeypatch.setattr(running.identity, 'of', lambda source: here)
  running.check_data(of((0,)), kept)  # nothing is to be run
  with pytest.raises(ValueError, match=r'^--records: .* holds runs on other data \(train: 3 entries there, 2 here'):
    running.check_data(of((1,)), kept)
  here.digest = 'other'
  running.check_data(of((1,)), kept)


def test_the_time_left_is_that_of_finished_runs_or_by_multiply_adds(trained, tmp_path):
  kept = running.Kept(tmp_path / 'records')
  wanted = of()
  assert [row.seconds for row in estimates.estimates(wanted, kept.all())] == [None, None]
  running.run_all(wanted[:1], tmp_path, kept, lambda line: None)
  first, second = estimates.estimates(wanted, kept.all())
  assert (first.arm, first.finished, first.missing, first.seconds, first.measured) == ('a', 1, 1, 28.0, True)
  assert (second.finished, second.missing, second.measured) == (0, 2, False)
  assert second.seconds == pytest.approx(56.0) and second.epochs == 7.0


def test_an_arm_that_is_scored_once_more_takes_the_time_of_that():
  job = dataclasses.replace(of()[0], recalibrated=True)
  about = {'seconds': 100.0, 'wall_seconds': 7.0}
  for recalibrated, seconds in ((True, 7.0), (False, 100.0)):
    kept = {job.key: Record(job.key, {}, {**about, 'recalibrated': recalibrated})}
    assert [row.seconds for row in estimates.estimates([job], kept)] == [seconds]


def test_what_is_to_be_scored_once_more_is_not_estimated_as_a_training():
  plain, one, other = of()[0], *(dataclasses.replace(of()[0], arm=arm, recalibrated=True) for arm in ('one', 'other'))
  other = dataclasses.replace(other, sizes=(9,))
  kept = {plain.key: Record(plain.key, {}, {'seconds': 100.0})}
  assert [row.seconds for row in estimates.estimates([plain, one, other], kept)] == [100.0, None, None]
  kept |= {one.key: Record(one.key, {}, {'seconds': 100.0, 'wall_seconds': 7.0, 'recalibrated': True})}
  assert [row.seconds for row in estimates.estimates([plain, one, other], kept)] == [100.0, 7.0, 7.0]
