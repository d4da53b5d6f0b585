"""A frozen teacher: what it sees and says, on any number of devices; what it leaves as it is; what is refused."""

import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs import default
from resjax import checkpoint, models, preprocess, resize, rsnet, trained
from resjax import config as configuration
from resjax.data import loader
from resjax.models.resnet import BasicBlock, ResNet
from resjax.training import freezing, loop, run, teaching
from resjax.training.checkpoints import Checkpoints
from resjax.training.devices import Devices
from resjax.training.step import key_of

pytestmark = pytest.mark.usefixtures('shallow')

# Sums in another order, relative to the largest of an array.
TOLERANCE = 2e-5


def tiny(**fields):
  config = default.get_config()
  config.resolutions = (16, 8)
  config.model.name, config.model.num_classes, config.model.width = 'resnet_small', 3, 0.25
  config.data.source, config.data.name, config.data.size = 'fake', '', 40
  config.batch_size, config.eval.batch_size, config.epochs = 8, 16, 0.8
  config.optimizer.learning_rate = 0.01
  config.checkpoint.every_epochs = 0.4
  config.update_from_flattened_dict(fields)
  return config


def other_model(**options):
  """A network of another architecture than `tiny`'s."""
  return ResNet(block=BasicBlock, stages=(1,), features=8, small_images=True, **options)


OTHER = f'{__name__}:other_model'


def flat(tree):
  return {name: np.asarray(leaf) for name, leaf in flatten_dict(tree, sep='/').items()}


def save(workdir, config, names=()):
  """Writes a network whose every variable was moved, as a run's workdir."""
  rng = np.random.default_rng(0)
  model = models.from_config(config)
  variables = jax.jit(lambda key: rsnet.init(model, config, key))(jax.random.key(3))
  moved = jax.tree.map(lambda x: np.asarray(x + rng.uniform(0, 0.2, x.shape), np.float32), variables)
  head = moved['params']['shared']['head']
  head['kernel'] = 4 * (head['kernel'] - head['kernel'].mean(0))  # else it says the same of every image
  trained.save(trained.Trained(trained.of_config(config, moved, names), config, 0, True), workdir)
  return workdir


@pytest.fixture(scope='module')
def start(shallow, tmp_path_factory):
  """A network of 16 px alone."""
  return save(tmp_path_factory.mktemp('runs') / 'start', tiny(resolutions=(16,)), ('ant', 'bee', 'cat'))


@pytest.fixture(scope='module')
def foreign(shallow, tmp_path_factory):
  """Another architecture, of 12 px alone, that wants its images otherwise."""
  fields = {'model.name': OTHER, 'model.width': 1.0, 'resolutions': (12,), 'data.normalize': 'signed'}
  return save(tmp_path_factory.mktemp('runs') / 'foreign', tiny(**fields), ('ant', 'bee', 'cat'))


def taught(start, **fields):
  """A run that learns from its own start network, without labels."""
  fields = {'init.checkpoint': str(start), 'teacher.checkpoint': 'init', 'teacher.labels': False} | fields
  config = tiny(**fields)
  configuration.validate(config)
  return config


def batches(count, size=8):
  rng = np.random.default_rng(1)
  return [
    {
      'images': (rng.integers(0, 256, (size, 16, 16, 3), np.uint8),),
      'label': np.full(size, -1, np.int32),
      'index': np.arange(i * size, (i + 1) * size, dtype=np.int32),
    }
    for i in range(count)
  ]


def stepped(config, count, devices, steps=2):
  """The state and metrics after some steps on some devices."""
  place = Devices(config.parallel, jax.devices()[:devices])
  _, fresh, train_step = run.make_training(config, place, 10, 100)
  teacher = teaching.load(config, place)
  step = teaching.taught(train_step, teacher, config, place)
  state = place.create(fresh, jax.random.key(0))
  for batch in batches(steps, count):
    state, metrics = step(state, place.put(batch))
  for leaf in jax.tree.leaves(teacher.variables):
    assert not leaf.is_deleted()
  return jax.device_get((state, metrics))


def close(got, expected):
  names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(expected)]
  for name, a, b in zip(names, jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * max(1.0, np.abs(b).max()), err_msg=name)


def test_another_architecture_sees_the_largest_crop_as_flipped_in_its_own_size_and_normalisation(foreign):
  config = taught('', **{'teacher.checkpoint': str(foreign), 'init.checkpoint': ''})
  place, (batch,) = Devices(), batches(1, 16)
  teacher = teaching.load(config, place)
  answer = place.answer(teaching.make_answer_fn(teacher, config))
  got = np.asarray(answer((teacher.variables, jax.random.key_data(key_of(config.seed, 5))), place.put(batch)))
  key = jax.random.fold_in(jax.random.key(config.seed), 5)
  flips = np.asarray(preprocess.draw_flips(key, batch['index'], (16, 8), 'shared'))[0]
  assert 0 < flips.sum() < 16
  images = np.where(flips[:, None, None, None], batch['images'][0][:, :, ::-1], batch['images'][0])
  network = trained.load(foreign)
  inputs = resize.resize(images, 12) / 127.5 - 1
  expected = network.model.apply(network.view(12), inputs, train=False)
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
  assert (teacher.resolution, got.shape) == (12, (16, 3))


def test_eight_devices_compute_what_one_does(start):
  config = taught(start, sync_batch_norm=True)
  close(stepped(config, 16, 8), stepped(config, 16, 1))


def test_pmap_computes_what_shard_map_does(start):
  close(stepped(taught(start, parallel='pmap'), 16, 8), stepped(taught(start), 16, 8))


def test_one_resolution_at_a_time_computes_what_all_together_do(start):
  fields = {'teacher.labels': True, 'teacher.temperature': 2.0, 'optimizer.rates': (('private/16/*', 0.0),)}
  config = taught(start, **fields)
  labelled = lambda way: stepped(taught(start, memory=way, **fields), 16, 8)
  assert config.memory == 'joint'
  close(labelled('two_pass'), labelled('joint'))


def test_without_labels_metrics_are_of_the_teacher_and_say_so(start):
  _, metrics = stepped(taught(start), 8, 1)
  names = ('16', '8', 'ensemble')
  assert set(metrics) == {'loss', 'labels', 'gradient_norm', 'distillation_16', 'distillation_8'} | {
    f'{kind}_{name}' for kind in ('teacher', 'agreement') for name in names
  }
  assert metrics['labels'] == 0
  parts = [metrics[f'teacher_{name}'] for name in names] + [metrics[f'distillation_{r}'] for r in (16, 8)]
  assert metrics['loss'] == pytest.approx(sum(map(float, parts)), rel=1e-5)


@pytest.mark.parametrize('memory', ['joint', 'two_pass'])
def test_private_batch_norm_alone_leaves_weights_and_the_largest_size_bit_for_bit(start, tmp_path, memory):
  """And the size that is trained moves: parameters, statistics; alpha too."""
  rates = (('shared/*', 0.0), ('private/16/*', 0.0))
  config = taught(start, memory=memory, **{'optimizer.rates': rates, 'optimizer.weight_decay': 0.1})
  results = loop.train_and_evaluate(config, tmp_path)
  before, after = trained.load(start).variables, trained.load(tmp_path).variables
  for kind in ('params', 'batch_stats'):
    there, here = flat(before[kind]), flat(after[kind])
    for name, value in here.items():
      old = np.ones(2) if name == 'alpha' else there[name.replace('8/', '16/', 1) if '8/' in name[:10] else name]
      stays = name.startswith(('shared/', 'private/16/', '16/'))
      assert stays == bool((value == old).all()), name
  as_it_was, now = trained.load(start), trained.load(tmp_path)
  images = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32)
  apply = jax.jit(lambda view: now.model.apply(view, images, train=False))
  np.testing.assert_array_equal(apply(now.view(16)), apply(as_it_was.view(16)))
  assert set(results['resolutions']) == {'16', '8'}


def test_statistics_are_kept_where_that_is_said_while_weights_move(start):
  config = taught(start, **{'optimizer.statistics': 'kept'})
  place = Devices(devices=jax.devices()[:1])
  _, fresh, _ = run.make_training(config, place, 10, 100)
  before = jax.device_get(place.create(fresh, jax.random.key(0)))
  after, _ = stepped(config, 8, 1)
  jax.tree.map(np.testing.assert_array_equal, after.batch_stats, before.batch_stats)
  assert all((a != b).any() for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(before.params), strict=True))


def test_the_teacher_is_no_part_of_what_is_saved_and_is_read_again(start, tmp_path, monkeypatch):
  """A run that was stopped goes on to the same end; with another teacher behind the name it does not go on."""
  config = taught(start)
  whole = tmp_path / 'whole'
  loop.train_and_evaluate(config, whole)
  part = tmp_path / 'part'
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(loop, 'conclude', _stop)
    patch.setattr(loop.evaluate, 'evaluate', _stop)
    loop.train_and_evaluate(config, part)
  with Checkpoints(part) as checkpoints:
    first, *later = checkpoints.steps
    held = jax.tree.leaves(checkpoints.restore(run.build(config).state_shapes(), first))
  assert first == 2 and later == [4]
  plain = tiny(**{'init.checkpoint': str(start)})
  assert len(held) == len(jax.tree.leaves(run.build(plain).state_shapes()))
  for step in later:
    (part / 'checkpoints' / str(step)).rename(tmp_path / f'gone{step}')
  loop.train_and_evaluate(config, part)
  jax.tree.map(np.testing.assert_array_equal, trained.load(part).variables, trained.load(whole).variables)
  meta = checkpoint.load_meta(part)
  assert len(meta['teacher']) == 64
  with pytest.raises(ValueError, match='^config.teacher.checkpoint: holds another network than the one that taught'):
    teaching.check_same(meta | {'teacher': 'f' * 64}, config, run.build(config).teacher, 'here')


def _stop(*_):
  raise KeyboardInterrupt


def test_a_run_that_is_extended_keeps_its_teacher(start, tmp_path):
  loop.train_and_evaluate(taught(start, epochs=0.4), tmp_path)
  with (
    pytest.MonkeyPatch.context() as patch,
    pytest.raises(ValueError, match='^config.teacher.checkpoint: holds another'),
  ):
    patch.setattr(teaching, 'digest_of', lambda *_: 'another')
    loop.train_and_evaluate(taught(start, epochs=0.8), tmp_path, extend=True)
  loop.train_and_evaluate(taught(start, epochs=0.8), tmp_path, extend=True)
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines if 'train/teacher_8' in line] == [2, 4]


def test_what_is_read_at_resume_is_checked(start, tmp_path):
  config = taught(start)
  parts = run.build(config)
  with Checkpoints(tmp_path) as checkpoints:
    meta = {'config': configuration.to_json(config), 'train_seconds': 0.0, 'finished': False, 'teacher': 'another'}
    checkpoints.save(parts.fresh_state(), meta, None)
  with pytest.raises(ValueError, match='^config.teacher.checkpoint: holds another network than the one') as error:
    loop.train_and_evaluate(config, tmp_path)
  assert '\n' not in str(error.value)


def test_a_size_that_the_teacher_has_not_is_told_of(start, capsys):
  teacher = teaching.load(taught(start, **{'teacher.resolution': 12}), Devices())
  assert teacher.resolution == 12
  assert f'Teacher: {start}; 12 px: BatchNorm of 16 px' in capsys.readouterr().out


def test_a_teacher_that_looks_closer_gets_crops_of_its_size(start):
  config = taught(start, **{'teacher.resolution': 16, 'resolutions': (12, 8)})
  teacher, parts = teaching.load(config, Devices()), run.build(config)
  batch = next(loader.train_batches(parts.train_source, config))
  assert [size.shape for size in batch['images']] == [(8, 16, 16, 3)]
  answer = Devices().answer(teaching.make_answer_fn(teacher, config))
  got = answer((teacher.variables, jax.random.key_data(key_of(config.seed, 0))), Devices().put(batch))
  flips = np.asarray(preprocess.draw_flips(jax.random.fold_in(jax.random.key(0), 0), batch['index'], (12, 8), 'shared'))
  images = np.where(flips[0][:, None, None, None], batch['images'][0][:, :, ::-1], batch['images'][0])
  network = trained.load(start)
  inputs = preprocess.prepare((images,), (16,), 'imagenet')[0]
  np.testing.assert_allclose(got, network.model.apply(network.view(16), inputs, train=False), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'model.num_classes': 4}, r'^config.teacher.checkpoint: .* has 3 classes, expected 4, those of config.model.num'),
    ({'resolutions': (12, 8)}, r'^config.teacher.resolution: got 0, and .* is of 16 px; expected at most 12, or more'),
    ({'teacher.resolution': 24, 'data.pyramid': 'host'}, r'^config.teacher.resolution: got 24, .* at most 16'),
    ({'teacher.checkpoint': 'nowhere'}, r'^config.teacher.checkpoint: no checkpoints in nowhere, expected the workdir'),
  ],
)
def test_a_teacher_that_does_not_fit_is_refused_in_one_line(start, fields, message):
  with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
    teaching.load(taught(start, **fields), Devices())
  assert '\n' not in str(error.value)


def test_the_same_classes_in_another_order_are_refused(start, tmp_path):
  other = save(tmp_path / 'other', tiny(resolutions=(16,)), ('ant', 'cat', 'bee'))
  with pytest.raises(ValueError, match=r"^config.teacher.checkpoint: class 1 of .* is 'cat', expected 'bee' as in"):
    teaching.load(taught(start, **{'teacher.checkpoint': str(other)}), Devices())


def test_patterns_of_a_size_or_of_what_is_shared():
  params = {
    'shared': {'conv1': {'kernel': 1.0}},
    'private': {'16': {'bn1': {'scale': 1.0}}, '8': {'bn1': {'scale': 1.0}}},
  }
  made = default.get_config().optimizer

  def found(*rates):
    made.rates = rates
    return flat(freezing.labels(params, made))

  assert found(('shared/*', 0.0), ('private/8/*', 0.5)) == {
    'shared/conv1/kernel': 'x0', 'private/16/bn1/scale': 'x1', 'private/8/bn1/scale': 'x0.5'
  }  # fmt: skip
  with pytest.raises(ValueError, match="^config.optimizer.rates: got 's[*]', expected a pattern of some"):
    found(('s*', 0.0))  # as ever it is of the plain network's paths
