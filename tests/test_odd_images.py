"""Folders of every odd thing are trained on, evaluated and predicted to the end; decoding and listing, fuzzed."""

import argparse
import contextlib
import csv
import importlib
import io
import os
import resource
import signal
import struct

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from networks import tiny
from PIL import Image, ImageOps
from test_data_bombs import scans
from test_data_decode import carriers, encode, png_header
from test_data_identity import config as make_config

from resjax import BatchPredictor, Classifier, cli, recipes
from resjax.data import folders
from resjax.data.decode import BadImage, decode
from resjax.exporting import bundle
from resjax.inference.images import items
from resjax.inference.opening import limited
from resjax.training import loop

ODD_CLASS = 'caf\udce9 [new]'


def pictures():
  """Names and files: what Pillow reads, each its own way."""
  rng = np.random.default_rng(0)
  picture = Image.fromarray(rng.integers(0, 256, (24, 40, 3), np.uint8))
  yield from ((f'{name}.jpg', data) for name, data in carriers(picture, 6))
  for kind in ('JPEG', 'PNG', 'GIF', 'BMP', 'TIFF', 'WEBP', 'AVIF'):
    for mode in ('RGB', 'L', 'P', 'CMYK', 'RGBA', '1', 'LA'):
      with contextlib.suppress(OSError, ValueError, KeyError):
        yield f'{kind} {mode}.{kind.lower()}', encode(picture.convert(mode), kind)


def bad(picture):
  """Names and files of what is no picture, or none worth decoding."""
  yield 'bomb.jpg', scans(encode(picture.resize((2000, 2000)), 'JPEG', progressive=True), 3000)
  yield 'large.png', png_header(30_000, 3_000)
  yield 'eps.jpg', encode(picture, 'EPS')
  yield 'empty.png', b''
  yield 'half.jpg', encode(picture, 'JPEG')[:300]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Data whose folder, classes and files are called anything, with everything in them."""
  root = tmp_path_factory.mktemp('odd') / 'proj [2026] *?%#'
  picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8))
  for split in ('train', 'val'):
    for label in (ODD_CLASS, '=1+1'):
      folder = root / 'data' / split / label
      folder.mkdir(parents=True)
      for name, data in [*pictures(), *bad(picture), ('._x.jpg', b''), ('note.txt', b''), ('-\x1b[2J\n.png', b'x')]:
        (folder / name).write_bytes(data)
      os.mkfifo(folder / 'pipe.jpg')
      (folder / 'zero.png').symlink_to('/dev/zero')
      (folder / 'gone.gif').symlink_to('gone')
      (folder / 'up').symlink_to('..')
      with open(folder / 'sparse.bmp', 'wb') as file:
        file.truncate(10 << 30)
  return root


BAD = 6  # in each class


def test_good_images_are_what_pillow_makes_of_them(root):
  for name, data in pictures():
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert('RGB')).astype(int)
    assert np.abs(decode(data) - expected).max() <= 2 * ('JPEG' in name or 'EXIF.jpg' in name), name


@pytest.mark.slow
def test_a_folder_of_everything_is_trained_on_evaluated_and_predicted_to_the_end(shallow, root, capsys, caplog):
  good = sum(1 for _ in pictures())
  run = root / 'run [1]'
  config = make_config(root / 'data', **{'data.max_bad_images': 2 * BAD, 'epochs': 1.0})
  results = loop.train_and_evaluate(config, run)
  assert results['unreadable'] == 2 * BAD and results['resolutions']['16']['images'] == 2 * good
  said = [line for line in caplog.messages if 'left out are' in line and '/train' in line]
  assert len(said) == 1 and all(
    f'{number} {why}' in said[0]
    for number, why in (
      (2, 'broken links'), (2, 'hidden'), (2, 'folders below'), (2, 'larger than'), (2, 'of other kinds'),
      (2, 'no regular file but a pipe'), (2, 'no regular file but a device'),
    )
  )  # fmt: skip
  cli.main(['evaluate', f'--workdir={run}', f'--data={root}/data/val', f'--out={root}/out'])
  shown = capsys.readouterr()
  assert 'caf\\udce9 [new]' in shown.out and '\x1b' not in shown.out + shown.err
  assert '/bomb.jpg: a JPEG of more than 100 scans' in shown.err
  with pytest.raises(SystemExit, match=rf'^error: {2 * BAD} of {2 * (good + BAD)} images could not be read$'):
    cli.main(['predict', f'{root}/data/val', f'--workdir={run}', f'--csv={root}/out [x].csv'])
  with open(f'{root}/out [x].csv', newline='', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 2 * (good + BAD) and sum(bool(row['error']) for row in rows) == 2 * BAD
  assert {row['label'] for row in rows if row['label']} <= {"'=1+1", 'caf\\udce9 [new]'}


@contextlib.contextmanager
def bounded(seconds=10):
  """Ends what hangs, or takes more than half a GB of memory more."""
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f'not done after {seconds} s'))
  signal.alarm(seconds)
  try:
    yield
  finally:
    signal.alarm(0)
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10


FILES = [data for _, data in pictures()]
CHANGE = st.tuples(st.integers(0, 2**31), st.sampled_from(['set', 'cut', 'put', 'long', 'twice']), st.integers(0, 255))


@hypothesis.settings(
  max_examples=int(os.environ.get('RESJAX_FUZZ', '300')), deadline=None, derandomize=True, database=None
)
@hypothesis.given(st.sampled_from(FILES), st.lists(CHANGE, max_size=6))
@pytest.mark.filterwarnings('ignore')
def test_whatever_is_in_a_file_it_is_decoded_or_a_bad_image(data, changes):
  content = bytearray(data)
  for where, how, value in changes:
    at = where % (len(content) or 1)
    if how == 'set':
      content[at : at + 1] = bytes([value])
    elif how == 'cut':
      del content[at : at + value]
    elif how == 'put':
      content[at:at] = bytes([value]) * (value + 1)
    elif how == 'long':
      content[at : at + 4] = struct.pack('>I', where)
    else:
      content[at:at] = content[max(0, at - 16 * value) : at]
  with bounded():
    try:
      pixels = decode(bytes(content), max_pixels=4_000_000)
    except BadImage as error:
      assert str(error).strip() and '\n' not in str(error)
    else:
      assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size


LETTERS = st.characters(codec=None, exclude_characters='/\0', max_codepoint=0x2FFFF)
NAMES = st.builds(
  lambda stem, end: (stem.encode('utf-8', 'ignore')[:60] + end).strip(b'.') or b'x',
  st.text(LETTERS, max_size=20) | st.sampled_from(['*', '[a]', '~', '-', '=1', '?']),
  st.sampled_from([b'.jpg', b'.PNG', b'', b'\xff.gif', b'.txt', b'\n.webp']),
)
KINDS = st.sampled_from(['file', 'folder', 'link', 'up', 'pipe', 'sparse'])


@hypothesis.settings(max_examples=100, deadline=None, derandomize=True, database=None)
@hypothesis.given(st.dictionaries(NAMES, KINDS, max_size=8), st.data())
def test_whatever_is_in_a_folder_everything_is_listed_once(tmp_path_factory, entries, data):
  root = os.fsencode(tmp_path_factory.mktemp('fuzz'))
  places = [root]
  for name, kind in entries.items():
    place = os.path.join(data.draw(st.sampled_from(places)), name)
    if kind == 'folder':
      os.mkdir(place)
      places.append(place)
    elif kind in ('link', 'up'):
      os.symlink(data.draw(st.sampled_from(places)) if kind == 'up' else name, place)
    elif kind == 'pipe':
      os.mkfifo(place)
    else:
      with open(place, 'wb') as file:
        file.truncate(10 << 30 if kind == 'sparse' else 1)
  with bounded():
    try:
      found = folders.images_in(os.fsdecode(root), below=True)
    except ValueError as error:
      assert 'no images, expected files named' in str(error)
      return
    assert sorted(item.name for item in items(os.fsdecode(root))) == sorted(
      os.path.join(os.fsdecode(root), name) for name in found.files
    )
  listed = [*found.files, *(name for names in found.left_out.values() for name in names)]
  assert len(listed) == len(set(listed))
  real = [os.path.realpath(os.path.join(root, os.fsencode(name))) for name in found.files]
  assert all(os.path.isfile(path) and os.stat(path).st_size == 1 for path in real)
  files = sum(kind == 'file' for kind in entries.values())
  assert len(set(real)) <= files


def test_files_of_networks_and_recipes_stand_anywhere(tmp_path):
  pytest.importorskip('onnxruntime')
  place = tmp_path / 'proj [2026] *\ncaf\udce9' / '~nobody:x'
  place.mkdir(parents=True)
  network = tiny()
  bundle.write(network, place / 'bundle')
  images = [np.zeros((20, 24, 3), np.uint8), np.zeros((0, 24, 3), np.uint8), np.zeros((20, 24), np.float32)]
  found = Classifier.load(place / 'bundle', runtime='onnx').predict(images)
  assert [p.error is None for p in found] == [True, False, False]
  recipe = place / 'mine:8 [a].py'
  recipe.write_text(
    'from resjax.recipes import default\n\n\ndef get_config(more="none"):\n  return default.get_config()\n'
  )
  assert (
    recipes.make(recipe).batch_size == recipes.make('default').batch_size and recipes.name_of(recipe) == 'mine:8 [a]'
  )


def test_max_pixels_is_an_option_where_a_message_names_it(tmp_path):
  network = tiny()
  bundle.write(network, tmp_path / 'bundle')
  path, content = str(tmp_path / 'a.png'), encode(Image.new('RGB', (40, 30)), 'PNG')
  (tmp_path / 'a.png').write_bytes(content)
  for limit, error in ((1199, '40 x 30 pixels, more than max_pixels = 1199'), (1200, None)):
    for classifier in (Classifier(limited(network, limit)), Classifier.load(tmp_path / 'bundle', max_pixels=limit)):
      (chunk,) = classifier.cropped(items(path), 16)
      assert (chunk.errors[0] or '').startswith(error or '') and (chunk.errors[0] is None) == (error is None)
    row = BatchPredictor(tmp_path / 'bundle', max_pixels=limit, max_batch=2)({'path': [path], 'bytes': [content]})
    assert row['error'][0].startswith(error or '') and (row['error'][0] == '') == (error is None)
  assert limited(network, None) is network
  for command in ('predict', 'evaluate', 'calibrate', 'benchmark', 'report', 'serve'):
    parser = argparse.ArgumentParser()
    importlib.import_module(f'resjax.commands.{command}').add_arguments(parser)
    assert '--max-pixels' in parser.format_help(), command
