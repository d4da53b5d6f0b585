"""What is written takes no place of others: photographs, results, folders moved away; nor is work done for nothing."""

import errno
import os
import pathlib
import tempfile

import networks
import numpy as np
import pytest
from PIL import Image

from resjax import checksums, cli
from resjax.commands import evaluate, export, outputs, predict
from resjax.inference import Classifier


@pytest.fixture
def photograph(tmp_path):
  path = tmp_path / 'a.jpg'
  Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(path)
  return path


@pytest.fixture(scope='module')
def classifier():
  return Classifier(networks.tiny(), max_batch=2)


def test_predict_overwrites_no_photograph_and_nothing_else_of_others(photograph, tmp_path, monkeypatch, classifier):
  """Before the network is read; what it wrote itself it writes again."""
  loads = []
  monkeypatch.setattr(predict.shared, 'load', lambda *_, **__: loads.append(1) or (classifier, None))
  (tmp_path / 'list.csv').write_text('image,label\na.jpg,cat\n')
  (tmp_path / 'results.json').write_bytes(checksums.to_json({'a': 1}))
  (tmp_path / 'photo.png').symlink_to(photograph)
  before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
  command = ['predict', str(photograph), '--workdir=run']
  for flags in (
    [f'--csv={photograph}'],
    [f'--output={photograph}', '--format=jsonl'],
    [f'--csv={tmp_path}/photo.png'],
    [f'--output={tmp_path}/list.csv'],
    [f'--output={tmp_path}/results.json', '--format=jsonl'],
  ):
    with pytest.raises(
      SystemExit, match='^error: .*: holds something else, expected a new file, or one that this'
    ) as end:
      cli.main([*command, *flags])
    assert '\n' not in str(end.value)
  assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before and loads == []
  for name in ('new.csv', 'new.jsonl'):
    for _ in range(2):
      cli.main([*command, f'--output={tmp_path / name}'])
  assert len(loads) == 4
  (tmp_path / 'empty.csv').touch()
  cli.main([*command, f'--output={tmp_path}/empty.csv'])


def test_figures_and_pages_neither(tmp_path):
  for name in ('photo.jpg', 'page.html', 'numbers.json', 'results.json', 'costs.json', 'manifest.json'):
    (tmp_path / name).write_bytes(b'{"a": 1}\n' if name != 'photo.jpg' else b'\xff\xd8\xff')
  for name, begins in (
    ('photo.jpg', b'{'),
    ('page.html', b'<!doctype html>'),
    ('results.json', b'{'),
    ('costs.json', b'{'),
  ):
    with pytest.raises(ValueError, match=f'{name}: holds something else'):
      outputs.check_writable(tmp_path / name, begins)
  outputs.check_writable(tmp_path / 'numbers.json')
  (tmp_path / 'page.html').write_text('<!DOCTYPE html>\n')
  outputs.check_writable(tmp_path / 'page.html', b'<!doctype html>')
  outputs.check_writable('/dev/stdout')


def test_export_replaces_no_run(tmp_path):
  run = tmp_path / 'run'
  (run / 'checkpoints').mkdir(parents=True)
  for out, name in ((run, 'checkpoints'), (tmp_path, 'run')):
    with pytest.raises(FileExistsError, match=f"--out: {out} holds '{name}', which no export wrote; expected another"):
      with export.whole(out, overwrite=True):
        pytest.fail('it was to be written')
  assert (run / 'checkpoints').is_dir()
  (tmp_path / 'bundle').mkdir()
  (tmp_path / 'bundle' / 'manifest.json').touch()
  with export.whole(tmp_path / 'bundle', overwrite=True) as part:
    part.mkdir()
  assert not any((tmp_path / 'bundle').iterdir())


def test_a_workdir_that_was_moved_away_is_not_made_again(tmp_path, caplog):
  made = Classifier(networks.tiny(), workdir=tmp_path / 'by' / 'hand', max_batch=2)
  (tmp_path / 'by' / 'hand').rename(tmp_path / 'moved')
  assert made.predict(np.zeros((1, 16, 16, 3), np.uint8))[0].error is None
  assert sorted(path.name for path in tmp_path.rglob('*')) == ['by', 'moved']
  assert any('cost table not kept' in record.getMessage() for record in caplog.records)


def test_a_place_that_cannot_be_written_is_told_of_before_images_are_run(tmp_path, monkeypatch):
  made = Classifier(networks.tiny(), workdir=tmp_path, max_batch=2)
  monkeypatch.setattr(made, 'cropped', None)  # what reads images

  def refuse(*_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))

  monkeypatch.setattr(tempfile, 'TemporaryFile', refuse)
  with pytest.raises(OSError, match=r'/dial\.npz: Read-only file system; expected a folder that can be written$'):
    made.calibrate(np.zeros((2, 16, 16, 3), np.uint8))
  monkeypatch.undo()
  (tmp_path / 'gone').mkdir()
  made = Classifier(networks.tiny(), workdir=tmp_path / 'gone', max_batch=2)
  (tmp_path / 'gone').rmdir()
  with pytest.raises(OSError, match='No such file or directory; expected a folder that can be written'):
    made.calibrate(np.zeros((2, 16, 16, 3), np.uint8))
  assert not (pathlib.Path(tmp_path) / 'gone').exists()


def test_what_can_not_be_written_is_known_before_any_work(tmp_path, monkeypatch):
  for name, target in (('loop', 'loop'), ('far', 'not/here'), ('near', 'new')):
    (tmp_path / name).symlink_to(target)
  (tmp_path / 'folder').mkdir()
  for name, message in (
    ('loop', 'Too many levels of symbolic links, expected a file'),
    ('far', 'no folder .*/not, expected one to write to'),
    ('folder', 'a folder, expected a file'),
  ):
    with pytest.raises((OSError, ValueError), match=message):
      outputs.check_writable(tmp_path / name)
  outputs.check_writable(tmp_path / 'near')
  monkeypatch.setattr(outputs.os, 'access', lambda *_: False)  # a disk that is read-only, also for root
  with pytest.raises(PermissionError, match='new: its folder can not be written to'):
    outputs.check_writable(tmp_path / 'new')


def test_an_evaluation_replaces_nothing_but_an_evaluation(tmp_path, monkeypatch):
  monkeypatch.setattr(evaluate.shared, 'load', lambda *_, **__: pytest.fail('the network is read'))
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'classes.csv').write_text('name,teacher\n')
  (tmp_path / 'b').write_text('mine')
  for name, message in (('a', 'classes.csv: holds something else'), ('b', '--out: got .*/b, expected a folder')):
    with pytest.raises(SystemExit, match=message):
      cli.main(['evaluate', '--workdir=run', f'--out={tmp_path / name}'])
  assert (tmp_path / 'a' / 'classes.csv').read_text() == 'name,teacher\n'
