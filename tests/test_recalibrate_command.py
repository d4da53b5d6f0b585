"""`resjax recalibrate`: statistics of given images at each size, all else bit for bit as it was, in a new workdir."""

import jax
import numpy as np
import pytest
from PIL import Image
from test_loop import tiny

from resjax import checkpoint, cli, drnet, models, preprocess, trained, unseen
from resjax.data import sources
from resjax.data.crops import evaluation_crops
from resjax.evidence import elsewhere
from resjax.inference import images, passes
from resjax.measuring import study
from resjax.training import run as training

NAMES = ('ant', 'bee', 'cat')
FEW = 'few to go by: expected 64 or more'
STATISTIC = 1e-5  # sums over images in another order, float32, read out of an update as in test_unseen.py


def config_of(**fields):
  found = tiny()
  found.method, found.drnet.predictor.size = 'drnet', 8
  found.update_from_flattened_dict({name.replace('__', '.'): value for name, value in fields.items()})
  return found


def saved(place, of, finished=True, origin=None):
  """The workdir of a network with a predictor, whose every variable was moved."""
  model, rng = models.from_config(of), np.random.default_rng(0)
  fresh = jax.jit(lambda key: drnet.init(model, of, key))(jax.random.key(0))
  moved = jax.tree.map(lambda x: np.asarray(x + rng.uniform(0, 0.3, x.shape), np.float32), fresh)
  trained.save(trained.Trained(trained.of_config(of, moved, NAMES), of, 0, finished, origin), place)
  return place


@pytest.fixture(scope='module')
def workdir(shallow, tmp_path_factory):
  return saved(tmp_path_factory.mktemp('runs') / 'run', config_of())


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """A folder of eleven images of at most 30 x 24 pixels, and a file that is none."""
  folder, rng = tmp_path_factory.mktemp('photos'), np.random.default_rng(1)
  for number in range(11):
    Image.fromarray(rng.integers(0, 256, (20 + number, 24, 3), np.uint8)).save(folder / f'{number:02}.png')
  (folder / 'broken.png').write_bytes(b'no image')
  return folder


def same(left, right):
  jax.tree.map(np.testing.assert_array_equal, left, right)


def by_hand(network, size, read, batch):
  """The statistics at a size, of crops that are made one by one."""
  crop = evaluation_crops(network.preprocessing, (size,))
  crops = np.stack([crop(content)[0] for content in read])
  (pixels,) = preprocess.prepare((crops,), (size,), network.preprocessing.normalize)
  batches = [pixels[start : start + batch] for start in range(0, len(pixels), batch)]
  return unseen.recalibrate(network.model, network.variables, size, batches)[0]['batch_stats'][str(size)]


def test_statistics_are_those_of_the_images_and_nothing_else_changes(workdir, photos, tmp_path, capsys):
  cli.main(['recalibrate', str(photos), f'--workdir={workdir}', f'--out={tmp_path}/new', '--batch=8'])
  out, error = capsys.readouterr()
  assert out.startswith(f'16 px: BatchNorm statistics from 11 images, {FEW}\n8 px: BatchNorm statistics from 11 images')
  assert error.count('left out') == 1 and f'{photos}/broken.png: ' in error
  before, after = trained.read(workdir), trained.read(tmp_path / 'new')
  same(after.network.variables['params'], before.network.variables['params'])
  kept = before.network.variables['batch_stats']
  read = [path.read_bytes() for path in sorted(photos.glob('[01]*.png'))]
  found = {str(size): by_hand(before.network, size, read, 8) for size in (16, 8)}
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=STATISTIC), after.network.variables['batch_stats'],
               kept | found)  # fmt: skip
  same(after.network.variables['batch_stats']['predictor'], kept['predictor'])
  assert all(np.abs(x - y).max() > 1e-3 for x, y in zip(jax.tree.leaves(found['16']), jax.tree.leaves(kept['16'])))
  assert after.finished and after.network.class_names == NAMES and after.config == before.config


def test_one_size_by_the_runs_own_training_images(workdir, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr('resjax.commands.recalibrate._IMAGES', 12)
  given = [f'--workdir={workdir}', f'--out={tmp_path}/new', '--resolution=8', '--config.data.size=40']
  cli.main(['recalibrate', *given])
  out, error = capsys.readouterr()
  assert out.startswith(f'8 px: BatchNorm statistics from 12 images, {FEW}\nIn ')
  assert error == 'recalibrating on 12 images of train\n'
  network, source = trained.load(workdir), sources.create(config_of(data__size=40), 'train')
  expected = by_hand(network, 8, [source[number]['image'] for number in study.sample(40, 12)], 64)
  before, after = network.variables['batch_stats'], trained.load(tmp_path / 'new').variables['batch_stats']
  same({**after, '8': 0}, {**before, '8': 0})
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=STATISTIC), after['8'], expected)
  assert trained.read(tmp_path / 'new').config.data.size == 70  # the run's own stays


def test_what_can_not_be_done_is_one_line_and_leaves_nothing(workdir, photos, tmp_path):
  shared = saved(tmp_path / 'shared', config_of(private='none'))
  bundle, file = tmp_path / 'bundle', tmp_path / 'file'
  cli.main(['export', f'--workdir={workdir}', '--format=bundle', '--no-costs', f'--out={bundle}'])
  file.write_text('mine')
  for given, message in (
    ([f'--workdir={workdir}', '--resolution=12'], '--resolution: got 12, expected some of 16, 8 (others: '),
    ([f'--workdir={workdir}', '--config.epochs=1'], '--config.epochs=1: got with --workdir, expected'),
    (
      [f'--workdir={workdir}', str(photos), '--config.data.size=4'],
      '--config.data.size=4: got with IMAGE, ',
    ),
    ([f'--workdir={shared}'], f'--workdir: {shared} has one BatchNorm for all sizes, expected one for each'),
    ([f'--workdir={shared}', '--resolution=8'], f'--workdir: {shared} has one BatchNorm for all sizes, expected one'),
    ([f'--workdir={bundle}'], f'--workdir: got {bundle}, a bundle, expected one of a run'),
    ([f'--workdir={workdir}', '--step=7'], 'no checkpoint of step 7 in '),
    ([f'--workdir={workdir}', f'{photos}/broken.png'], 'IMAGE: none of 1 could be read, expected some to take stat'),
    ([f'--workdir={workdir}', f'{photos}/00.png', '--max-pixels=479'], 'IMAGE: none of 1 could be read, expected some'),
    ([f'--workdir={workdir}', f'--out={workdir}'], f'--out: {workdir} holds a run already, expected a new folder'),
    (
      [f'--workdir={workdir}', f'--out={workdir}/checkpoints/1'],
      f'--out: got {workdir}/checkpoints/1, among',
    ),
    ([f'--workdir={workdir}', f'--out={file}/new'], f'--out: got {file}/new, but {file} is no folder; expected a new'),
  ):
    with pytest.raises(SystemExit) as error:
      cli.main(['recalibrate', f'--out={tmp_path}/new', *given])
    assert str(error.value).startswith(f'error: {message}'), given
  assert not (tmp_path / 'new').exists() and file.read_text() == 'mine'


def test_an_imported_network_needs_images_and_keeps_its_origin(photos, tmp_path, capsys):
  place = saved(tmp_path / 'in', config_of(data__source='tfds'), origin={'source': 'torch'})
  with pytest.raises(SystemExit, match='^error: IMAGE: none given, and .*/in holds an imported network; '):
    cli.main(['recalibrate', f'--workdir={place}', f'--out={tmp_path}/new'])
  cli.main(['recalibrate', str(photos), f'--workdir={place}', '--resolution=8', f'--out={tmp_path}/new'])
  assert capsys.readouterr().out.endswith(f'now: resjax evaluate --workdir={tmp_path}/new --data=DIR\n')
  assert trained.read(tmp_path / 'new').origin == {'source': 'torch'}


def test_weights_that_are_quantised_stay_as_training_has_them(photos, tmp_path, capsys):
  of = config_of(model__name='preact_resnet_small', model__quantise='2/2', method='rsnet')
  place = saved(tmp_path / 'in', of, finished=False)
  cli.main(['recalibrate', str(photos), f'--workdir={place}', '--resolution=8', f'--out={tmp_path}/new'])
  assert 'of step 0, before the end of its training\n' in capsys.readouterr().err
  before, after = (checkpoint.load(each).variables for each in (place, tmp_path / 'new'))
  same(after['params'], before['params'])
  same({**after['batch_stats'], '8': 0}, {**before['batch_stats'], '8': 0})


def test_a_study_takes_training_images_as_they_are_scored(shallow, monkeypatch):
  """Each size's crops made from the whole image, the same images at each."""
  monkeypatch.setattr(elsewhere, 'IMAGES', 9)
  run = training.build(config_of(data__size=20))
  variables = run.fresh_state().variables
  network = trained.of_config(run.config, variables, NAMES)
  read = [run.train_source[number]['image'] for number in np.random.default_rng(0).permutation(20)[:9].tolist()]
  found = elsewhere.recalibrated(run, variables)
  same(found['params'], variables['params'])
  for size in (16, 8):
    expected = by_hand(network, size, read, 9)
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=STATISTIC), found['batch_stats'][str(size)], expected
    )


@pytest.mark.parametrize('sizes', [(3, 0, 5, 1), (9,), (4, 4), (1,) * 7])
def test_batches_do_not_depend_on_how_images_come(sizes):
  crops = np.random.default_rng(0).integers(0, 256, (sum(sizes), 4, 6, 3), np.uint8)
  ends = np.cumsum(sizes)
  chunks = [images.Chunk([''] * n, [None] * n, crops[end - n : end]) for n, end in zip(sizes, ends)]
  found = list(passes.inputs(chunks, (4, 6), 'imagenet', 4))
  assert [len(each) for each in found[:-1]] == [4] * (len(found) - 1) and 0 < len(found[-1]) <= 4
  (whole,) = preprocess.prepare((crops,), ((4, 6),), 'imagenet')
  np.testing.assert_array_equal(np.concatenate(found), whole)
