import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from bucket import bucket
from PIL import Image

from configs import default
from resjax.data import sources
from resjax.data.decode import decode


def make_config(**data):
  config = default.get_config()
  config.data.update(data)
  return config


def picture(seed=0, kind='JPEG'):
  buffer = io.BytesIO()
  pixels = np.random.default_rng(seed).integers(0, 256, (10, 14, 3), np.uint8)
  Image.fromarray(pixels).save(buffer, kind)
  return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
  """Two splits of three classes, with names that sort and end in many ways."""
  for split, count in (('train', 3), ('val', 1)):
    for name in ('tin', 'glass', 'Paper'):
      (tmp_path / split / name).mkdir(parents=True)
      for i in range(count):
        (tmp_path / split / name / f'{i}.JPG').write_bytes(picture(i))
  (tmp_path / 'train' / 'tin' / 'b.png').write_bytes(picture(7, 'PNG'))
  (tmp_path / 'train' / 'tin' / 'a.WebP').write_bytes(picture(8, 'WEBP'))
  (tmp_path / 'train' / '.hidden').mkdir()
  (tmp_path / 'train' / 'tin' / '.DS_Store').write_bytes(b'x')
  return tmp_path


def open_folder(folder, split='train', num_classes=3, **data):
  config = make_config(source='folder', dir=str(folder), eval_split='val')
  config.model.num_classes = num_classes
  config.data.update(data)
  return sources.create(config, split)


def test_folder_in_order(folder):
  source = open_folder(folder)
  assert source.class_names == ('Paper', 'glass', 'tin')
  assert source.num_classes == 3
  assert source.needed is None
  names = [Path(source.name_of(i)).relative_to(folder / 'train').as_posix() for i in range(len(source))]
  expected = [f'{c}/{i}.JPG' for c in ('Paper', 'glass', 'tin') for i in range(3)]
  assert names == [*expected, 'tin/a.WebP', 'tin/b.png']
  assert [source[i]['label'] for i in range(len(source))] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]
  assert source[1]['image'] == picture(1)
  assert decode(source[9]['image']).shape == (10, 14, 3)
  copy = pickle.loads(pickle.dumps(source))
  assert [copy[i] for i in range(11)] == [source[i] for i in range(11)]


def test_validation_finds_val(folder):
  assert len(open_folder(folder, 'validation', eval_split='validation')) == 3
  (folder / 'val').rename(folder / 'validation')
  assert len(open_folder(folder, 'validation', eval_split='validation')) == 3


def test_a_folder_of_real_photographs(shared_data):
  config = make_config(source='folder', dir=str(shared_data / 'trashnet256'))
  config.model.num_classes = 6
  train, val = (sources.create(config, split) for split in ('train', 'validation'))
  assert (len(train), len(val)) == (2024, 503)
  assert train.class_names == val.class_names
  assert train.num_classes == 6
  assert all(min(decode(val[i]['image']).shape[:2]) == 256 for i in range(0, 503, 50))


def refused(kind, message, *args, **kwargs):
  with pytest.raises(kind) as error:
    open_folder(*args, **kwargs)
  assert message in str(error.value)
  assert len(str(error.value).splitlines()) == 1


def test_folders_that_are_not_as_expected(folder, tmp_path_factory):
  refused(ValueError, 'config.data.dir: empty, expected', '')
  refused(FileNotFoundError, f'config.data.dir: no folder {folder}/test, expected', folder, 'test')
  refused(FileNotFoundError, 'config.data.dir: no folder /nowhere/train', '/nowhere')
  empty = tmp_path_factory.mktemp('empty')
  (empty / 'train').mkdir()
  refused(ValueError, f'{empty}/train: no class folders, expected', empty)
  refused(ValueError, 'config.model.num_classes: 1000, expected 3, the classes of folder', folder, num_classes=1000)
  refused(ValueError, 'config.model.num_classes: 2, expected 3', folder, num_classes=2)
  (folder / 'train' / 'wood').mkdir()
  refused(ValueError, f'{folder}/train/wood: no such class in {folder}/val, expected the same', folder)
  refused(ValueError, f'{folder}/train/wood: no such class in {folder}/val, expected the same', folder, 'val')
  (folder / 'val' / 'wood').mkdir()
  refused(ValueError, f'{folder}/train/wood: no images, expected files named .jpg', folder, num_classes=4)


def test_other_files_are_named_in_the_log(folder, caplog):
  (folder / 'train' / 'glass' / 'notes.txt').write_text('x')
  (folder / 'train' / 'glass' / 'z.svg').write_bytes(b'x')
  (folder / 'train' / 'Paper' / '.DS_Store').write_bytes(b'x')
  (folder / 'train' / 'list.csv').write_bytes(b'x')
  assert len(open_folder(folder)) == 11
  assert (
    f'{folder}/train: left out are 3 hidden, such as Paper/.DS_Store; 2 of other kinds, such as glass/notes.txt; '
    '1 beside the class folders, such as list.csv'
  ) in caplog.text


def test_fake():
  config = make_config(source='fake', size=25)
  config.resolutions = (48, 32)
  config.model.num_classes = 10
  source = sources.create(config, 'train')
  assert (len(source), source.num_classes, source.needed) == (25, 10, None)
  assert [source[i]['label'] for i in range(25)] == [i % 10 for i in range(25)]
  images = [source[i]['image'] for i in range(25)]
  assert {image.dtype for image in images} == {np.dtype(np.uint8)}
  assert all(48 <= side <= 72 for image in images for side in image.shape[:2])
  assert len({image.shape for image in images}) > 10
  np.testing.assert_array_equal(images[3], pickle.loads(pickle.dumps(source))[3]['image'])
  assert not np.array_equal(images[3], sources.create(config, 'val')[3]['image'])


def test_tfds_may_have_fewer_classes_than_the_model(monkeypatch):
  import resjax.data.tfds

  class Prepared:
    num_classes = 10

    def __init__(self, *args):
      self.args = args

  monkeypatch.setattr(resjax.data.tfds, 'TfdsSource', Prepared)
  config = make_config(name='cifar10', dir='/data')
  assert sources.create(config, 'train[:90%]').args == ('cifar10', '/data', 'train[:90%]')
  config.model.num_classes = 9
  with pytest.raises(ValueError, match=r'config.model.num_classes: 9, expected 10, the classes of tfds cifar10'):
    sources.create(config, 'train')


def test_unknown_source():
  with pytest.raises(ValueError, match=r"config.data.source: got 'web', expected one of tfds, folder"):
    sources.create(make_config(source='web'), 'train')


def test_a_folder_in_a_bucket_is_read_as_a_local_one(folder, monkeypatch):
  local = open_folder(folder, split='validation')
  with bucket(folder.parent, monkeypatch):
    remote = open_folder(f'gs://photos/{folder.name}', split='validation')
    assert remote.name_of(0) == f'gs://photos/{folder.name}/val/Paper/0.JPG'
    assert remote.class_names == local.class_names
    assert [remote[i] for i in range(len(remote))] == [local[i] for i in range(len(local))]
    with pytest.raises(FileNotFoundError, match='config.data.dir: no folder gs://photos/nothing/train'):
      open_folder('gs://photos/nothing')
