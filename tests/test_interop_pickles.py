"""Pickles made to do harm: refused in one line, with nothing run and hardly any memory taken."""

import collections
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from refusals import refused

from resjax.interop import files, pickles, saved

torch = pytest.importorskip('torch')


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
  out = io.BytesIO()
  Pickler(out, 2).dump({'a': Tensor()})
  return out.getvalue()


class Name:
  def __init__(self, module, name):
    self.module, self.name = module, name


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
    (dict(size=2, stride=(1,)), 'expected a whole file, as torch'),
    (
      dict(size=(4,), stride=(1,), count=2**60),
      'storage 0 has 4 values of float32, expected 1152921504606846976 of float32',
    ),
    (dict(size=(4,), stride=(1,), kind='DoubleStorage'), 'storage 0 has 2 values of float64, expected 4 of float64'),
    (dict(size=(4,), stride=(1,), kind='QInt8Storage'), r'it names torch\.QInt8Storage, which is neither'),
    (dict(size=(4,), stride=(1,), key='../../etc/passwd'), 'expected a whole file, as torch'),
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
    (
      b'\x80\x02Nr' + struct.pack('<I', 2**31 - 1) + b'.',
      'holds no tensors by name',
    ),  # a place in its memory: costs nothing
    (b'Np99999999\n.', 'holds no tensors by name'),
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
  refused(archive(tmp_path / 'a.pth', pickled), reason, most=20_000_000)  # a list for each of 200,000 marks


def test_a_pickle_changes_nothing_of_the_reader(tmp_path):
  state = b'(N}(X\x0c\x00\x00\x00__defaults__)ut'  # what BUILD sets
  before = (vars(pickles.rebuild_tensor).copy(), vars(pickles._Left).copy(), pickles.rebuild_tensor.__defaults__)
  for name in (b'ctorch._utils\n_rebuild_tensor_v2\n', b'cargparse\nNamespace\n', b'ccollections\nOrderedDict\n'):
    refused(archive(tmp_path / 'a.pth', b'\x80\x02' + name + state + b'b.'), 'sets attributes of what has none')
  assert before == (
    vars(pickles.rebuild_tensor).copy(),
    vars(pickles._Left).copy(),
    pickles.rebuild_tensor.__defaults__,
  )


def test_an_array_keeps_its_memory_whatever_a_pickle_sets(tmp_path):
  described = tensor((4,), (1,)).removesuffix(b's.')
  refused(archive(tmp_path / 'a.pth', described + b'(K\x01)Nt' + b'bs.', {'0': bytes(16)}), 'sets attributes of what')


@pytest.mark.parametrize('old', [False, True])
@pytest.mark.parametrize(
  'body',
  [
    b'})' + b'\x85' * 200_000 + b'Ns',  # a key of tuples in tuples: hashing it would end the process
    b'})' + b'q\x00h\x00\x86' * 60 + b'Ns',  # of 2 ** 60 tuples: it would never end
    b'(})' + b'q\x00h\x00\x86' * 60 + b'Nd',
    b'(})' + b'q\x00h\x00\x86' * 60 + b'Nu',
    b']' * 3_000_000,
  ],
  ids=['deep', 'wide', 'wide dict', 'wide items', 'many'],
)
def test_a_pickle_costs_no_more_than_its_length(tmp_path, body, old):
  begin = b''.join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {})) if old else b''
  pickled = begin + b'\x80\x02' + body + b'.' + (pickle.dumps([], 2) if old else b'')
  path = tmp_path / 'a.pth'
  path.write_bytes(pickled) if old else archive(path, pickled)
  refused(path, r'expected', most=200_000_000)


def test_compressed_bombs_are_refused(tmp_path):
  pickled = tensor((4,), (1,), count=2**24)
  deflated = {'compression': zipfile.ZIP_DEFLATED}
  path = archive(tmp_path / 'a.pth', pickled, **deflated)
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('archive/data.pkl', pickled)
    file.writestr('archive/data/0', bytes(2**26), zipfile.ZIP_DEFLATED)
  refused(path, r'storage 0 claims 67,108,864 bytes, expected at most')
  refused(archive(path, bytes(2**26 + 1), **deflated), r'archive/data\.pkl is compressed, expected as torch stores it')


def test_one_file_in_another_is_not_more_than_the_file(tmp_path):
  """A zip file whose storages are the same bytes."""
  path = archive(tmp_path / 'a.pth', tensor((4,), (1,)), {'0': bytes(16)})
  content = path.read_bytes().replace(struct.pack('<II', 16, 16), struct.pack('<II', 2**31, 2**31))
  path.write_bytes(content)
  refused(path, r'storage 0 claims 2,147,483,648 bytes, expected at most')


def test_storages_are_together_no_larger_than_the_file():
  storages = saved._Storages(800)
  storages.take('0', 400)
  storages.take('1', 400)
  with pytest.raises(ValueError, match='storage 2 claims 1 bytes, expected at most 0$'):
    storages.take('2', 1)


@pytest.mark.parametrize(
  ('change', 'reason'),
  [
    (lambda old: old.replace(b'\x04' + bytes(7), b'\x05' + bytes(7)), 'storage [0-9]+ has not 4 values'),
    (lambda old: old[:-1], 'storage [0-9]+ has not 4 values'),
    (lambda old: old[: old.rindex(b'.') + 1], 'has not 4 values'),
    (lambda old: old.replace(b'\xfc', b'\xfb', 1), 'a pickle that torch did not write|opcode'),
    (lambda old: old.replace(b'FloatStorage', b'HalfStorage'), 'expected a whole file'),
    (lambda old: old.replace(b'FloatStorage', b'QInt8Storage'), r'it names torch\.QInt8Storage'),
    (lambda old: old.replace(b'\x80\x02]', b'\x80\x02}'), 'expected a whole file'),
  ],
  ids=range(7),
)
def test_an_old_file_that_is_damaged_is_refused(tmp_path, change, reason):
  torch.save({'a': torch.full((4,), 0.1)}, tmp_path / 'a.pth', _use_new_zipfile_serialization=False)
  whole = (tmp_path / 'a.pth').read_bytes()
  np.testing.assert_array_equal(files.read(tmp_path / 'a.pth').tensors['a'], np.full(4, 0.1, np.float32))
  assert change(whole) != whole
  (tmp_path / 'a.pth').write_bytes(change(whole))
  refused(tmp_path / 'a.pth', reason)
