"""Checksums of what is stored and read back: a file that has changed since it was written is named, and not used.

A JSON file has its sum in its last field, another file in its last bytes, and a folder in a file of its own. The sum is
CRC-32, which finds every single bit and every burst of 32, at the speed of reading; it guards against no ill will.
"""

import contextlib
import json
import os
import pathlib
import re
import struct
import uuid
import zlib
from collections.abc import Mapping
from typing import Any

from resjax.telling import naming

# The sums of a folder's files: {'files': {name: [bytes, sum]}}.
NAME = 'checksums.json'

_ZEROS = b'00000000'
_FIELD = re.compile(rb'"checksum": "crc32:([0-9a-f]{8})"\s*\}\s*$')
_END = 100  # bytes at the end of a JSON file in which the field stands

_MARK = b'\nresjax\n'  # what the last bytes of another file begin with
_TAIL = struct.Struct(f'<{len(_MARK)}sI')

_CHUNK = 1 << 22  # bytes that are read at once


def to_json(values: Mapping[str, Any], **options: Any) -> bytes:
  """Returns an object as JSON with a last field `checksum`, of all other bytes.

  Args:
    values: What JSON can hold.
    **options: Of `json.dumps`.
  """
  content = json.dumps({**values, 'checksum': f'crc32:{_ZEROS.decode()}'}, **options).encode() + b'\n'
  found = _FIELD.search(content)
  assert found is not None
  return content[: found.start(1)] + sum_of(content).encode() + content[found.end(1) :]


def of_json(content: bytes) -> dict[str, Any]:
  """Returns the object that `to_json` was given; one without a `checksum` is of an older version, and is not checked.

  Raises:
    ValueError: It has changed since it was written, or is no object of JSON.
  """
  found = _FIELD.search(content, max(0, len(content) - _END))
  if found is not None:
    _check(found[1].decode(), sum_of(content[: found.start(1)] + _ZEROS + content[found.end(1) :]))
  elif b'"checksum"' in content[-_END:] or b'"crc32:' in content[-_END:]:
    raise ValueError('its checksum is damaged')
  try:
    values = json.loads(content.decode())
  except RecursionError as error:
    raise ValueError(str(error)) from None
  if not isinstance(values, dict):
    raise ValueError(f'got {str(values)[:40]!r}, expected an object')
  values.pop('checksum', None)
  return values


def sealed(content: bytes) -> bytes:
  """Returns what a file should hold: its content, and a sum behind it."""
  return content + _TAIL.pack(_MARK, zlib.crc32(content))


def opened(content: bytes) -> bytes:
  """Returns what `sealed` was given.

  Raises:
    ValueError: It has changed since.
  """
  inner, tail = content[: -_TAIL.size], content[-_TAIL.size :]
  mark, number = _TAIL.unpack(tail) if len(tail) == _TAIL.size else (b'', 0)
  if mark != _MARK:
    raise ValueError('its checksum is missing or damaged')
  _check(f'{number:08x}', sum_of(inner))
  return inner


def seal(folder: pathlib.Path) -> None:
  """Writes down the sums of all files below a folder, at once.

  Raises:
    OSError: A file can't be read or written.
  """
  files = {
    path.relative_to(folder).as_posix(): _of_file(path)
    for path in sorted(folder.rglob('*'))
    if path.is_file() and path.name != NAME
  }
  write(folder / NAME, to_json({'files': files}))


def verify(folder: pathlib.Path, below: str | tuple[str, ...] = '') -> bool:
  """Checks the files of a folder; returns whether it was sealed: what older versions wrote was not.

  Args:
    folder: That `seal` was called with.
    below: What the names of those files begin with that are checked, such as a folder in it; '': all.

  Raises:
    ValueError: A file has changed since; it is named.
    FileNotFoundError: A file is missing.
    OSError: The disk does not let one be read.
  """
  try:
    content = (folder / NAME).read_bytes()
  except FileNotFoundError:
    return False
  try:
    files = dict(of_json(content)['files'])
  except (ValueError, LookupError, TypeError) as error:
    raise ValueError(f'{NAME}: damaged ({error})') from None
  for name, (size, expected) in files.items():
    if name.startswith(below):
      try:
        _check([size, expected], _of_file(folder / name))
      except ValueError as error:
        raise ValueError(f'{name}: damaged, {error}') from None
  return True


def write(path: pathlib.Path, content: bytes) -> None:
  """Replaces a file at once, so that nobody sees half of it.

  Raises:
    OSError: It can't be written.
  """
  part = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:12]}')
  try:
    with naming(path):
      part.write_bytes(content)
      os.replace(part, path)
  finally:
    with contextlib.suppress(OSError):  # it is in its place
      part.unlink()


def sum_of(content: bytes) -> str:
  """Returns the sum of some bytes, 8 hexadecimal digits."""
  return f'{zlib.crc32(content):08x}'


def _of_file(path: pathlib.Path) -> list[Any]:
  """The bytes of a file, counted, and their sum."""
  number, size = 0, 0
  with path.open('rb', buffering=0) as file:
    part = memoryview(bytearray(min(_CHUNK, os.fstat(file.fileno()).st_size + 1)))
    while count := file.readinto(part):
      number, size = zlib.crc32(part[:count], number), size + count
  return [size, f'{number:08x}']


def _check(expected: Any, found: Any) -> None:
  """Raises ValueError where two sums differ."""
  if expected != found:
    raise ValueError(f'got checksum {found}, expected {expected}')
