"""Random access to TFRecord files without TensorFlow: their index is read once, then any record.

A TFRecord file is a row of records: uint64 length, masked crc32c of the length, the content, masked
crc32c of the content; all little-endian. https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

__all__ = ['Part', 'TFRecords']

_HEADER = np.dtype([('length', '<u8'), ('checksum', '<u4')])
_FOOTER = 4  # bytes of the content's checksum


class Part(NamedTuple):
  """Some records of one file, which holds `records` of them."""

  path: str
  skip: int
  take: int
  records: int


class TFRecords:
  """The records of many files, by number. Threads may read at once, and it can be pickled.

  The checksums of the lengths are checked, those of the contents are not: a damaged image shows
  when it is decoded.
  """

  def __init__(self, parts: Sequence[Part]):
    """Reads the headers of all records.

    Args:
      parts: What is to be read, in order.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: A file is no TFRecord file, is damaged, or holds another number of records.
    """
    self.paths = [part.path for part in parts]
    with ThreadPoolExecutor(16) as pool:  # it is the disk that takes the time
      tables = list(pool.map(_index, parts))
    self._places = np.concatenate(tables) if tables else np.zeros((0, 2), np.int64)
    self._ends = np.cumsum([len(table) for table in tables])

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, index: int) -> bytes:
    offset, length = self._places[index].tolist()
    # Opened for each read: thousands of files would be too many to keep open.
    with open(self.paths[np.searchsorted(self._ends, index, side='right')], 'rb', buffering=0) as file:
      return os.pread(file.fileno(), length, offset)

  def name_of(self, index: int) -> str:
    """Returns a record's file, and where it begins in it."""
    path = self.paths[np.searchsorted(self._ends, index, side='right')]
    return f'{path} byte {self._places[index, 0] - _HEADER.itemsize}'


def _index(part: Part) -> np.ndarray:
  """Offset and length of the content of each record, int64 `[take, 2]`."""
  offsets, headers = [], []
  with open(part.path, 'rb', buffering=0) as file:
    size = os.fstat(file.fileno()).st_size
    offset = 0
    while offset < size:
      header = np.frombuffer(os.pread(file.fileno(), _HEADER.itemsize, offset).ljust(12, b'\0'), _HEADER)
      offsets.append(offset + _HEADER.itemsize)
      headers.append(header)
      offset += _HEADER.itemsize + int(header['length'][0]) + _FOOTER
  found = np.concatenate(headers) if headers else np.zeros(0, _HEADER)
  wrong = np.flatnonzero(_masked_crc32c(found['length']) != found['checksum'])
  if wrong.size:
    raise ValueError(f'{part.path}: no TFRecord file, or damaged, at byte {offsets[wrong[0]] - 12}')
  if offset != size:
    raise ValueError(f'{part.path}: truncated, {size} bytes, expected {offset}')
  if len(found) != part.records:
    raise ValueError(f'{part.path}: {len(found)} records, expected {part.records}')
  places = np.stack([np.array(offsets, np.int64), found['length'].astype(np.int64)], axis=1)
  return places[part.skip : part.skip + part.take]


def _masked_crc32c(lengths: np.ndarray) -> np.ndarray:
  """The checksum that TFRecord keeps of each length: uint32 `[n]` from uint64 `[n]`."""
  table = np.arange(256, dtype=np.uint32)
  for _ in range(8):
    table = (table >> np.uint32(1)) ^ np.where(table & np.uint32(1), np.uint32(0x82F63B78), np.uint32(0))
  crc = np.full(lengths.shape, 0xFFFFFFFF, np.uint32)
  for byte in np.ascontiguousarray(lengths, '<u8').view(np.uint8).reshape(-1, 8).T:
    crc = (crc >> np.uint32(8)) ^ table[(crc ^ byte) & np.uint32(255)]
  crc = ~crc
  return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)
