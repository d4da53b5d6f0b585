import io
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow_datasets as tfds
from bucket import bucket
from PIL import Image
from tfrecord_files import write_tfrecord

from resjax.data.decode import BadImage
from resjax.data.tfds import TfdsSource

CLASSES = ['dark', 'bright', 'red']
TRAIN, VALIDATION = 40, 7


def jpeg(i):
  rng = np.random.default_rng(i)
  buffer = io.BytesIO()
  Image.fromarray(rng.integers(0, 256, (12, 17, 3), np.uint8)).save(buffer, 'JPEG')
  return buffer.getvalue()


class TinyPhotos(tfds.core.GeneratorBasedBuilder):
  """A data set as anybody would write one, with a second image that nobody decodes."""

  VERSION = tfds.core.Version('1.2.3')

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'photo': tfds.features.Image(encoding_format='jpeg'),
          'mask': tfds.features.Image(shape=(None, None, 1)),
          'kind': tfds.features.ClassLabel(names=CLASSES),
        }
      ),
      supervised_keys=('photo', 'kind'),
    )

  def _split_generators(self, dl_manager):
    return {
      'train': self._generate_examples(0, TRAIN),
      'validation': self._generate_examples(100, 100 + VALIDATION),
    }

  def _generate_examples(self, first, last):
    for i in range(first, last):
      yield i, {'photo': io.BytesIO(jpeg(i)), 'mask': io.BytesIO(b'no image'), 'kind': CLASSES[i % 3]}


@pytest.fixture(scope='module')
def array_record_dir(tmp_path_factory):
  root = tmp_path_factory.mktemp('tfds')
  builder = TinyPhotos(data_dir=root, file_format='array_record')
  builder.download_and_prepare()
  return root


@pytest.fixture(scope='module')
def tfrecord_dir(array_record_dir, tmp_path_factory):
  """The same records in two TFRecord files for training and one for validation."""
  root = tmp_path_factory.mktemp('tfrecord')
  old, new = (r / 'tiny_photos' / '1.2.3' for r in (array_record_dir, root))
  new.mkdir(parents=True)
  shutil.copy(old / 'features.json', new)
  raw = tfds.decode.DeserializeMethod.RAW_BYTES
  builder = tfds.builder_from_directory(old)
  info = json.loads((old / 'dataset_info.json').read_text())
  info['fileFormat'] = 'tfrecord'
  for split in info['splits']:
    split['filepathTemplate'] = split['filepathTemplate'].replace('array_record', 'tfrecord')
    records = list(builder.as_data_source(split['name'], deserialize_method=raw))
    parts = [records[:25], records[25:]] if split['name'] == 'train' else [records]
    split['shardLengths'] = [str(len(part)) for part in parts]
    for i, part in enumerate(parts):
      write_tfrecord(new / f'tiny_photos-{split["name"]}.tfrecord-{i:05}-of-{len(parts):05}', part)
  (new / 'dataset_info.json').write_text(json.dumps(info))
  return root


@pytest.fixture(params=['array_record', 'tfrecord'])
def root(request):
  return str(request.getfixturevalue(f'{request.param}_dir'))


def by_image(source):
  return {record['image']: record['label'] for record in (source[i] for i in range(len(source)))}


def test_both_formats_give_every_file_untouched(root):
  source = TfdsSource('tiny_photos', root, 'train')
  assert (len(source), source.num_classes, source.class_names) == (TRAIN, 3, tuple(CLASSES))
  assert source.needed is None
  assert by_image(source) == {jpeg(i): i % 3 for i in range(TRAIN)}
  validation = by_image(TfdsSource('tiny_photos:1.2.3', root, 'validation'))
  assert validation == {jpeg(i): i % 3 for i in range(100, 100 + VALIDATION)}


def test_formats_agree_in_order_and_in_parts_of_splits(array_record_dir, tfrecord_dir):
  for split in ('train', 'train[10:30]', 'train[30:]', 'validation+train[:50%]'):
    a, b = (TfdsSource('tiny_photos', str(r), split) for r in (array_record_dir, tfrecord_dir))
    assert [a[i] for i in range(len(a))] == [b[i] for i in range(len(b))]
  assert len(b) == VALIDATION + TRAIN // 2


def test_the_folder_itself_may_be_named(root):
  source = TfdsSource('tiny_photos', f'{root}/tiny_photos/1.2.3', 'validation')
  assert len(source) == VALIDATION
  with pytest.raises(ValueError, match=r'config.data.name: imagenet2012, but .* holds tiny_photos'):
    TfdsSource('imagenet2012', f'{root}/tiny_photos/1.2.3', 'train')


@pytest.mark.parametrize('name', ['lr[0.1]', 'proj [2026] *?/x{1}', '100%#@3'])
def test_the_folders_of_data_may_be_called_anything(array_record_dir, tmp_path, name):
  shutil.copytree(array_record_dir / 'tiny_photos' / '1.2.3', tmp_path / name / 'tiny_photos' / '1.2.3')
  for which in ('tiny_photos', 'tiny_photos:1.2.3'):
    source = TfdsSource(which, str(tmp_path / name), 'train')
    assert {source[i]['image'] for i in range(TRAIN)} == {jpeg(i) for i in range(TRAIN)}
  assert len(TfdsSource('tiny_photos', str(tmp_path / name / 'tiny_photos' / '1.2.3'), 'train[:10]')) == 10


def test_folders_that_tfds_can_not_read_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'reads as a pattern, and 0 prepared tiny_photos in it; expected one'):
    TfdsSource('tiny_photos', str(tmp_path / '[a]'), 'train')
  with pytest.raises(ValueError, match=r"config.data.dir: got '.*caf\\udce9', expected a path in UTF-8"):
    TfdsSource('tiny_photos', str(tmp_path / 'caf\udce9'), 'train')


def test_threads_and_pickled_copies_read_the_same(root):
  source = TfdsSource('tiny_photos', root, 'train')
  expected = [source[i] for i in range(TRAIN)]
  copy = pickle.loads(pickle.dumps(source))
  with ThreadPoolExecutor(8) as pool:
    assert list(pool.map(copy.__getitem__, list(range(TRAIN)) * 5)) == expected * 5


def test_names_of_records(array_record_dir, tfrecord_dir):
  source = TfdsSource('tiny_photos', str(array_record_dir), 'train')
  assert source.name_of(3) == 'tiny_photos/1.2.3 train 3'
  name = TfdsSource('tiny_photos', str(tfrecord_dir), 'train').name_of(25)
  assert name.startswith('tiny_photos/1.2.3 train 25 (')
  assert name.endswith('tiny_photos-train.tfrecord-00001-of-00002 byte 0)')


def test_not_prepared_says_how_to(tmp_path):
  with pytest.raises(FileNotFoundError) as error:
    TfdsSource('imagenet2012', str(tmp_path), 'train')
  message = str(error.value)
  for part in (
    f'not prepared in {tmp_path} ',
    'ILSVRC2012_img_train.tar',
    'ILSVRC2012_img_val.tar',
    f'{tmp_path}/downloads/manual',
    f'tfds build imagenet2012 --data_dir={tmp_path} --file_format=array_record',
    '--config.data.source=folder',
    '--config.data.dir=DIR',
  ):
    assert part in message


def test_wrong_names_and_splits(root):
  with pytest.raises(ValueError, match=r"config.data.name: 'no_such_thing', expected") as error:
    TfdsSource('no_such_thing', root, 'train')
  assert len(str(error.value).splitlines()) == 1
  with pytest.raises(ValueError, match=r"config.data.name: 'imagenet2012:0.0.1'"):
    TfdsSource('imagenet2012:0.0.1', root, 'train')
  with pytest.raises(ValueError, match=r"split 'val', expected one of train, validation"):
    TfdsSource('tiny_photos', root, 'val')


def test_missing_file(tfrecord_dir, tmp_path):
  shutil.copytree(tfrecord_dir, tmp_path, dirs_exist_ok=True)
  lost = tmp_path / 'tiny_photos/1.2.3/tiny_photos-train.tfrecord-00001-of-00002'
  lost.unlink()
  with pytest.raises(FileNotFoundError, match=f'{lost}: missing, a part of tiny_photos'):
    TfdsSource('tiny_photos', str(tmp_path), 'train')


def test_damaged_record_is_a_bad_image(tfrecord_dir, tmp_path):
  shutil.copytree(tfrecord_dir, tmp_path, dirs_exist_ok=True)
  path = tmp_path / 'tiny_photos/1.2.3/tiny_photos-validation.tfrecord-00000-of-00001'
  data = bytearray(path.read_bytes())
  data[12:40] = b'\xff' * 28
  path.write_bytes(data)
  source = TfdsSource('tiny_photos', str(tmp_path), 'validation')
  with pytest.raises(BadImage, match='the record is damaged'):
    source[0]
  assert source[1]['image'] in {jpeg(i) for i in range(100, 100 + VALIDATION)}


def test_other_kinds_of_data_sets_are_refused(tmp_path):
  class TinyTexts(tfds.core.GeneratorBasedBuilder):
    """No images."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({'text': tfds.features.Text()}))

    def _split_generators(self, dl_manager):
      return {'train': self._generate_examples()}

    def _generate_examples(self):
      yield 0, {'text': 'words'}

  TinyTexts(data_dir=tmp_path, file_format='array_record').download_and_prepare()
  with pytest.raises(ValueError, match="features text, expected an image 'image' and a class 'label'"):
    TfdsSource('tiny_texts', str(tmp_path), 'train')


def test_array_records_in_a_bucket_are_read_as_local_ones(array_record_dir, monkeypatch):
  local = TfdsSource('tiny_photos', str(array_record_dir), 'train')
  with bucket(array_record_dir, monkeypatch) as asked:
    for folder in ('gs://photos', 'gs://photos/tiny_photos/1.2.3'):
      remote = TfdsSource('tiny_photos', folder, 'train')
      assert [remote[i] for i in range(len(remote))] == [local[i] for i in range(len(local))]
    assert asked and all(name.startswith('tiny_photos/1.2.3/tiny_photos-train.array_record') for name in asked)


def test_tfrecords_in_a_bucket_are_refused_in_one_line(tfrecord_dir, monkeypatch):
  with bucket(tfrecord_dir, monkeypatch), pytest.raises(ValueError) as error:
    TfdsSource('tiny_photos', 'gs://photos', 'train')
  assert str(error.value) == (
    'config.data.dir: gs://photos/tiny_photos/1.2.3 holds TFRecord files, expected array_record files in a bucket '
    '(or a local copy: gcloud storage cp -r)'
  )
