"""Studies as files, and the runs that they come to."""

import itertools
import json
import pathlib

import pytest

from resjax import config as configuration
from resjax.evidence import Arm, Claim, Study, definition, jobs

ROOT = pathlib.Path(__file__).parents[1]
STUDIES = sorted(path.stem for path in (ROOT / 'configs' / 'studies').glob('*.py'))
SHIPPED = [name for name in STUDIES if name not in ('__init__', 'scales')]


def study(arms=None, claims=(), **more):
  return Study('A study', 'quickstart', {'plain': Arm()} if arms is None else arms, claims, **more)


@pytest.mark.parametrize(
  ('name', 'scale'),
  [*itertools.product(SHIPPED, ['digits', 'photographs']), ('crops', 'imagenet'), ('normalisers', 'imagenet')],
)
def test_a_shipped_study_can_be_run(name, scale):
  """Every config is one that a run takes, and every claim names arms and ways of them."""
  found = definition.read(f'configs/studies/{name}.py:{scale}')
  runs = jobs.of_study(found, [0], data=None if scale == 'digits' else {'data.dir': 'DIR'})
  assert all(run.start is None or run.start in runs[:place] for place, run in enumerate(runs))
  assert {run.arm for run in runs} == set(found.arms) and len({run.key for run in runs}) == len(runs)
  assert found.seeds >= 5 and found.scale == scale and found.claims and all(claim.source for claim in found.claims)
  sizes = {run.arm: {*map(str, run.config.resolutions)} for run in runs}
  for claim in found.claims:
    for arm, way in (*definition.sides(claim.left), *definition.sides(claim.right)):
      assert not way.isdecimal() or way in sizes[arm], claim


@pytest.mark.parametrize('name', ['bits', 'widths'])
def test_a_study_of_three_sizes_says_so_at_a_scale_of_five(name):
  said = r"scale: got 'imagenet' of 5 sizes, expected one of three sizes: digits, photographs"
  with pytest.raises(ValueError, match=said):
    definition.read(f'configs/studies/{name}.py:imagenet')


def test_a_recipe_is_a_study_of_one_arm(tmp_path):
  found = definition.read('drnet_quickstart')
  assert (list(found.arms), found.claims, found.scale) == (['drnet_quickstart'], (), 'drnet_quickstart')
  (tmp_path / 'own.py').write_text(
    'from resjax.recipes import quickstart\n\ndef get_config(size="8"):\n  config = quickstart.get_config()\n'
    '  config.batch_size = int(size)\n  return config\n'
  )
  (run,) = jobs.of_study(definition.read(f'{tmp_path}/own.py:16'), [0])
  assert run.arm == 'own' and run.config.batch_size == 16


def test_what_a_file_does_wrong_is_one_line(tmp_path):
  file = tmp_path / 'own.py'
  with pytest.raises(FileNotFoundError, match=r'^study: no file .*own\.py, expected one such as'):
    definition.read(file)
  file.write_text('def get_study(scale):\n  return 1 / len(scale[9:])\n')
  with pytest.raises(ValueError, match=r'fails \(ZeroDivisionError: .*, line 2 of .*own\.py\); expected a study'):
    definition.read(f'{file}:small')
  file.write_text('def get_study():\n  return 3\n')
  with pytest.raises(ValueError, match=r'get_study of .*own\.py returned 3, expected a resjax\.evidence\.Study'):
    definition.read(file, 'an argument that it does not take')


@pytest.mark.parametrize(
  ('arms', 'claims', 'message'),
  [
    ({}, (), '^arms: got none'),
    ({'a,b': Arm()}, (), "^arms: got 'a,b', expected a name without"),
    ({'a': Arm(start='b')}, (), "^arm 'a': starts from 'b', expected one of a$"),
    ({'a': Arm(start='b'), 'b': Arm(start='c'), 'c': Arm(start='a')}, (), "^arm 'a': starts from 'a' again"),
    ({'a': Arm(start='b'), 'b': Arm(start='b')}, (), "^arm 'a': starts from 'b' again, expected an end"),
    ({'a': Arm(prune=0.5)}, (), "^arm 'a': got prune 0.5, expected 0 to below 1, and a start"),
    (
      {'a': Arm(), 'b': Arm(together=('a', 'c'))},
      (),
      "^arm 'b': got 'c' in together, expected an arm that starts from",
    ),
    ({'a': Arm(), 'b': Arm(together=('a',))}, (), r"^arm 'b': got together \('a',\), expected two or more"),
    ({'a': Arm(), 'b': Arm({'epochs': 1.0}, together=('a', 'a'))}, (), "^arm 'b': got together .* no other field"),
    ({'a': Arm(), 'b': Arm(start='a', prune=1)}, (), "^arm 'b': got prune 1, expected 0 to below 1"),
    ({'a': Arm(recalibrated=1)}, (), "^arm 'a': got recalibrated 1, expected True or False"),
    (
      {'a': Arm(), 'b': Arm(recalibrated=True), 'c': Arm(together=('a', 'b'))},
      (),
      "^arm 'c': got 'b' in together, expected one that is not recalibrated",
    ),
    (None, [Claim('plain@32', 'other@32', 'x', 'y')], "^claim 'x': names 'other', expected one of plain$"),
    (None, [Claim('plain', 'plain@32', 'x', 'y')], "^claims: got 'plain', expected 'ARM@WAY'"),
  ],
)
def test_names_that_are_not_there_are_refused(arms, claims, message):
  with pytest.raises(ValueError, match=message):
    study(arms, claims)


@pytest.mark.parametrize(
  ('arm', 'message'),
  [
    (Arm({'epoch': 3}), r"^arm 'a': config\.epoch: no such field. Did you mean config\.epochs\?"),
    (Arm({'epochs': 'many'}), r"^arm 'a': config\.epochs: got 'many', expected a number"),
    (Arm({'batch_size': 0}), r"^arm 'a': config\.batch_size: got 0, expected more than 0"),
    (Arm(times=0), "^arm 'a': got times 0, expected a number above 0"),
  ],
)
def test_a_config_that_can_not_be_run_is_refused_before_any_run(arm, message):
  with pytest.raises(ValueError, match=message):
    jobs.of_study(study({'a': arm}), [0])


def test_fields_of_the_study_the_command_the_arm_and_the_data_come_in_this_order():
  found = study({'a': Arm({'batch_size': 8}, times=2)}, fields={'batch_size': 2, 'epochs': 1.0, 'data.dir': 'x'})
  (run,) = jobs.of_study(found, [3], None, ['--config.epochs=5', '--config.batch_size=4'], {'data.dir': 'there'})
  config = run.config
  assert (config.batch_size, config.epochs, config.data.dir, config.seed) == (8, 10.0, 'there', 3)


def test_all_arms_of_a_seed_come_before_the_next_and_starts_come_along():
  arms = {'late': Arm({'drnet.frozen': True}, recipe='drnet_quickstart', start='net'), 'net': Arm(), 'other': Arm()}
  found = jobs.of_study(study(arms), [4, 2], ['late'])
  assert [(run.arm, run.seed) for run in found] == [('net', 4), ('late', 4), ('net', 2), ('late', 2)]
  assert found[1].start is found[0]
  config = found[1].config_from('runs/there')
  assert (config.drnet.start, config.drnet.checkpoint) == ('checkpoint', 'runs/there')
  with pytest.raises(ValueError, match="^--arms: got 'lat', expected some of late, net, other. Did you mean late"):
    jobs.of_study(study(arms), [0], ['lat'])


def test_what_starts_from_a_pruned_network_is_as_small():
  arms = {
    'both': Arm(recipe='drnet_quickstart', start='tuned'),
    'tuned': Arm(start='net', prune=0.5),
    'net': Arm({'model.width': 0.5}),
  }
  found = jobs.of_study(study(arms), [0], ['both'])
  assert [(run.arm, run.config.model.inner, run.prune) for run in found] == [
    ('net', (), 0.0),
    ('tuned', ((4,), (8,), (16,)), 0.5),
    ('both', ((4,), (8,), (16,)), 0.0),
  ]
  net, tuned, both = found
  assert (both.start, tuned.start) == (tuned, net) and both.weights == jobs.key_of(both.config, tuned.weights)
  assert len({tuned.key, jobs.key_of(tuned.config, net.weights), jobs.key_of(tuned.config, None, prune=0.5)}) == 3
  quantised = {**arms, 'net': Arm({'model.quantise': '2/2'})}
  with pytest.raises(ValueError, match="^arm 'tuned': model: got ResNet, expected .* not quantised"):
    jobs.of_study(study(quantised), [0])


def test_networks_that_answer_together_are_those_of_other_arms_and_seeds():
  arms = {'net': Arm(), 'wide': Arm({'model.width': 2.0}), 'all': Arm(together=('net', 'wide', 'net'))}
  net, wide, together = jobs.of_study(study(arms), [3])
  assert [(run.arm, run.seed, run.config.seed) for run in together.members] == [
    ('net', 3, 3),
    ('wide', 3, 3),
    ('net', 1003, 1003),
  ]
  assert [run.weights for run in together.members[:2]] == [net.weights, wide.weights]
  assert together.key not in (net.key, wide.key) and together.config == net.config
  (alone,) = jobs.of_study(study(arms), [3], ['all'])
  assert alone.key == together.key


def test_a_network_that_is_recalibrated_is_the_same_and_scored_otherwise():
  arms = {'net': Arm(), 'again': Arm(recalibrated=True), 'shared': Arm({'private': 'affine'}, recalibrated=True)}
  net, again = jobs.of_study(study(arms), [0], ['net', 'again'])
  assert (net.recalibrated, again.recalibrated) == (False, True)
  assert net.weights == again.weights == net.key != again.key == jobs.key_of(again.config, None, recalibrated=True)
  with pytest.raises(ValueError, match="^arm 'shared': recalibrated with private='affine', expected 'all' or 'stat"):
    jobs.of_study(study(arms), [0])


def test_the_key_is_of_what_is_computed():
  """Where and how fast it runs does not matter; all that the result depends on does."""
  (run,) = jobs.of_study(study(), [0])

  def changed(**fields):
    config = run.config.copy_and_resolve_references()
    config.update_from_flattened_dict({name.replace('__', '.'): value for name, value in fields.items()})
    return jobs.key_of(config, None)

  assert changed(data__dir='elsewhere', data__workers=3, log_steps=1, drnet__eta=9.0) == run.key
  assert changed(distillation_weight=1.0) == run.key == '3c4dbda90027'  # of the first records: folders keep their names
  others = [
    changed(distillation_weight=0.5),
    changed(seed=1),
    changed(epochs=2.0),
    changed(eval__crop_fraction=0.5),
    changed(distillation='none'),
  ]
  others += [jobs.key_of(run.config, *more) for more in ((run.key,), (None, [24]), (None, [], [1]))]
  assert len({run.key, *others}) == 9


def test_the_key_outlives_fields_that_come_later():
  """A stored config that lacks a field is as one with its default, so that a record is found by later versions."""
  (run,) = jobs.of_study(study(), [0])
  stored = json.loads(json.dumps(configuration.to_json(run.config)))
  del stored['optimizer']['layer_decay'], stored['eval']['mistakes']
  assert jobs.key_of(configuration.complete({'format': 1, 'config': stored}, 'there'), None) == run.key
