"""A flat folder of images without labels; class folders by the names or the numbers of a network's classes."""

import io

import numpy as np
import pytest
from PIL import Image
from test_teaching import flat, save, tiny

from resjax import config as configuration
from resjax import trained
from resjax.data import loader, sources
from resjax.data.crops import evaluation_crops
from resjax.preprocess import Preprocessing, prepare
from resjax.training import loop

pytestmark = pytest.mark.usefixtures('shallow')
NAMES = ('ant', 'bee', 'cat')


def picture(seed):
  buffer = io.BytesIO()
  rng = np.random.default_rng(seed)
  pixels = rng.integers(0, 256, (1, 1, 3)) * rng.uniform(0, 1, (20, 24, 1)) ** rng.integers(0, 9)
  Image.fromarray(pixels.astype(np.uint8)).save(buffer, 'JPEG')
  return buffer.getvalue()


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """Twenty files in one folder; two classes of three, by their numbers, in another."""
  root = tmp_path_factory.mktemp('photos')
  (root / 'flat' / 'inside').mkdir(parents=True)
  for i in range(20):
    (root / 'flat' / f'{i:02d}.jpg').write_bytes(picture(i))
  for name in ('002', '000'):
    (root / 'scored' / name).mkdir(parents=True)
    for i in range(3):
      (root / 'scored' / name / f'{i}.jpg').write_bytes(picture(i))
  return root


@pytest.fixture(scope='module')
def start(shallow, tmp_path_factory):
  return save(tmp_path_factory.mktemp('runs') / 'start', tiny(resolutions=(16,)), NAMES)


def make_config(photos, start, **fields):
  fields = {
    'init.checkpoint': str(start), 'teacher.checkpoint': 'init', 'teacher.labels': False, 'data.source': 'images',
    'data.dir': str(photos / 'flat'), 'data.eval_dir': str(photos / 'scored'),
  } | fields  # fmt: skip
  config = tiny(**fields)
  configuration.validate(config)
  return config


def test_files_of_one_folder_have_no_labels(photos, start, tmp_path):
  config = make_config(photos, start)
  source = sources.create(config, 'train')
  assert (len(source), source.num_classes, source.class_names) == (20, 3, NAMES)
  with pytest.raises(ValueError, match='flat/03.jpg: no label, expected images with one: config.data.eval_dir names'):
    source[3]['label']
  assert source[3] == {'image': picture(3)} and source.name_of(3).endswith('flat/03.jpg')
  config.data.cache = str(tmp_path)
  for cache in (sources.create(config, 'train'), sources.create(config, 'train')):  # written, then read
    batch = next(loader.train_batches(cache, config))
    np.testing.assert_array_equal(batch['label'], np.full(8, -1))


def test_class_folders_are_scored_as_the_networks_classes(photos, start):
  source = sources.create(make_config(photos, start), 'validation')
  assert [source[i]['label'] for i in range(len(source))] == [0, 0, 0, 2, 2, 2]
  assert source.class_names == NAMES and source.num_classes == 3
  assert source.name_of(4).endswith('scored/002/1.jpg') and source[4]['image'] == picture(1)


def test_any_other_split_is_refused(photos, start):
  with pytest.raises(ValueError, match="^data.source 'images': got the split 'test', expected 'train' or 'validation'"):
    sources.create(make_config(photos, start), 'test')


def test_a_run_on_images_without_labels(photos, start, tmp_path):
  """The largest size is scored as the teacher is; the result knows the teacher's classes."""
  rates = (('shared/*', 0.0), ('private/16/*', 0.0))
  results = loop.train_and_evaluate(make_config(photos, start, **{'optimizer.rates': rates}), tmp_path)
  network, before = trained.load(tmp_path), trained.load(start)
  assert network.class_names == NAMES and results['resolutions']['16']['images'] == 6
  a, b = flat(network.view(16)), flat(before.view(16))
  assert a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


def test_without_labels_right_is_what_the_teacher_says(photos, start, tmp_path, capsys):
  """The largest size, which stayed, agrees with itself on every image; the other as often as by hand."""
  rates = (('shared/*', 0.0), ('private/16/*', 0.0))
  fields = {'data.eval_dir': '', 'eval.pyramid': 'device', 'optimizer.rates': rates, 'optimizer.learning_rate': 0.3}
  results = loop.train_and_evaluate(make_config(photos, start, **fields), tmp_path)
  assert 'No labels to score on: right is what the teacher says' in capsys.readouterr().out
  assert results['truth'] == 'teacher' and results['resolutions']['16'] == results['resolutions']['16'] | {
    'top1': 1.0, 'images': 20
  }  # fmt: skip
  network, crop = trained.load(tmp_path), evaluation_crops(Preprocessing(), (16,))
  crops = np.concatenate([crop(picture(i)) for i in range(20)])
  answers = [
    np.asarray(network.model.apply(network.view(r), *prepare((crops,), (r,), 'imagenet'), train=False)).argmax(-1)
    for r in (16, 8)
  ]
  assert results['resolutions']['8']['top1'] == (answers[0] == answers[1]).mean() < 1


@pytest.mark.parametrize(
  ('fields', 'error', 'message'),
  [
    (
      {'init.checkpoint': 'none'},
      FileNotFoundError,
      '^config.init.checkpoint: no checkpoints in none, expected the work',
    ),
    ({'data.dir': ''}, ValueError, '^config.data.dir: empty, expected a folder with [*].jpg$'),
    ({'data.dir': '/nowhere/x'}, FileNotFoundError, '^config.data.dir: no folder /nowhere/x, expected '),
  ],
)
def test_folders_that_are_not_there_are_named(photos, start, fields, error, message):
  with pytest.raises(error, match=message):
    sources.create(make_config(photos, start, **fields), 'train')


def test_a_folder_without_images_is_refused(photos, start):
  with pytest.raises(ValueError, match='flat/inside: no images, expected files named'):
    sources.create(make_config(photos, start, **{'data.dir': str(photos / 'flat' / 'inside')}), 'train')
