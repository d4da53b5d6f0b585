"""A calibration knows its images, and says which are gone or others; those that get no numbers are left out by name."""

import os

import networks
import numpy as np
import pytest
from PIL import Image

from resjax import checkpoint, checksums, cli, models
from resjax import config as configuration
from resjax.data.identity import Identity
from resjax.inference import Classifier, calibrating, origin, passes
from resjax.inference.engines import Engines
from resjax.inference.images import Chunk, Item, items
from resjax.inference.origin import Origin
from resjax.recipes import default


def photograph(path, seed):
  path.parent.mkdir(exist_ok=True)
  Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 20, 3), np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
  """Of two classes in `val`, three images each."""
  for number in range(6):
    (tmp_path / 'data' / 'val').mkdir(parents=True, exist_ok=True)
    photograph(tmp_path / 'data' / 'val' / 'ab'[number % 2] / f'{number}.png', number)
  return tmp_path / 'data' / 'val'


class Source:
  """A split."""

  class_names = ('a', 'b')

  def __init__(self, folder, lines):
    self.folder, self.lines = folder, lines

  def entries(self):
    return self.lines


def test_files_are_known_by_path_and_size_and_arrays_by_what_is_in_them(folder):
  made = Origin.of_items(items(str(folder)))
  assert made.name == str(folder) and len(made.data.entries) == 6
  assert made.data.entries[0] == f'{folder}/a/0.png\t{(folder / "a" / "0.png").stat().st_size}'
  pixels = np.zeros((3, 8, 8, 3), np.uint8)
  again, other = (Origin.of_items(items(pixels + n)).data.digest for n in (0, 1))
  assert Origin.of_items(items(pixels)).data.digest == again != other
  assert Origin.of_items(items([b'x'])).data != Origin.of_items(items([b'y'])).data
  assert Origin.of_items(items(pixels)).shown(3) == '3 images of memory'


def test_images_that_are_gone_or_of_another_size_are_told(folder):
  made = Origin.of_json(Origin.of_items(items(str(folder))).to_json())
  assert made.shown(6) == f'6 images of {folder}'
  (folder / 'a' / '0.png').unlink()
  assert made.shown(6) == f'6 images of {folder} (1 gone by now, of 6)'
  with (folder / 'b' / '1.png').open('ab') as file:
    file.write(b' ')
  (folder / 'b' / '7.png').write_bytes(b'an image more is none of these')
  assert made.shown(6) == f'6 images of {folder} (1 gone and 1 of another size by now, of 6)'
  folder.rename(folder.parent / 'elsewhere')
  assert made.shown(6) == f'6 images of {folder} (none of them is there any more)'


def test_of_very_many_files_some_are_looked_at(folder, monkeypatch):
  monkeypatch.setattr(origin, '_LOOKED_AT', 4)
  made = Origin.of_items(items(str(folder)))
  (folder / 'b' / '1.png').unlink()
  (folder / 'a' / '4.png').unlink()
  assert made.shown(6) == f'6 images of {folder} (1 gone by now, of 3 looked at)'


def test_a_name_that_is_no_utf_8_is_kept(tmp_path):
  path = os.fsdecode(os.fsencode(tmp_path) + b'/\xe9\t1.png')
  with open(path, 'wb') as file:
    file.write(b'12')
  made = Origin.of_items(items([path]))
  assert Origin.of_json(made.to_json()) == made and made.data.entries[0] == f'{path}\t2'
  assert made.shown(1) == f'1 images of {tmp_path}'


def test_a_split_is_compared_whole_where_it_is_at_hand_and_by_its_files_where_it_is_not(folder):
  size = (folder / 'a' / '0.png').stat().st_size
  source = Source(folder, (f'a/0.png\t{size}',))
  made = Origin.of_split(source, 'val')
  assert made.shown(1) == made.shown(1, 'val', source) == '1 images of split val'
  more = Source(folder, (*source.lines, 'a/2.png\t7'))
  assert made.shown(1, 'val', more) == '1 images of split val (others by now: 1 added of 1 images)'
  assert made.shown(1, 'other', more) == '1 images of split val'
  (folder / 'a' / '0.png').unlink()
  assert made.shown(1) == '1 images of split val (none of them is there any more)'
  bucket = Origin.of_split(Source('gs://bucket/val', ('a/0.png',)), 'val')
  assert bucket.shown(1) == '1 images of split val'  # nothing is asked of a bucket


def test_it_stands_in_the_file_and_an_older_one_goes_on_without(tmp_path):
  columns = {'odds': np.zeros((3, 2)), 'energy': np.ones(3)}
  network, made = networks.tiny(), Origin('split val', 'val', '', Identity(('a',), ('x',)))
  assert calibrating.origin(tmp_path) is None
  calibrating.write(tmp_path, network, columns, made)
  assert calibrating.origin(tmp_path) == (made, 3)
  assert calibrating.read(tmp_path, network).keys() == columns.keys()
  calibrating.write(tmp_path, network, columns)
  assert calibrating.origin(tmp_path) == (None, 3)
  assert origin.shown(None, 3) == '3 images that are not known (an older version made it)'


@pytest.mark.parametrize('text', ['{', '[]', '{"name": ""}', '{"name":"","split":"","place":"","data":{}}', 'other'])
def test_a_damaged_one_is_refused(tmp_path, text):
  whole = Origin('memory', '', '', Identity((), ('x',))).to_json()
  content = whole.replace('"x"', '"y"') if text == 'other' else text
  np.savez(tmp_path / 'new.npz', energy=np.ones(3), made_on=np.frombuffer(content.encode(), np.uint8))
  checksums.write(tmp_path / 'dial.npz', checksums.sealed((tmp_path / 'new.npz').read_bytes()))
  with pytest.raises(ValueError, match=r'dial\.npz: damaged \(.*\); calibrate first'):
    calibrating.origin(tmp_path)


def test_commands_show_it(folder, tmp_path, monkeypatch, capfd, caplog):
  monkeypatch.setitem(models.MODELS, 'tiny', lambda **options: networks.tiny().model)
  config = default.get_config()
  config.resolutions, config.model.name, config.model.num_classes = (16, 8), 'tiny', 5
  meta = {'format': 1, 'config': configuration.to_json(config), 'class_names': list(networks.NAMES), 'finished': True}
  run = tmp_path / 'run'
  checkpoint.write(run, networks.tiny().variables, meta)
  options = [f'--workdir={run}', '--max-batch=8']
  cli.main(['calibrate', str(folder), *options])
  assert 'in the place of' not in capfd.readouterr().out
  (folder / 'a' / '0.png').unlink()
  cli.main(['predict', str(folder / 'b'), '--budget=0.7', *options])
  assert f'budget 0.7: calibrated on 6 images of {folder} (1 gone by now, of 6)\n' in capfd.readouterr().err
  (folder / 'b' / 'bad.png').write_bytes(b'none')
  cli.main(['calibrate', str(folder), *options])
  out = capfd.readouterr().out
  assert f'in the place of a calibration on 6 images of {folder} (1 gone by now, of 6)\n5 images (1 left out); ' in out
  assert [line.split(': ')[0] for line in caplog.messages if 'left out' in line] == [f'{folder}/b/bad.png']


class Answers:
  """What runs a network that gives no numbers for some images."""

  def __init__(self, *wrong, column='odds', value=np.nan):
    self.wrong, self.column, self.value = list(wrong), column, value

  def columns(self, crops):
    found = {'odds': np.ones((len(crops), 2)), 'scores': np.ones((len(crops), 2)), 'energy': np.ones(len(crops))}
    found[self.column][self.wrong, ..., -1:] = self.value
    return found | {'guess': np.arange(2 * len(crops)).reshape(-1, 2)}


CHUNK = Chunk(['a', 'gone', 'b\x1b', 'c'], [None, 'no file', None, None], np.zeros((3, 16, 16, 3), np.uint8))


@pytest.mark.parametrize(('column', 'value'), [('odds', np.nan), ('odds', np.inf), ('scores', np.nan)])
def test_an_image_that_gets_no_numbers_is_left_out_by_name(column, value):
  notes = []
  columns, readable = passes.table([CHUNK, CHUNK], lambda: Answers(1, column=column, value=value), id, notes.append)
  assert readable.tolist() == [True, False, False, True] * 2
  assert columns['guess'].tolist() == [[0, 1], [4, 5]] * 2
  assert all(len(kept) == 4 and np.isfinite(kept).all() for kept in columns.values())
  assert notes[:2] == ['gone: no file; left out', r'b\x1b: the network gives no numbers for it; left out']


def test_where_none_gets_numbers_one_line_says_so():
  with pytest.raises(ValueError, match='^images: the network gives no numbers for any of 3, expected some with'):
    passes.table([CHUNK], lambda: Answers(0, 1, 2), id, lambda line: None)


def test_calibrating_goes_on_without_it(monkeypatch):
  columns = Engines.columns

  def spoilt(self, crops):
    found = columns(self, crops)
    found['odds'][2] = np.nan
    return found

  monkeypatch.setattr(Engines, 'columns', spoilt)
  classifier = Classifier(networks.tiny(), max_batch=4)
  pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
  assert classifier.calibrate([Item(f'photo {n}', image) for n, image in enumerate(pixels)]) == 4
  assert len(classifier.calibrated['odds']) == 4
  assert classifier.notes == ['photo 2: the network gives no numbers for it; left out']
