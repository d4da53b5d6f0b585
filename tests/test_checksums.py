"""A file that has changed since it was written is named and not used, whichever bit it is."""

import json
import logging
import pathlib

import jax
import numpy as np
import pytest

from resjax import checkpoint, checksums
from resjax.training import state
from resjax.training.checkpoints import BEST, Checkpoints
from resjax.training.devices import Devices

VALUES = {'name': 'Zürich', 'share': 0.30000000000000004, 'none': None, 'list': [1, 2.5e-7], 'in': {'a': 'b'}}


def flipped(content, place, bit):
  """The content with one bit changed."""
  changed = bytearray(content)
  changed[place] ^= 1 << bit
  return bytes(changed)


@pytest.mark.parametrize('options', [{}, {'indent': 1, 'ensure_ascii': False}])
def test_every_bit_of_a_json_file_counts(options):
  content = checksums.to_json(VALUES, **options)
  assert checksums.of_json(content) == VALUES
  assert {name: value for name, value in json.loads(content).items() if name != 'checksum'} == VALUES
  for place in range(len(content) - 1):  # the last byte ends the last line
    for bit in range(8):
      with pytest.raises(ValueError):
        checksums.of_json(flipped(content, place, bit))
  for length in range(len(content) - 1):
    with pytest.raises(ValueError):
      checksums.of_json(content[:length])


def test_json_that_is_nested_without_end_is_damage():
  with pytest.raises(ValueError, match='recursion'):
    checksums.of_json(b'{"a": ' + b'[' * 10_000)


def test_json_of_older_versions_has_no_checksum():
  assert checksums.of_json(json.dumps(VALUES).encode()) == VALUES
  with pytest.raises(ValueError, match="got '\\[1\\]', expected an object"):
    checksums.of_json(b'[1]')


def test_what_was_edited_is_told_from_what_was_not():
  with pytest.raises(ValueError, match='^got checksum [0-9a-f]{8}, expected [0-9a-f]{8}$'):
    checksums.of_json(checksums.to_json(VALUES).replace(b'2.5', b'2.6'))


def test_every_bit_of_a_sealed_file_counts():
  content = checksums.sealed(b'\x00\x01label and image')
  assert checksums.opened(content) == b'\x00\x01label and image' and checksums.opened(checksums.sealed(b'')) == b''
  for place in range(len(content)):
    for bit in range(8):
      with pytest.raises(ValueError, match='checksum'):
        checksums.opened(flipped(content, place, bit))
  for length in range(len(content)):
    with pytest.raises(ValueError, match='checksum'):
      checksums.opened(content[:length])


def test_a_folder_says_which_of_its_files_changed(tmp_path):
  (tmp_path / 'a' / 'b').mkdir(parents=True)
  (tmp_path / 'a' / 'b' / 'large').write_bytes(np.random.default_rng(0).bytes(5_000_000))
  (tmp_path / 'empty').touch()
  assert checksums.verify(tmp_path) is False
  checksums.seal(tmp_path)
  assert checksums.verify(tmp_path) is True
  large, content = tmp_path / 'a' / 'b' / 'large', (tmp_path / 'a' / 'b' / 'large').read_bytes()
  large.write_bytes(flipped(content, 4_999_999, 7))
  with pytest.raises(ValueError, match='^a/b/large: damaged, got checksum'):
    checksums.verify(tmp_path)
  assert checksums.verify(tmp_path, 'empty')
  large.write_bytes(content + b'\0')
  with pytest.raises(ValueError, match=r'got checksum \[5000001, '):
    checksums.verify(tmp_path)
  large.unlink()
  with pytest.raises(FileNotFoundError):
    checksums.verify(tmp_path)


def test_a_file_is_replaced_at_once_or_stays(tmp_path):
  checksums.write(tmp_path / 'file', b'old')
  checksums.write(tmp_path / 'file', b'new')
  (tmp_path / 'folder').mkdir()
  with pytest.raises(OSError):
    checksums.write(tmp_path / 'folder', b'new')
  assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'folder']
  assert (tmp_path / 'file').read_bytes() == b'new'


def saved(workdir, *steps):
  """A run of these steps, and where it stands."""
  devices = Devices(devices=jax.devices()[:1])
  variables = {'params': {'w': np.arange(8.0, dtype=np.float32)}, 'batch_stats': {'m': np.ones(3, np.float32)}}

  def fresh(step):
    made = state.TrainState(np.int32(step), **variables, opt_state=())
    return jax.tree.map(jax.numpy.asarray, made)

  with Checkpoints(workdir) as checkpoints:
    for step in steps:
      checkpoints.save(devices.create(lambda step=step: fresh(step)), {'config': {'a': 1}}, {BEST: 0.5})
  return workdir / 'checkpoints'


def test_each_step_is_sealed_whoever_wrote_it(tmp_path):
  steps = saved(tmp_path / 'run', 1, 2)
  checkpoint.write(tmp_path / 'imported', {'params': {'w': np.ones(2)}, 'batch_stats': {}}, {'config': {}})
  for folder in (steps / '1', steps / '2', tmp_path / 'imported' / 'checkpoints' / '0'):
    assert checksums.verify(folder)
    listed = json.loads((folder / checksums.NAME).read_text())['files']
    there = (path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())
    assert sorted([*listed, checksums.NAME]) == sorted(there)


PARTS = ['state/d/*', 'meta/_METADATA', 'state/_METADATA', 'metrics/metrics', '_CHECKPOINT_METADATA', checksums.NAME]


@pytest.mark.parametrize('pattern', PARTS)
def test_a_flipped_bit_in_any_file_of_a_step_is_damage(tmp_path, pattern, caplog):
  caplog.set_level(logging.WARNING)
  steps = saved(tmp_path, 1, 2)
  (path,) = (steps / '2').glob(pattern)
  path.write_bytes(flipped(path.read_bytes(), path.stat().st_size // 2, 3))
  for read in (checkpoint.load, checkpoint.load_meta)[: 2 if pattern.startswith(('meta/', checksums.NAME)) else 1]:
    with pytest.raises(ValueError, match=f'checkpoints/2: {path.relative_to(steps / "2")}: damaged') as error:
      read(tmp_path)
    assert '\n' not in str(error.value)
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.newest_whole() == 1
  assert (tmp_path / 'damaged' / '2').is_dir()
  assert f'{path.name}: damaged' in '\n'.join(record.getMessage() for record in caplog.records)


def test_where_every_step_is_damaged_none_is_moved(tmp_path):
  steps = saved(tmp_path, 1, 2)
  for path in steps.glob('*/metrics/metrics'):
    path.write_bytes(path.read_bytes()[:-3])
  with pytest.raises(
    ValueError, match='no checkpoint is whole: .*/1: metrics/metrics: damaged.*/2: .*another --workdir'
  ):
    Checkpoints(tmp_path)
  assert (steps / '1').is_dir() and (steps / '2').is_dir() and not (tmp_path / 'damaged').exists()


def test_a_step_that_could_not_be_sealed_is_told_of(tmp_path, monkeypatch):
  def refuse(folder: pathlib.Path):
    raise OSError(28, 'No space left on device')

  with Checkpoints(tmp_path) as checkpoints:
    monkeypatch.setattr(checksums, 'seal', refuse)
    with pytest.raises(OSError, match='No space left on device'):
      checkpoints.save(state.TrainState(jax.numpy.int32(1), {}, {}, ()), {'config': {}}, None)
      checkpoints.wait()
    monkeypatch.undo()
  assert checksums.verify(tmp_path / 'checkpoints' / '1')
