"""Files of weights: what torch and safetensors write is read bit for bit; nothing is run, and no file costs memory."""

import collections
import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from resjax.interop import files, pickles

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


@pytest.mark.parametrize('form', ['plain', 'prefixed', 'checkpoint', 'ordered', 'parameters'])
def test_what_torch_saves_is_read_bit_for_bit(tmp_path, form):
  saved = tensors()
  if form == 'prefixed':
    saved = {f'module.{name}': value for name, value in saved.items()}
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


def test_the_old_form_is_read_by_torch_and_names_the_extra_without_it(tmp_path, monkeypatch):
  torch.save(tensors(), tmp_path / 'a.pth', _use_new_zipfile_serialization=False)
  found = files.read(tmp_path / 'a.pth').tensors
  for name, value in tensors().items():
    np.testing.assert_array_equal(found[name], value.float().numpy() if value.is_floating_point() else value.numpy())
  monkeypatch.setattr(files.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r"a\.pth: a file in torch's old form, .* pip install 'resjax\[torch\]'"):
    files.read(tmp_path / 'a.pth')


# --- what is no such file ---


def archive(path, pickled, storages=None, **options):
  """A zip file as torch writes it, with any pickle in it."""
  with zipfile.ZipFile(path, 'w', **options) as file:
    file.writestr('archive/data.pkl', pickled)
    for key, content in (storages or {}).items():
      file.writestr(f'archive/data/{key}', content)
  return path


def tensor(size, stride, offset=0, count=4, kind='FloatStorage', key='0', name='storage'):
  """The pickle of a state dict with one tensor, described in any way."""

  class Storage:
    pass

  class Tensor:
    def __reduce__(self):
      return rebuild, (Storage(), offset, size, stride, False, collections.OrderedDict())

  def rebuild(*_):
    pass

  class Pickler(pickle._Pickler):
    def persistent_id(self, value):
      return (name, Name('torch', kind), key, 'cpu', count) if isinstance(value, Storage) else None

    def save_global(self, value, name=None):
      module = ('torch._utils', '_rebuild_tensor_v2') if value is rebuild else (value.module, value.name)
      self.write(b'c' + '\n'.join(module).encode() + b'\n')

  Pickler.dispatch = pickle._Pickler.dispatch | {
    Name: lambda self, value: self.write(f'c{value.module}\n{value.name}\n'.encode()),
    type(rebuild): Pickler.save_global,
    collections.OrderedDict: lambda self, value: self.save(None),
  }
  import io

  out = io.BytesIO()
  Pickler(out, 2).dump({'a': Tensor()})
  return out.getvalue()


class Name:
  def __init__(self, module, name):
    self.module, self.name = module, name


def refused(path, reason):
  """Reading ends in one line with the reason, in hardly more memory than the file is large."""
  tracemalloc.start()
  try:
    with pytest.raises(ValueError, match=reason) as error:
      files.read(path)
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert '\n' not in str(error.value) and str(path) in str(error.value)
  assert peak < 8_000_000 + 4 * path.stat().st_size, f'{peak:,} bytes'


def test_a_tensor_made_by_hand_is_read(tmp_path):
  values = np.arange(4, dtype=np.float32)
  found = files.read(archive(tmp_path / 'a.pth', tensor((2, 2), (1, 2)), {'0': values.tobytes()})).tensors
  np.testing.assert_array_equal(found['a'], values.reshape(2, 2).T)


@pytest.mark.parametrize(
  ('described', 'reason'),
  [
    (dict(size=(10**12, 10**6), stride=(10**6, 1)), r'shape \(1000000000000, 1000000\) lies outside its storage of 4'),
    (dict(size=(10**12,), stride=(0,)), 'lies outside its storage of 4 values'),
    (dict(size=(5,), stride=(1,)), 'lies outside'),
    (dict(size=(2,), stride=(1,), offset=3), 'lies outside'),
    (dict(size=(2,), stride=(-1,), offset=3), 'lies outside'),
    (dict(size=(1,), stride=(1,), offset=-1), 'lies outside'),
    (dict(size=(-1,), stride=(1,)), 'lies outside'),
    (dict(size=(1,) * 9, stride=(1,) * 9), 'lies outside'),
    (dict(size=(2.0,), stride=(1,)), 'described in another way than torch does'),
    (dict(size=(2, 1), stride=(1,)), 'described in another way than torch does'),
    (dict(size=2, stride=(1,)), 'expected a whole file of tensors'),
    (dict(size=(4,), stride=(1,), count=2**60), r'storage 0 has 4 values, expected 1152921504606846976'),
    (dict(size=(4,), stride=(1,), kind='DoubleStorage'), 'storage 0 has 2 values, expected 4'),
    (dict(size=(4,), stride=(1,), kind='QInt8Storage'), r'it names torch\.QInt8Storage, which is neither'),
    (dict(size=(4,), stride=(1,), key='../../etc/passwd'), 'expected a whole file of tensors'),
    (dict(size=(4,), stride=(1,), key=7), 'a storage is described in another way'),
    (dict(size=(4,), stride=(1,), name='module'), 'a storage is described in another way'),
  ],
  ids=str,
)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(tmp_path, described, reason):
  content = np.arange(4, dtype=np.float32).tobytes()
  refused(archive(tmp_path / 'a.pth', tensor(**described), {'0': content}), reason)


@pytest.mark.parametrize(
  ('module', 'name'),
  [
    ('os', 'system'),
    ('posix', 'system'),
    ('builtins', 'eval'),
    ('torch', 'load'),
    ('torch._utils', '_rebuild_device_tensor_from_numpy'),
    ('collections', 'OrderedDict.fromkeys'),
    ('resjax.interop.files', 'read'),
  ],
)
def test_a_pickle_that_calls_something_is_refused_and_nothing_runs(tmp_path, module, name):
  command = f'touch {tmp_path}/ran'
  pickled = f'c{module}\n{name}\n(V{command}\ntR.'.encode()
  refused(
    archive(tmp_path / 'a.pth', pickled), rf'it names {module}\.{name}, which is neither an array nor a plain value'
  )
  assert [path.name for path in tmp_path.iterdir()] == ['a.pth']


class Evil:
  def __init__(self, mark):
    self.mark = mark

  def __reduce__(self):
    return os.mkdir, (self.mark,)


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize('old', [False, True])
def test_a_call_beside_weights_is_refused_in_every_form(tmp_path, protocol, old):
  saved = {'a': torch.ones(2), 'b': Evil(str(tmp_path / 'ran'))}
  torch.save(saved, tmp_path / 'a.pth', pickle_protocol=protocol, _use_new_zipfile_serialization=not old)
  with pytest.raises(ValueError, match=r'a\.pth: .*expected'):
    files.read(tmp_path / 'a.pth')
  assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
  ('pickled', 'reason'),
  [
    (b'\x80\x05\x96' + struct.pack('<Q', 2**40) + b'.', 'expected a whole file'),  # BYTEARRAY8
    (b'\x80\x04\x8e' + struct.pack('<Q', 2**62) + b'.', 'expected a whole file'),  # BINBYTES8
    (b'\x80\x02Nr' + struct.pack('<I', 2**31 - 1) + b'.', 'the pickle claims memory for 2147483647 values'),
    (b'Np99999999\n.', 'the pickle claims memory for 99999999 values'),
    (b'\x80\x04\x8c\x02os\x8c\x06system\x93.', 'an opcode SHORT_BINUNICODE, which torch does not write'),
    (b'\x80\x02](h\x00a.', 'expected a whole file'),
    (b'', 'expected a whole file'),
    (b'\x80\x02', 'expected a whole file'),
    (b'\x80\x02N.', 'holds no tensors by name'),
    (b'\x80\x02]].', 'holds no tensors by name'),
    (b'\x80\x02}.', 'holds no tensors by name'),
    (b'((((' * 50_000 + b'.', 'expected a whole file'),
    (b'ctorch\nFloatStorage\n}(X\x01\x00\x00\x00ab.', 'expected a whole file'),
    (b'ctorch._utils\n_rebuild_tensor_v2\n)R.', 'expected a whole file'),
    (b'ctorch\nFloatStorage\n)R.', 'expected a whole file'),
  ],
  ids=range(15),
)
def test_a_broken_pickle_is_refused(tmp_path, pickled, reason):
  refused(archive(tmp_path / 'a.pth', pickled), reason)


def test_a_pickle_changes_nothing_of_the_reader(tmp_path):
  state = b'(N}(X\x0c\x00\x00\x00__defaults__)ut'  # what BUILD sets
  for name in (b'ctorch._utils\n_rebuild_tensor_v2\n', b'cargparse\nNamespace\n', b'ccollections\nOrderedDict\n'):
    before = (pickles._tensor.__dict__.copy(), vars(pickles._Left).copy(), pickles._tensor.__defaults__)
    with pytest.raises(ValueError, match='expected'):
      files.read(archive(tmp_path / 'a.pth', b'\x80\x02' + name + state + b'b.'))
    assert before == (pickles._tensor.__dict__.copy(), vars(pickles._Left).copy(), pickles._tensor.__defaults__)


def test_compressed_bombs_are_refused(tmp_path):
  pickled = tensor((4,), (1,), count=2**24)
  deflated = {'compression': zipfile.ZIP_DEFLATED}
  path = archive(tmp_path / 'a.pth', pickled, {'0': bytes(2**26)}, **deflated)
  refused(path, r'archive/data/0 claims 67,108,864 bytes, expected at most')
  refused(archive(path, pickled, {'0': bytes(8)}, **deflated), 'archive/data/0 is compressed')
  refused(archive(path, bytes(2**26 + 1), **deflated), r'archive/data\.pkl claims 67,108,865 bytes')


def test_storages_are_together_no_larger_than_the_file(tmp_path):
  torch.save({str(i): torch.ones(100) for i in range(9)}, tmp_path / 'a.pth')
  with zipfile.ZipFile(tmp_path / 'a.pth') as file:
    pickles._Unpickler(file, 'a/', 9 * 400).load()
    with pytest.raises(ValueError, match='claims 400 bytes, expected at most 399'):
      pickles._Unpickler(file, 'a/', 9 * 400 - 1).load()


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
