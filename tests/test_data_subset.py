"""Some classes of a source: labels renumbered as they are named, images in their order, an identity of its own."""

import pickle

import numpy as np
import pytest
from test_data_tfds import CLASSES, array_record_dir  # noqa: F401, the fixture

from configs import default, drnet_r50_imagenet100
from resjax import config as configuration
from resjax.data import identity, sources, subset
from resjax.data.decode import BadImage


def config_of(source, root='', classes=(), count=None, name=''):
  config = default.get_config()
  config.data.source, config.data.dir, config.data.name, config.data.classes = source, str(root), name, classes
  config.model.num_classes = len(classes) if count is None else count
  return config


def content(text):
  """A file that begins as a JPEG does."""
  return b'\xff\xd8\xff' + text.encode()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  root = tmp_path_factory.mktemp('photos')
  for split in ('train', 'val'):
    for count, name in enumerate(('ant', 'bee', 'cat', 'dog'), 1):
      (root / split / name).mkdir(parents=True)
      for number in range(count):
        (root / split / name / f'{number}.jpg').write_bytes(content(f'{split} {name} {number}'))
  return root


def test_of_a_folder_the_named_classes_are_left_in_the_order_named(folder):
  found = sources.create(config_of('folder', folder, ('dog', 'bee')), 'train')
  assert (found.class_names, found.num_classes, len(found)) == (('dog', 'bee'), 2, 6)
  assert [found[i]['image'] for i in range(6)] == [
    *(content(f'train bee {n}') for n in range(2)),
    *(content(f'train dog {n}') for n in range(4)),
  ]
  assert [found[i]['label'] for i in range(6)] == found.labels.tolist() == [1, 1, 0, 0, 0, 0]
  assert found.name_of(2) == str(folder / 'train' / 'dog' / '0.jpg')
  again = pickle.loads(pickle.dumps(found))  # as workers get it
  assert again[5] == found[5] and len(again) == 6


def test_all_classes_in_their_order_are_the_source_itself(folder):
  whole = sources.create(config_of('folder', folder, count=4), 'train')
  every = sources.create(config_of('folder', folder, ('ant', 'bee', 'cat', 'dog')), 'train')
  assert len(every) == len(whole) == 10 and identity.of(every) == identity.of(whole)
  assert [every[i] for i in range(10)] == [whole[i] for i in range(10)]


def test_the_identity_is_of_these_images_and_their_numbers(folder):
  def of(*classes):
    return identity.of(sources.create(config_of('folder', folder, classes), 'train'))

  two = of('dog', 'bee')
  assert two.classes == ('dog', 'bee')
  assert two.entries == ('bee/0.jpg\t14', 'bee/1.jpg\t14', *(f'dog/{n}.jpg\t14' for n in range(4)))
  assert len({one.digest for one in (two, of('bee', 'dog'), of('dog', 'cat'))}) == 3


def test_of_tfds_records_are_read_for_their_labels(array_record_dir, caplog):  # noqa: F811
  config = config_of('tfds', array_record_dir, ('red', 'dark'), name='tiny_photos')
  found = sources.create(config, 'train')
  whole = sources.create(config_of('tfds', array_record_dir, count=3, name='tiny_photos'), 'train')
  chosen = [i for i in range(len(whole)) if CLASSES[whole[i]['label']] != 'bright']
  assert found.numbers.tolist() == chosen and 0 < len(chosen) < len(whole)
  for place, number in enumerate(chosen):
    own = whole[number]
    assert found[place]['image'] == own['image'] and ('red', 'dark')[found[place]['label']] == CLASSES[own['label']]
    assert found.name_of(place) == whole.name_of(number)
  assert identity.of(found).entries == (*identity.of(whole).entries, f'of these classes {len(chosen)} images')
  config.model.num_classes = 3  # a whole data set may have fewer than the network
  with pytest.raises(ValueError, match='^config.model.num_classes: 3, expected 2, the classes of tfds tiny_photos$'):
    sources.create(config, 'train')


def test_of_digits_the_sizes_are_those_of_the_chosen():
  configs = config_of('scaled_digits', classes=('7', '1')), config_of('scaled_digits', count=10)
  for config in configs:
    config.data.size = 200
  found, whole = (sources.create(config, 'train') for config in configs)
  place = 3
  number = int(found.numbers[place])
  np.testing.assert_array_equal(found[place]['image'], whole[number]['image'])
  assert found.digit_size[place] == whole.digit_size[number] and found.needed[place] == whole.needed[number]
  assert len(found.digit_size) == len(found.needed) == len(found) < 100


def test_a_file_of_names(folder, tmp_path):
  (tmp_path / 'some.txt').write_text('# ours\ncat\n\n  ant \n', 'utf-8')
  found = sources.create(config_of('folder', folder, (str(tmp_path / 'some.txt'),), count=2), 'val')
  assert found.class_names == ('cat', 'ant')
  assert subset.names_of(('bee', str(tmp_path / 'some.txt'))) == ('bee', 'cat', 'ant')
  with pytest.raises(FileNotFoundError, match='^config.data.classes: no file other.txt, expected one with a name in'):
    subset.names_of(('other.txt',))
  (tmp_path / 'marked.txt').write_text('cat\r\nant\r\n', 'utf-8-sig')  # as some editors write it
  assert subset.names_of((str(tmp_path / 'marked.txt'),)) == ('cat', 'ant')
  (tmp_path / 'empty.txt').write_text('# none yet\n')
  with pytest.raises(ValueError, match='^config.data.classes: no name in .*empty.txt, expected one in each line$'):
    subset.names_of((str(tmp_path / 'empty.txt'),))
  (tmp_path / 'broken.txt').write_bytes(b'\xff\xfe\xfa')
  with pytest.raises(ValueError, match='broken.txt is no text in UTF-8, expected a name in each line'):
    subset.names_of((str(tmp_path / 'broken.txt'),))


@pytest.mark.parametrize(
  ('classes', 'count', 'message'),
  [
    (('bees', 'ant'), 2, "config.data.classes: got 'bees', expected one of the 4 classes. Did you mean bee?"),
    (('whale',), 2, "config.data.classes: got 'whale', expected one of the 4 classes, such as 'ant'"),
    (('ant', 'bee', 'ant'), 3, "config.data.classes: got 'ant' twice, expected each of them once"),
    (('ant', 'bee'), 4, 'config.model.num_classes: 4, expected 2, the classes of folder'),
  ],
)
def test_names_that_do_not_fit_are_named_in_one_line(folder, classes, count, message):
  with pytest.raises(ValueError) as error:
    sources.create(config_of('folder', folder, classes, count), 'train')
  assert str(error.value).startswith(message) and '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('source', 'classes', 'message'),
  [
    ('folder', (1, 2), 'config.data.classes: got 1, expected names of classes, or a file of them'),
    ('fake', ('0', '1'), "config.data.classes: got .* with data.source='fake', expected"),
  ],
)
def test_a_config_says_which_sources_have_such(source, classes, message):
  config = config_of(source, 'photos', classes, 2)
  with pytest.raises(ValueError, match=message):
    configuration.validate(config)


class Damaged:
  """A source that keeps no labels, with a record that can't be read."""

  class_names, num_classes, needed = ('a', 'b'), 2, None

  def __len__(self):
    return 5

  def __getitem__(self, index):
    if index == 3:
      raise BadImage('the record is damaged')
    return {'image': b'', 'label': index % 2}

  def name_of(self, index):
    return f'record {index}'

  def entries(self):
    return ('five records',)


def test_a_record_that_can_not_be_read_is_of_no_class(caplog):
  found = subset.Subset(Damaged(), ('b',))
  assert found.numbers.tolist() == [1] and '1 records of 5 can not be read' in caplog.text


def test_a_hundred_classes_of_imagenet():
  config = drnet_r50_imagenet100.get_config()
  configuration.validate(config)
  names = config.data.classes
  assert len(set(names)) == config.model.num_classes == 100 and list(names) == sorted(names)
  assert names[0] == 'n01440764' and all(len(name) == 9 and name[1:].isdigit() for name in names)
