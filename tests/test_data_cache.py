"""Examples are read once, kept whole, shared by processes; no room and no leave to write end the run in one line."""

import errno
import os
import pathlib
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_data_identity import config, photographs

from configs import default
from resjax.data import sources
from resjax.data.cache import FolderCache, MemoryCache, cached

COUNT = 1200  # more than one folder of a thousand


class Counting:
  """A source that says how often it was read."""

  num_classes, class_names, needed = 3, ('a', 'b', 'c'), None

  def __init__(self):
    self.reads = []

  def __len__(self):
    return COUNT

  def __getitem__(self, index):
    self.reads.append(index)
    return {'image': b'image %d' % index, 'label': index % 3}

  def name_of(self, index):
    return f'photo {index}'


class Damaged(Counting):
  def __getitem__(self, index):
    raise FileNotFoundError(errno.ENOENT, 'No such file')


def test_the_room_is_known_while_another_run_writes(tmp_path):
  """A file that another run renames between the look at the folder and the look at it is like a link to nothing."""
  cache = FolderCache(Counting(), str(tmp_path), 'photos')
  cache[7]
  (next(tmp_path.glob('*/0')) / '8.123.456').symlink_to('gone')
  kept = len(b'image 7') + 4 + 12
  assert cache.room() == pytest.approx(shutil.disk_usage(tmp_path).free + kept, rel=0.01)


@pytest.fixture(params=['memory', 'folder'])
def where(request, tmp_path):
  return 'memory' if request.param == 'memory' else str(tmp_path / 'kept')


def test_nothing_is_kept_by_default():
  source = Counting()
  assert cached(source, '', 'train') is source


def test_every_example_is_read_once_and_is_the_same(where):
  source, plain = Counting(), Counting()
  cache = cached(source, where, 'train')
  source.reads.clear()  # those of the estimate
  for _ in range(2):
    assert [cache[i] for i in range(COUNT)] == [plain[i] for i in range(COUNT)]
  assert source.reads == list(range(COUNT))
  assert (len(cache), cache.num_classes, cache.class_names, cache.needed) == (COUNT, 3, ('a', 'b', 'c'), None)
  assert cache.name_of(7) == 'photo 7'


def test_what_can_not_be_read_is_not_kept(where):
  cache = cached(Damaged(), where, 'train')
  for _ in range(2):
    with pytest.raises(FileNotFoundError):
      cache[0]


def test_a_folder_serves_other_processes_and_later_runs(tmp_path):
  first, later = Counting(), Counting()
  cache = FolderCache(first, str(tmp_path), 'train')
  with ThreadPoolExecutor(8) as pool:
    list(pool.map(cache.__getitem__, list(range(50)) * 8))
  again = pickle.loads(pickle.dumps(FolderCache(later, str(tmp_path), 'train')))
  assert [again[i]['image'] for i in range(50)] == [b'image %d' % i for i in range(50)]
  assert again._source.reads == []
  other = FolderCache(later, str(tmp_path), 'validation')
  assert other[3]['label'] == 0 and later.reads == [3]
  files = [path for path in tmp_path.rglob('*') if path.is_file()]
  assert len(files) == 50 + 1 + 2  # one of the other split, and what each folder holds


def empty(content):
  return b''


def cut(content):
  return content[:7]


def flipped(content):
  return bytes([content[0] ^ 1]) + content[1:]  # the label


@pytest.mark.parametrize('damage', [empty, cut, flipped])
def test_a_damaged_file_is_named_and_read_again(tmp_path, damage, caplog):
  source = Counting()
  cache = FolderCache(source, str(tmp_path), 'train')
  cache[5]
  (file,) = tmp_path.glob('*/0/5')
  file.write_bytes(damage(file.read_bytes()))
  for _ in range(2):
    assert cache[5] == {'image': b'image 5', 'label': 2} and source.reads == [5, 5]
  (line,) = [record.getMessage() for record in caplog.records]
  assert line.startswith(f'config.data.cache: {file}: damaged (')


def test_a_full_disk_ends_the_run_and_leaves_no_part(tmp_path, monkeypatch):
  cache = FolderCache(Counting(), str(tmp_path), 'train')
  whole = pathlib.Path.write_bytes

  def full(path, data):
    whole(path, data[:3])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(pathlib.Path, 'write_bytes', full)
  with pytest.raises(ValueError, match='config.data.cache: .*/0/5: No space left on device, expected room'):
    cache[5]
  assert [path.name for path in tmp_path.glob('*/0/*')] == []


def test_too_little_room_is_said_beforehand(where, monkeypatch):
  kind = MemoryCache if where == 'memory' else FolderCache
  monkeypatch.setattr(kind, 'room', lambda self: 1000)
  with pytest.raises(ValueError, match=r'config.data.cache: .* room for 0.0 GB, expected .* for the 1200 images'):
    cached(Counting(), where, 'train')


def test_what_is_kept_already_needs_no_more_room(tmp_path, monkeypatch):
  cache = FolderCache(Counting(), str(tmp_path), 'train')
  for i in range(100):
    cache[i]
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: shutil._ntuple_diskusage(0, 0, 5000))
  assert cache.room() == 5000 + sum(16 + len(f'image {i}') for i in range(100))


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError, match=r'config.data.cache: .*/file/.*: Not a directory, expected a folder to write to'):
    cached(Counting(), str(tmp_path / 'file'), 'train')


def test_memory_with_worker_processes_is_refused():
  with pytest.raises(ValueError, match="config.data.cache: got 'memory' with data.workers=2, expected a folder"):
    cached(Counting(), 'memory', 'train', workers=2)


@pytest.mark.parametrize('name', ['fake', 'scaled_digits'])
def test_sources_made_in_memory_have_nothing_to_keep(name):
  config = default.get_config()
  config.data.source, config.data.cache = name, 'memory'
  with pytest.raises(ValueError, match=f"config.data.cache: got 'memory', expected '' with data.source='{name}'"):
    sources.create(config, 'train')


def test_a_cache_serves_no_other_data_however_their_folder_is_typed(tmp_path, monkeypatch):
  """Two projects with images of the same names and sizes, each named by the same relative path; and one that grows."""
  found = []
  for project, seed in (('one', 0), ('two', 1)):
    folder = photographs(tmp_path / project / 'data', seed=seed)
    for path in folder.rglob('*.png'):  # as large, so that names and sizes are the same
      path.write_bytes(path.read_bytes().ljust(2000, b'\0'))
    monkeypatch.chdir(tmp_path / project)
    source = sources.create(config('data', **{'data.cache': str(tmp_path / 'cache')}), 'train')
    assert isinstance(source, FolderCache)
    found.append([source[i]['image'] for i in range(len(source))])
    assert found[-1] == [pathlib.Path(source.name_of(i)).read_bytes() for i in range(len(source))]
  assert found[0] != found[1]
  again = sources.create(config(tmp_path / 'two' / 'data', **{'data.cache': str(tmp_path / 'cache')}), 'train')
  assert again._folder == source._folder  # the same place, typed otherwise
  path = tmp_path / 'two' / 'data' / 'train' / 'cat' / '0.png'
  path.write_bytes(path.read_bytes() + b'\0')
  changed = sources.create(config('data', **{'data.cache': str(tmp_path / 'cache')}), 'train')
  assert changed[0]['image'] == path.read_bytes()
