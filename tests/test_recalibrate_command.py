"""`resjax recalibrate`: statistics of given images at each size, all else bit for bit as it was, in a new workdir."""

import jax
import numpy as np
import pytest
from PIL import Image
from test_loop import tiny

from resjax import checkpoint, cli, drnet, models, preprocess, trained, unseen
from resjax.data.crops import evaluation_crops
from resjax.inference import images, passes

NAMES = ('ant', 'bee', 'cat')


def config_of(**fields):
  config = tiny()
  config.method, config.drnet.predictor.size = 'drnet', 8
  config.update_from_flattened_dict({name.replace('__', '.'): value for name, value in fields.items()})
  return config


def saved(place, config):
  """The workdir of a network with a predictor, whose every variable was moved."""
  model, rng = models.from_config(config), np.random.default_rng(0)
  fresh = jax.jit(lambda key: drnet.init(model, config, key))(jax.random.key(0))
  moved = jax.tree.map(lambda x: np.asarray(x) + rng.uniform(0, 0.3, x.shape).astype(np.float32), fresh)
  trained.save(trained.Trained(trained.of_config(config, moved, NAMES), config, 0, True), place)
  return place


@pytest.fixture(scope='module')
def workdir(shallow, tmp_path_factory):
  return saved(tmp_path_factory.mktemp('runs') / 'run', config_of())


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """A folder of eleven images, and a file that is none."""
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
  assert out.startswith('16 px: BatchNorm statistics from 11 images\n8 px: BatchNorm statistics from 11 images\nIn ')
  assert error.count('left out') == 1 and f'{photos}/broken.png: ' in error
  before, after = trained.read(workdir), trained.read(tmp_path / 'new')
  same(after.network.variables['params'], before.network.variables['params'])
  kept = before.network.variables['batch_stats']
  read = [path.read_bytes() for path in sorted(photos.glob('[01]*.png'))]
  found = {str(size): by_hand(before.network, size, read, 8) for size in (16, 8)}
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), after.network.variables['batch_stats'],
               kept | found)  # fmt: skip
  same(after.network.variables['batch_stats']['predictor'], kept['predictor'])
  assert all(np.abs(x - y).max() > 1e-3 for x, y in zip(jax.tree.leaves(found['16']), jax.tree.leaves(kept['16'])))
  assert after.finished and after.network.class_names == NAMES and after.config == before.config
  with pytest.raises(SystemExit, match=r'^error: workdir: .*/new holds a run already, expected a new folder$'):
    cli.main(['recalibrate', 'nowhere.png', f'--workdir={workdir}', f'--out={tmp_path}/new'])


def test_one_size_by_the_runs_own_training_images(workdir, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr('resjax.commands.recalibrate._IMAGES', 12)
  given = [f'--workdir={workdir}', f'--out={tmp_path}/new', '--resolution=8', '--config.data.size=40']
  cli.main(['recalibrate', *given])
  out, error = capsys.readouterr()
  assert out.startswith('8 px: BatchNorm statistics from 12 images\nIn ')
  assert error == 'recalibrating on 12 images of train\n'
  before, after = (trained.load(place).variables['batch_stats'] for place in (workdir, tmp_path / 'new'))
  same({**after, '8': 0}, {**before, '8': 0})
  assert trained.read(tmp_path / 'new').config.data.size == 70  # the run's own stays


def test_what_can_not_be_done_is_one_line_and_leaves_nothing(workdir, photos, tmp_path):
  shared = saved(tmp_path / 'shared', config_of(private='none'))
  for given, message in (
    ([f'--workdir={workdir}', '--resolution=12'], '--resolution: got 12, expected some of 16, 8, which the'),
    ([f'--workdir={workdir}', '--config.epochs=1'], '--config.epochs=1: got with --workdir, expected'),
    ([f'--workdir={shared}'], 'variables: 16, 8 share their statistics, expected private ones'),
    ([f'--workdir={workdir}', f'{photos}/broken.png'], 'batches: got no images, expected at least one batch'),
  ):
    with pytest.raises(SystemExit) as error:
      cli.main(['recalibrate', *given, f'--out={tmp_path}/new'])
    assert str(error.value).startswith(f'error: {message}')
  assert not (tmp_path / 'new').exists()


def test_an_imported_network_needs_images(workdir, tmp_path):
  found = trained.read(workdir)
  config = found.config.copy_and_resolve_references()
  config.data.source = 'tfds'
  meta = checkpoint.load_meta(workdir)
  checkpoint.write(tmp_path / 'in', found.network.variables,
                   {**meta, 'config': config.to_dict(), 'origin': {'source': 'torch'}})  # fmt: skip
  with pytest.raises(SystemExit, match='^error: IMAGE: none given, and .*/in holds an imported network; '):
    cli.main(['recalibrate', f'--workdir={tmp_path}/in', f'--out={tmp_path}/new'])


@pytest.mark.parametrize('sizes', [(3, 0, 5, 1), (9,), (4, 4), (1,) * 7])
def test_batches_do_not_depend_on_how_images_come(sizes):
  crops = np.random.default_rng(0).integers(0, 256, (sum(sizes), 4, 6, 3), np.uint8)
  ends = np.cumsum(sizes)
  chunks = [images.Chunk([''] * n, [None] * n, crops[end - n : end]) for n, end in zip(sizes, ends)]
  found = list(passes.inputs(chunks, (4, 6), 'imagenet', 4))
  assert [len(each) for each in found[:-1]] == [4] * (len(found) - 1) and 0 < len(found[-1]) <= 4
  (whole,) = preprocess.prepare((crops,), ((4, 6),), 'imagenet')
  np.testing.assert_array_equal(np.concatenate(found), whole)
