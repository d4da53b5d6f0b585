"""Files of weights: what torch and safetensors write is read bit for bit; nothing is run, and no file costs memory."""

import argparse
import collections
import datetime
import pathlib
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from refusals import refused

from resjax.interop import files

torch = pytest.importorskip('torch')


def tensors():
  torch.manual_seed(0)
  grid = torch.randn(4, 6)
  return {
    'plain': torch.randn(5, 3, 2),
    'part': grid[1:3, 2:],
    'turned': grid.T,
    'half': torch.randn(7).half(),
    'bfloat16': torch.randn(7).bfloat16(),
    'double': torch.randn(2).double(),
    'count': torch.tensor(3),
    'flags': torch.tensor([True, False]),
    'none': torch.zeros(0, 3),
  }


def assert_same(found):
  assert found.keys() == tensors().keys()
  for name, value in tensors().items():
    expected = value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
    got = found[name].astype(np.float32) if value.dtype == torch.bfloat16 else found[name]
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize('form', ['plain', 'prefixed', 'compiled', 'checkpoint', 'ordered', 'parameters'])
def test_what_torch_saves_is_read_bit_for_bit(tmp_path, form):
  saved = tensors()
  if form == 'prefixed':
    saved = {f'module.{name}': value for name, value in saved.items()}
  if form == 'compiled':
    saved = {f'module._orig_mod.{name}': value for name, value in saved.items()}
  if form == 'ordered':
    saved = collections.OrderedDict(saved)
    saved._metadata = collections.OrderedDict({'': {'version': 1}})
  if form == 'parameters':
    saved |= {'plain': torch.nn.Parameter(saved['plain'])}
  if form == 'checkpoint':
    optimizer = {'state': {0: {'momentum_buffer': torch.ones(3)}}, 'param_groups': [{'lr': 0.1, 'params': [0]}]}
    best = {'best_acc0': np.float64(3.5), 'best_acc': torch.tensor(1.0), 'device': torch.device('cpu')}
    saved = {'epoch': 3, 'arch': 'resnet18', 'state_dict': saved, 'optimizer': optimizer} | best
  torch.save(saved, tmp_path / 'a.pth.tar')
  found = files.read(tmp_path / 'a.pth.tar')
  assert_same(found.tensors)
  assert found.architecture == ('resnet18' if form == 'checkpoint' else None)


def test_safetensors_are_read_bit_for_bit(tmp_path):
  arrays = {'a': np.float32([1, 2]), 'b': np.zeros((2, 3), np.float16)}
  safetensors.numpy.save_file(arrays, tmp_path / 'a.safetensors')
  found = files.read(tmp_path / 'a.safetensors').tensors
  assert found.keys() == arrays.keys()
  for name, array in arrays.items():
    np.testing.assert_array_equal(found[name], array)
  header = b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
  (tmp_path / 'b').write_bytes(struct.pack('<Q', len(header)) + header + b'\x80\x3f\x00\x40')
  np.testing.assert_array_equal(files.read(tmp_path / 'b').tensors['a'].astype(np.float32), [1, 2])


def test_the_old_form_is_read_bit_for_bit_without_torch(tmp_path):
  torch.save(tensors(), tmp_path / 'a.pth', _use_new_zipfile_serialization=False)
  assert_same(files.read(tmp_path / 'a.pth').tensors)


class Unknown:
  pass


def test_what_a_training_run_keeps_beside_weights_is_left(tmp_path):
  """As timm, torchvision's reference training and RS-Net's authors write checkpoints, in both forms."""
  beside = {
    'args': argparse.Namespace(lr=0.1, sizes=[224, 96], out=pathlib.PurePosixPath('a')),
    'metric': np.float32(0.5),
    'best': np.float64(3.5),
    'scaler': collections.defaultdict(dict, {'a': collections.Counter('ab')}),
    'milestones': collections.deque([3]),
    'when': datetime.datetime(2020, 1, 1),
    'dtype': torch.float32,
    'seen': {1, 2},
    'rng': np.arange(3),
    'shape': torch.Size([1]),
    5: 'five',
    ('a', 1): 'a tuple',
  }
  for old in (False, True):
    saved = beside | {'state_dict': tensors(), 'arch': 'resnet18'}
    torch.save(saved, tmp_path / 'a.pth', _use_new_zipfile_serialization=not old)
    found = files.read(tmp_path / 'a.pth')
    assert_same(found.tensors)
    assert found.architecture == 'resnet18'
  torch.save({'state_dict': tensors(), 'x': Unknown()}, tmp_path / 'a.pth')
  with pytest.raises(
    ValueError, match=r'it names test_interop_files\.Unknown, which is neither an array nor a plain v'
  ):
    files.read(tmp_path / 'a.pth')


def test_averaged_weights_are_taken_where_they_are_meant_or_alone(tmp_path):
  path, other = tmp_path / 'a.pth', {name: torch.zeros(1) for name in tensors()}
  torch.save({'state_dict': other, 'state_dict_ema': tensors()}, path)
  found = files.read(path)
  assert found.tensors['plain'].shape == (1,) and found.note.endswith(
    'averaged ones too (state_dict_ema), which --ema takes'
  )
  found = files.read(path, averaged=True)
  assert_same(found.tensors)
  assert found.note == 'weights: the averaged ones (state_dict_ema)'
  torch.save({'model_ema': {'n_averaged': torch.tensor(3)} | {f'module.{n}': v for n, v in tensors().items()}}, path)
  assert_same(files.read(path).tensors)
  torch.save(tensors(), path)
  with pytest.raises(ValueError, match=r'a\.pth: has no averaged weights, expected them under one of state_dict_ema, '):
    files.read(path, averaged=True)


# --- what is no such file ---


def test_other_zip_files_and_other_files_are_refused(tmp_path):
  with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as file:
    file.writestr('readme', 'no weights')
  refused(tmp_path / 'a.zip', r'a zip file without a data\.pkl of torch')
  for content in (b'', b'\x89PNG....', b'PK', b'PK\x03\x04' + bytes(100), b'\x80\x02', b'\x80\x02}.'):
    path = tmp_path / 'b.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'b\.pth: .*expected'):
      files.read(path)
  with pytest.raises(OSError, match='nowhere'):
    files.read(tmp_path / 'nowhere.pth')


@pytest.mark.parametrize(
  'content',
  [
    struct.pack('<Q', 2**60) + b'{"a":{}}',
    struct.pack('<Q', 8) + b'{"a":{}}',
    struct.pack('<Q', 4) + b'{"a"',
    struct.pack('<Q', 62) + b'{"a":{"dtype":"F32","shape":[99999999],"data_offsets":[0,4]} }' + bytes(4),
    struct.pack('<Q', 55) + b'{"a":{"dtype":"F8_E5M2","shape":[4],"data_offsets":[0,4]}}'[:55] + bytes(4),
    b'1234',
  ],
)
def test_broken_safetensors_are_refused(tmp_path, content):
  path = tmp_path / 'a.safetensors'
  path.write_bytes(content)
  refused(path, r'a\.safetensors: .*expected a whole safetensors file')


@pytest.mark.parametrize('form', ['pth', 'safetensors'])
def test_damage_anywhere_is_told_and_never_crashes(tmp_path, form):
  arrays = {'conv.weight': np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32), 'b': np.ones(3, np.float32)}
  path = tmp_path / f'a.{form}'
  if form == 'pth':
    torch.save({name: torch.from_numpy(value) for name, value in arrays.items()}, path)
  else:
    safetensors.numpy.save_file(arrays, path)
  whole, rng = path.read_bytes(), np.random.default_rng(1)
  cut = [whole[:n] for n in range(0, len(whole), 7)]
  changed = []
  for _ in range(400):
    content = bytearray(whole)
    for place in rng.integers(0, len(whole), rng.integers(1, 6)):
      content[place] = rng.integers(256)
    changed.append(bytes(content))
  told = 0
  for content in cut + changed:
    path.write_bytes(content)
    try:
      found = files.read(path).tensors
    except ValueError as error:
      told += 1
      assert '\n' not in str(error) and 'expected' in str(error)
    else:
      assert all(value.nbytes <= len(whole) for value in found.values())
  assert told > (len(cut) if form == 'pth' else len(cut) - 1)
