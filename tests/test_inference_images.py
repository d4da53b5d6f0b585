"""From what a user names to crops in batches: order, names, threads, what can't be read."""

import io
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resjax.data.decode import BadImage, decode
from resjax.data.sources import FakeSource
from resjax.inference.images import Item, chunks, items, listed, of_source


def encoded(value, kind='PNG'):
  buffer = io.BytesIO()
  Image.new('RGB', (4, 4), (value, 0, 0)).save(buffer, kind)
  return buffer.getvalue()


def crop(content):
  """The first two rows and columns."""
  return decode(content)[:2, :2] if isinstance(content, bytes) else content[:2, :2]


def test_a_folder_is_its_image_files_by_name_also_those_below(tmp_path):
  for name in ('b.png', 'A.JPG', 'below/a.webp', 'note.txt', 'below/c.PNG'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b'')
  (tmp_path / 'folder.png').mkdir()
  found = [str(item.content.relative_to(tmp_path)) for item in items(tmp_path)]
  assert found == ['A.JPG', 'b.png', 'below/a.webp', 'below/c.PNG']
  assert [item.name for item in items(str(tmp_path))] == [str(tmp_path / name) for name in found]


def test_a_folder_without_images_is_refused(tmp_path):
  with pytest.raises(ValueError, match=rf'^{tmp_path}: no images, expected files named \.'):
    items(tmp_path)
  for empty in ('', ['']):
    with pytest.raises(ValueError, match=r'^images: got an empty name, expected a file or folder'):
      items(empty)


def test_files_keep_their_name_and_all_else_is_numbered_in_the_whole(tmp_path):
  (tmp_path / 'a.png').write_bytes(encoded(1))
  pixels = np.zeros((4, 4, 3), np.uint8)
  found = items([pixels, tmp_path / 'a.png', encoded(2), np.stack([pixels, pixels]), [pixels]])
  assert [item.name for item in found] == ['0', str(tmp_path / 'a.png'), '2', '3', '4', '5']


def test_one_of_each_kind(tmp_path):
  assert items(tmp_path / 'none.jpg')[0].content == tmp_path / 'none.jpg'  # whether it is there shows when it is read
  assert items(b'abc') == [Item('0', b'abc')]
  item = Item('mine', b'abc')
  assert items(item) == [item] and items([item, b'abc']) == [item, Item('1', b'abc')]
  assert [i.content.shape for i in items(np.zeros((3, 5, 6, 3), np.uint8))] == [(5, 6, 3)] * 3
  assert items([]) == []


@pytest.mark.parametrize(
  'wrong', [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((1, 1, 4, 4, 3), np.uint8)]
)
def test_arrays_of_another_kind_are_refused(wrong):
  with pytest.raises(ValueError, match=r'^images: got .*, expected uint8 \[H, W, 3\] or \[N, H, W, 3\]$'):
    items(wrong)
  (chunk,) = chunks(items([np.zeros((4, 4, 3), np.uint8), wrong, encoded(1)]), crop, size=4, threads=1)
  assert [error and error[:11] for error in chunk.errors] == [None, 'images: got', None] and len(chunk.crops) == 2


def test_what_is_no_image_is_refused():
  for wrong in (7, {'a'}, None, iter([])):
    with pytest.raises(ValueError, match=r'^images: got .*, expected files, folders or arrays$'):
      items(wrong)


def test_a_sources_images_are_read_when_their_turn_comes():
  source = FakeSource('test', 6, 3, 8)
  found = of_source(source, [4, 1])
  assert [item.name for item in found] == [source.name_of(4), source.name_of(1)]
  np.testing.assert_array_equal(found[0].content(), source[4]['image'])
  assert len(of_source(source)) == 6


def test_chunks_keep_the_order_and_tell_what_could_not_be_read(tmp_path):
  (tmp_path / 'bad.jpg').write_bytes(b'no image')
  values = [10, 20, 30, 40, 50]
  wanted = [Item(str(v), encoded(v)) for v in values]
  wanted.insert(1, Item('gone', tmp_path / 'gone.png'))
  wanted.insert(3, Item('bad', tmp_path / 'bad.jpg'))
  found = list(chunks(wanted, crop, size=3, threads=3))
  assert [chunk.names for chunk in found] == [['10', 'gone', '20'], ['bad', '30', '40'], ['50']]
  assert [[error is None for error in chunk.errors] for chunk in found] == [[1, 0, 1], [0, 1, 1], [1]]
  assert found[0].errors[1] == 'No such file or directory' and 'not an image file' in found[1].errors[0]
  assert [chunk.crops[:, 0, 0, 0].tolist() for chunk in found] == [[10, 20], [30, 40], [50]]
  assert all(chunk.crops.dtype == np.uint8 for chunk in found)


def test_a_chunk_of_nothing_readable_has_no_crops():
  (chunk,) = chunks([Item('a', b''), Item('b', Path('/nowhere/b.png'))], crop, size=8, threads=1)
  assert chunk.crops.shape == (0, 1, 1, 3) and all(chunk.errors)


def test_images_are_read_a_chunk_ahead_and_no_more():
  started, lock = [], threading.Lock()

  def read(value):
    with lock:
      started.append(value)
    return np.full((4, 4, 3), value, np.uint8)

  wanted = [Item(str(v), lambda v=v: read(v)) for v in range(9)]
  stream = chunks(wanted, crop, size=3, threads=9)
  assert next(stream).names == ['0', '1', '2']
  time.sleep(0.1)  # nine threads: all that were asked for have begun
  assert set(started) == set(range(6))
  assert [chunk.names[0] for chunk in stream] == ['3', '6'] and sorted(started) == list(range(9))


def test_an_error_of_the_program_is_no_unreadable_image():
  def broken(content):
    raise KeyError('a fault')

  with pytest.raises(KeyError, match='a fault'):
    list(chunks([Item('a', b'')], broken, size=1, threads=1))
  refused = lambda content: (_ for _ in ()).throw(BadImage('too large'))
  assert next(iter(chunks([Item('a', b'')], refused, size=1, threads=1))).errors == ['too large']


def test_a_pattern_is_the_files_that_match_it_in_order(tmp_path, monkeypatch):
  for name in ('b.jpg', 'a.jpg', 'c.png', 'below/d.jpg', '.hidden.jpg'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b'')
  monkeypatch.chdir(tmp_path)
  assert [item.name for item in items('*.jpg')] == ['a.jpg', 'b.jpg']
  assert [item.name for item in items(str(tmp_path / '**/*.jpg'))] == [
    str(tmp_path / name) for name in ('a.jpg', 'b.jpg', 'below/d.jpg')
  ]
  assert [item.name for item in items(['?.png', 'belo[vw]'])] == ['c.png', 'below/d.jpg']  # of a folder, its images
  monkeypatch.setenv('HOME', str(tmp_path))
  assert [item.content for item in items('~/*.png')] == [tmp_path / 'c.png']


def test_a_file_of_that_very_name_wins_over_the_pattern(tmp_path):
  for name in ('a[1].jpg', 'a1.jpg'):
    (tmp_path / name).write_bytes(encoded(1))
  assert [item.content for item in items(tmp_path / 'a[1].jpg')] == [tmp_path / 'a[1].jpg']
  (tmp_path / 'a[1].jpg').unlink()
  assert [item.content for item in items(tmp_path / 'a[1].jpg')] == [tmp_path / 'a1.jpg']


def test_a_pattern_that_matches_nothing_stops_nothing_else(tmp_path):
  (tmp_path / 'a.png').write_bytes(encoded(1))
  (chunk,) = chunks(items([str(tmp_path / '*.gif'), str(tmp_path / 'a.png')]), crop, size=4, threads=1)
  assert chunk.errors == ['no such file, and as a pattern it matches none', None] and len(chunk.crops) == 1


@pytest.mark.parametrize(
  ('url', 'way'),
  [
    ('https://a.org/b.jpg', r'download it first \(curl -LO https://a.org/b.jpg\)$'),
    ('HTTP://a.org/*.jpg', r'download it first \(curl'),
    (Path('http://a.org/b.jpg'), r'got http:/a.org/b.jpg, expected a file or folder of this machine: download'),
    ('gs://bucket/b.jpg', 'copy it here first, or mount its bucket as a folder$'),
    ('file:///a/b.jpg', 'type its path alone$'),
  ],
)
def test_a_url_is_refused_with_what_to_do(url, way):
  with pytest.raises(ValueError, match=rf'^images: got .*{way}' if isinstance(url, str) else way):
    items([url])


def test_a_list_names_paths_as_they_are(tmp_path):
  (tmp_path / 'below').mkdir()
  (tmp_path / 'below' / 'x.png').write_bytes(b'')
  (tmp_path / 'a1.jpg').write_bytes(b'')
  lines = f'{tmp_path}/a[1].jpg\n\n{tmp_path}/below\r\n{tmp_path}/none é.jpg'
  found = listed(io.BytesIO(lines.encode()))
  assert [item.content for item in found] == [
    tmp_path / 'a[1].jpg', tmp_path / 'below' / 'x.png', tmp_path / 'none é.jpg',
  ]  # fmt: skip


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'standard input: empty, expected a list of paths'),
    (b' \n', 'standard input: empty, expected a list of paths'),
    (encoded(1), r'standard input: got no text, expected a list of paths, one a line \(an image is named as a file\)'),
    (b'a.jpg\nhttps://a.org/b.jpg\n', 'images: got https://a.org/b.jpg, expected a file or folder of this machine'),
  ],
)
def test_a_list_that_is_none_is_refused(content, message):
  with pytest.raises(ValueError, match=f'^{message}') as error:
    listed(io.BytesIO(content))
  assert '\n' not in str(error.value)


def test_one_image_is_read_without_another_thread(tmp_path):
  threads = []

  def read():
    threads.append(threading.current_thread())
    return encoded(7)

  (chunk,) = chunks([Item('one', read)], crop, size=4, threads=2)
  assert threads == [threading.main_thread()] and chunk.errors == [None] and len(chunk.crops) == 1
  (bad,) = chunks(items(tmp_path / 'missing.png'), crop, size=4, threads=2)
  assert bad.errors == ['No such file or directory'] and len(bad.crops) == 0
