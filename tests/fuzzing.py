"""Files made to harm the importer, and a process that reads them with little memory: `python fuzzing.py SEED COUNT`.

Each is a file of weights, whole but for what a random hand changed: bits, lengths, the opcodes of its pickle with the
zip file around it made anew, the header of safetensors, the values of a config.json. The process ends with exit code 0
where every one was read, or refused with a ValueError of one short line; where nothing was called, imported or opened;
and where that took neither long nor more memory than a limit.
"""

import io
import itertools
import json
import pathlib
import pickle
import pickletools
import random
import resource
import signal
import struct
import sys
import tempfile
import zipfile

import numpy as np
import safetensors.numpy

# Beyond what the process has when it begins; the files are of some kilobytes.
MEMORY = 400 << 20  # bytes
SECONDS = 20  # for one file

# What files must not make the process do, by Python's names of audit events.
_FORBIDDEN = (
  'os.',
  'subprocess.',
  'socket.',
  'shutil.',
  'ctypes.',
  'exec',
  'import',
  'pickle.',
  'urllib.',
  'builtins.input',
)

_MAGIC = b''.join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}))
_NUMBERS = (0, 1, 2, 3, 5, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63 - 1, 2**64 - 1)


def _tensor(key, count, shape):
  """The pickle of a tensor, without its end."""
  strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
  numbers = lambda values: b'(' + b''.join(b'K' + bytes([v]) for v in values) + b't'
  persistent = b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00' + key + b'X\x03\x00\x00\x00cpuK'
  rebuild = b'ctorch._utils\n_rebuild_tensor_v2\n(' + persistent + bytes([count])
  return rebuild, b'K\x00' + numbers(shape) + numbers(strides) + b'\x89ccollections\nOrderedDict\n)RtR'


def state(old):
  """The pickle of a checkpoint of two tensors."""
  text = lambda word: b'X' + struct.pack('<I', len(word)) + word
  out = b'\x80\x02}(' + text(b'arch') + text(b'resnet18') + text(b'state_dict') + b'ccollections\nOrderedDict\n)R('
  for key, name, shape in ((b'0', b'conv1.weight', (2, 3)), (b'1', b'fc.weight', (3, 2))):
    begin, end = _tensor(key, 6, shape)
    out += text(name) + begin + (b'N' if old else b'') + b'tQ' + end
  out += (
    b'u}X\x01\x00\x00\x00aK\x01sb' + text(b'args') + b'cargparse\nNamespace\n)\x81}' + text(b'lr') + b'G?\xb9\x99\x99'
  )
  return out + b'\x99\x99\x99\x9asb' + text(b'epoch') + b'K\x03u.'


def zipped(pickled, storages=(bytes(24), bytes(24)), compression=zipfile.ZIP_STORED):
  """A file of today's form."""
  out = io.BytesIO()
  with zipfile.ZipFile(out, 'w', compression) as file:
    file.writestr('a/data.pkl', pickled)
    for number, content in enumerate(storages):
      file.writestr(f'a/data/{number}', content)
  return out.getvalue()


def old(pickled, keys=b'\x80\x02](X\x01\x00\x00\x000X\x01\x00\x00\x001e.'):
  """A file of the form before."""
  return _MAGIC + pickled + keys + 2 * (struct.pack('<q', 6) + bytes(24))


def tensors_file():
  return safetensors.numpy.save({'conv1.weight': np.ones((2, 3), np.float32), 'fc.weight': np.ones((3, 2), np.float16)})


# Parts of pickles that call, build, import, claim, or recur.
NASTY = [
  b'cos\nsystem\n', b'cposix\nsystem\n', b'cbuiltins\neval\n', b'cbuiltins\nexec\n', b'cbuiltins\ngetattr\n', b'R',
  b'b', b'i', b'o', b'\x81', b'\x92', b'\x93', b'P1\n', b'Q', b'\x82\x01', b'X\x05\x00\x00\x00touch',
  b'(X\x04\x00\x00\x00exittR', b'ctorch._utils\n_rebuild_tensor_v2\n', b'ctorch\nFloatStorage\n',
  b'cargparse\nNamespace\n', b'cnumpy\ndtype\n', b'ccopyreg\n_reconstructor\n', b'cresjax.interop.files\nread\n',
  b'(ios\nsystem\n', b'\x96' + struct.pack('<Q', 2**40), b'\x8e' + struct.pack('<Q', 2**62), b'X\xff\xff\xff\xff',
  b'T\xff\xff\xff\x7f', b'\x8a\xff' + bytes(255), b'r\xff\xff\xff\x7f', b'q\x00h\x00\x86' * 70, b'\x85' * 5000,
  b']' * 5000, b'(' * 5000, b'}' * 500 + b's' * 300, b'N', b'0', b'1', b'2', b'.', b')', b'(', b't', b'u', b's',
  b'd', b'a', b'e', b'K\x00', b'M\xff\xff', b'J\xff\xff\xff\x7f', b'I999999999999\n', b'F1e999\n',
  b'L' + b'9' * 5000 + b'L\n', b'\x8c\x02os\x8c\x06system\x93', b'}q\x01h\x01h\x01h\x01s', b']q\x01h\x01ah\x01a',
]  # fmt: skip


def tokens(pickled):
  """The opcodes of a pickle, each with its argument."""
  places = [place for _, _, place in pickletools.genops(pickled)] + [len(pickled)]
  return [pickled[a:b] for a, b in itertools.pairwise(places)]


def changed_pickle(rng, pickled):
  """A pickle with some opcodes taken out, doubled, swapped, or put in."""
  parts = tokens(pickled)
  for _ in range(rng.randint(1, 4)):
    place = rng.randrange(len(parts))
    parts[place : place + rng.choice((0, 0, 1, 3))] = rng.choice(
      (
        [],
        [rng.choice(NASTY)],
        [rng.choice(NASTY), rng.choice(NASTY)],
        [rng.choice(parts)],
        parts[place : place + 4] * 2,
      )
    )
  return b''.join(parts) + rng.choice((b'', b'.', b'tR.'))


def changed_bytes(rng, content):
  """A file with bits turned, lengths overwritten, or parts missing or moved."""
  content = bytearray(content)
  for _ in range(rng.randint(1, 5)):
    place = rng.randrange(len(content) or 1)
    how = rng.randrange(5)
    if how == 0:
      content[place : place + 1] = bytes([rng.randrange(256)])
    elif how == 1:
      size = rng.choice((2, 4, 8))
      content[place : place + size] = (rng.choice(_NUMBERS) % 256**size).to_bytes(size, 'little')
    elif how == 2:
      del content[place : place + rng.choice((1, 8, 10_000))]
    elif how == 3:
      other = rng.randrange(len(content) or 1)
      content[place:place] = content[other : other + rng.randint(1, 60)]
    else:
      content[place : place + 1] = bytes([content[place] ^ 1 << rng.randrange(8)]) if content else b''
  return bytes(content)


def value(rng, depth=0):
  """Anything that JSON can hold, more often what hurts."""
  plain = [
    None,
    True,
    False,
    0,
    -1,
    3,
    0.5,
    1e308,
    10**400,
    '',
    'a' * 5000,
    '\x1b[31m\n\u2028',
    float('nan'),
    float('inf'),
  ]
  if depth > 2 or rng.random() < 0.7:
    return rng.choice(plain)
  if rng.random() < 0.5:
    return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
  return {rng.choice(('0', 'mean', 'x')): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def safetensors_file(rng):
  """A safetensors file with any header."""
  entry = {
    'dtype': rng.choice(('F32', 'F8_E4M3', 'I64', 'X', 'BF16')),
    'shape': [rng.choice(_NUMBERS), 3],
    'data_offsets': [0, 24],
  }
  entry[rng.choice(tuple(entry))] = rng.choice(([rng.choice(_NUMBERS), rng.choice(_NUMBERS)], value(rng)))
  header = json.dumps({rng.choice(('conv1.weight', '__metadata__', 'a\n\x1b')): entry}).encode()
  claimed = rng.choice((len(header), len(header), len(header), len(header) - 1, *_NUMBERS))
  return struct.pack('<Q', claimed % 2**64) + header + bytes(24)


def folder_config(rng):
  """A config.json with some values of another kind."""
  config = {'architecture': 'resnet18', 'num_classes': 3, 'label_names': ['a', 'b', 'c'], 'label_descriptions': {}}
  facts = {
    'mean': [0, 0, 0],
    'std': [1, 1, 1],
    'crop_pct': 0.9,
    'interpolation': 'bicubic',
    'test_input_size': [3, 8, 8],
  }
  facts |= {'test_crop_pct': 1.0, 'crop_mode': 'center', 'license': 'mit', 'global_pool': 'avg', 'model_args': {}}
  for part in (config, facts, facts):
    if rng.random() < 0.8:
      part[rng.choice(tuple(part))] = value(rng)
  config['pretrained_cfg'] = facts if rng.random() < 0.9 else value(rng)
  text = json.dumps(config if rng.random() < 0.95 else value(rng)).encode()
  return changed_bytes(rng, text) if rng.random() < 0.3 else text


def content(rng):
  """A file's name and what is in it."""
  kind = rng.randrange(6)
  if kind == 0:
    return 'a.pth', changed_bytes(rng, rng.choice((zipped(state(False)), old(state(True)))))
  if kind == 1:
    compression = rng.choice((zipfile.ZIP_STORED,) * 9 + (zipfile.ZIP_DEFLATED,))
    return 'a.pth', zipped(changed_pickle(rng, state(False)), compression=compression)
  if kind == 2:
    return 'a.pth', old(changed_pickle(rng, state(True)))
  if kind == 3:
    return 'a.pth', zipped(changed_bytes(rng, state(False)))
  if kind == 4:
    whole = safetensors_file(rng) if rng.random() < 0.7 else changed_bytes(rng, tensors_file())
    return 'a.safetensors', whole
  return 'config.json', folder_config(rng)


def read(path):
  """All of importing but the making of the network."""
  from resjax import config, recipes
  from resjax.interop import importing, layouts, sources, torch

  if path.name == 'config.json':
    (path.parent / 'model.safetensors').write_bytes(tensors_file())
  found = sources.read(path.parent if path.name == 'config.json' else path, 8)
  torch.check_layout(found.tensors, found.name)
  made = recipes.make('default', ())
  (made.model.name, made.model.width), _ = importing._architecture(found, 'resnet18')
  importing._preprocessing(made, found, layouts.layout_of(found.tensors), None, None, None, None)
  importing._class_names(found, None, 3)
  config.validate(made)
  torch._check_keys(found.tensors, {'conv1.weight': (2, 3), 'fc.weight': (3, 2)}, found.name)


def main(seed, count):
  """Reads so many files; says on standard output how many were refused."""
  folder = pathlib.Path(tempfile.mkdtemp())
  for name, whole in (('a.pth', zipped(state(False))), ('a.pth', old(state(True))), ('a.safetensors', tensors_file())):
    (folder / name).write_bytes(whole)
    read(folder / name)  # also imports what is imported late
  (folder / 'config.json').write_bytes(json.dumps({'architecture': 'resnet18', 'mean': [0, 0, 0]}).encode())
  read(folder / 'config.json')
  done = []

  def hook(event, arguments):
    opened = event == 'open' and not str(arguments[0]).startswith(str(folder))
    if watching and (event.startswith(_FORBIDDEN) or opened):
      done.append((event, str(arguments)[:200]))

  watching, refused, rng = False, 0, random.Random(seed)
  sys.addaudithook(hook)
  taken = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
  resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY,) * 2)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  for number in range(count):
    name, whole = content(rng)
    (folder / name).write_bytes(whole)
    signal.alarm(SECONDS)  # ends the process
    try:
      watching = True
      read(folder / name)
    except ValueError as error:
      refused += 1
      assert str(error).isprintable() and len(str(error)) < 1000, (number, str(error))
      assert 'expected' in str(error) or 'the keys are not' in str(error), (number, str(error))
    finally:
      watching = False
      signal.alarm(0)
    assert not done, (number, done[:3])
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  print(json.dumps({'refused': refused, 'read': count - refused, 'megabytes': (after - before) >> 10}))


if __name__ == '__main__':
  main(int(sys.argv[1]), int(sys.argv[2]))
