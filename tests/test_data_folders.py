"""One way to list images: what is one, what is left out and why, links, pipes, sizes; files opened without blocking."""

import logging
import os
import socket
import tracemalloc

import numpy as np
import pytest
from etils import epath
from PIL import Image

from resjax.data import folders
from resjax.data.decode import BadImage
from resjax.inference.images import chunks, items


def picture(path, value=7):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new('RGB', (4, 4), (value, 0, 0)).save(path, 'PNG')
  return path


@pytest.fixture
def odd(tmp_path):
  """A folder with one of everything, and its images."""
  root = tmp_path / 'odd [1]'
  for name in ('b.png', 'a.JPG', 'below/c.gif', 'new\nline.png', 'caf\udce9.png', '=1+1.png', '-x.png'):
    picture(root / name)
  picture(root / 'real' / 'd.avif')
  for name in ('.hidden.png', '._a.jpg', '.cache/e.png'):
    picture(root / name)
  (root / 'notes.txt').write_text('x')
  (root / 'below' / 'no ending').write_text('x')
  os.mkfifo(root / 'pipe.jpg')
  bound = socket.socket(socket.AF_UNIX)
  bound.bind(str(root / 'socket.png'))
  bound.close()
  (root / 'zero.jpg').symlink_to('/dev/zero')
  with open(root / 'sparse.jpg', 'wb') as file:
    file.truncate(10 << 30)
  (root / 'gone.jpg').symlink_to('nowhere')
  (root / 'round.jpg').symlink_to('round.jpg')
  (root / 'again.png').symlink_to('b.png')
  (root / 'below' / 'up').symlink_to('..')
  (root / 'twice').symlink_to('real')
  (root / 'other').symlink_to(picture(tmp_path / 'elsewhere' / 'deep' / 'f.tiff').parent.parent)
  return root


IMAGES = ['-x.png', '=1+1.png', 'a.JPG', 'again.png', 'b.png', 'below/c.gif', 'caf\udce9.png', 'new\nline.png',
          'other/deep/f.tiff', 'real/d.avif']  # fmt: skip
LEFT_OUT = {
  'broken links': ['gone.jpg'],
  'hidden': ['._a.jpg', '.cache', '.hidden.png'],
  'larger than the 512 MiB that an image may have': ['sparse.jpg'],
  'linked folders that are listed already': ['below/up', 'twice'],
  'links in a circle': ['round.jpg'],
  'no regular file but a device': ['zero.jpg'],
  'no regular file but a pipe': ['pipe.jpg'],
  'no regular file but a socket': ['socket.png'],
  'of other kinds': ['below/no ending', 'notes.txt'],
}


def test_everything_in_a_folder_is_an_image_or_left_out_for_a_reason(odd, caplog):
  found = folders.images_in(str(odd), below=True)
  assert found.files == IMAGES and dict(found.left_out) == LEFT_OUT
  with caplog.at_level(logging.WARNING):
    assert [item.name for item in items(odd)] == [str(odd / name) for name in IMAGES]
  (line,) = caplog.messages
  assert line.startswith(f'{odd}: left out are 1 broken links, such as gone.jpg; 3 hidden, such as ._a.jpg; 1 larger')
  assert line.endswith('2 of other kinds, such as below/no ending') and line.isprintable()


def test_training_lists_the_same_but_for_folders_below(odd):
  found = folders.images_in(odd)
  assert found.files == [name for name in IMAGES if '/' not in name]
  assert found.left_out['folders below'] == ['below', 'other', 'real', 'twice']
  assert folders.class_files(odd.parent, (odd.name,)) == [found.files]


def test_what_can_be_read_is_read_and_the_rest_says_why(odd):
  def crop(content):
    return np.frombuffer(content[1:4], np.uint8)

  names = ('pipe.jpg', 'zero.jpg', 'sparse.jpg', 'gone.jpg', 'caf\udce9.png')
  wanted = [*items([str(odd / name) for name in names]), *items('a\0b')]
  (chunk,) = chunks(wanted, crop, size=9, threads=2)
  assert chunk.errors == [
    'no regular file but a pipe', 'no regular file but a device', 'larger than the 512 MiB that an image may have',
    'No such file or directory', None, 'embedded null byte',
  ]  # fmt: skip
  assert bytes(chunk.crops[0]) == b'PNG'
  with pytest.raises(BadImage, match='^no regular file but a folder$'):
    folders.read(odd)


def test_a_folder_of_nothing_to_use_says_what_was_left_out(tmp_path):
  (tmp_path / 'a\x1b[31m.txt').write_text('x')
  picture(tmp_path / '._b.png')
  with pytest.raises(ValueError, match=r'expected files named \.jpg.* \(left out: 1 hidden, .*such as a\\x1b') as error:
    items(tmp_path)
  assert str(error.value).isprintable()


def test_heic_says_what_reads_it(tmp_path, monkeypatch):
  picture(tmp_path / 'a.png')
  (tmp_path / 'b.HEIC').write_bytes(b'x')
  known = tuple(suffix for suffix in folders.suffixes() if suffix not in ('.heic', '.heif'))
  monkeypatch.setattr(folders, 'suffixes', lambda: known)
  found = folders.images_in(tmp_path)
  assert found.said() == "1 .heic, which needs pillow-heif: pip install 'resjax[heif]', such as b.HEIC"


def test_a_pattern_goes_through_links_once_and_takes_known_folders_for_themselves(odd, monkeypatch):
  def names(pattern):
    return [os.path.relpath(item.name, odd) for item in items(f'{odd}/{pattern}')]

  assert names('*.png') == ['-x.png', '=1+1.png', 'again.png', 'b.png', 'caf\udce9.png', 'new\nline.png', 'socket.png']
  assert names('**/*.gif') == ['below/c.gif'] and names('**/deep/*') == ['other/deep/f.tiff']
  assert names('re?l/**') == ['real/d.avif']
  monkeypatch.chdir(odd)
  assert [item.name for item in items('**/d.*')] == ['real/d.avif']
  for at in 'xyz':  # each of three links doubles the ways to walk around
    (odd / 'below' / at).symlink_to('..')
  assert names('**/c.gif') == ['below/c.gif']


def test_what_is_hidden_beside_the_class_folders_is_told_of_too(tmp_path, caplog):
  for name in ('cats', '.git', '.ipynb_checkpoints'):
    (tmp_path / name).mkdir()
  for name in ('cats/a.png', '.DS_Store', 'notes.txt'):
    (tmp_path / name).write_bytes(b'x')
  with caplog.at_level(logging.WARNING, 'absl'):
    assert folders.class_files(epath.Path(tmp_path), ['cats']) == [['a.png']]
  assert '3 hidden, such as .DS_Store; 1 beside the class folders, such as notes.txt' in caplog.text


def test_a_large_file_that_begins_as_no_image_is_not_read(tmp_path):
  with open(tmp_path / 'a.jpg', 'wb') as file:
    file.truncate(400 << 20)
  tracemalloc.start()
  try:
    with pytest.raises(BadImage, match=r'^not an image file \(419430400 bytes\)$'):
      folders.read(tmp_path / 'a.jpg')
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
  finally:
    tracemalloc.stop()
  (tmp_path / 'b.jpg').touch()
  with pytest.raises(BadImage, match='^an empty file$'):
    folders.read(tmp_path / 'b.jpg')
