"""Records of TFRecord files by their number, and files that are none."""

import pickle

import pytest
from tfrecord_files import crc32c, write_tfrecord

from resjax.data.tfrecord import Part, TFRecords


def test_tfrecord_golden_checksum(tmp_path):
  # RFC 3720: the checksum of '123456789' is E3069283; so the test's own one is right.
  assert crc32c(b'123456789') == 0xE3069283
  records = [b'', b'a', bytes(70_000), b'last']
  write_tfrecord(tmp_path / 'file', records)
  reader = TFRecords([Part(str(tmp_path / 'file'), 0, 4, 4)])
  assert [reader[i] for i in range(4)] == records
  reader = TFRecords([Part(str(tmp_path / 'file'), 1, 2, 4), Part(str(tmp_path / 'file'), 3, 1, 4)])
  assert [reader[i] for i in range(len(reader))] == records[1:]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda data: data[:-1], 'truncated'),
    (lambda data: data + data[:5], 'damaged, at byte 76'),
    (lambda data: b'\0' + data[1:], 'damaged, at byte 0'),
    (lambda data: b'plain text, no records at all', 'no TFRecord file'),
    (lambda data: data + data, '4 records, expected 2'),
    (lambda data: b'', '0 records, expected 2'),
  ],
)
def test_broken_tfrecord_files_are_refused(tmp_path, change, message):
  path = tmp_path / 'file'
  write_tfrecord(path, [b'x' * 20, b'y' * 24])
  path.write_bytes(change(path.read_bytes()))
  with pytest.raises(ValueError, match=message) as error:
    TFRecords([Part(str(path), 0, 2, 2)])
  assert str(error.value).startswith(f'{path}: ')


def test_a_record_is_named_by_its_file_and_its_place(tmp_path):
  for name in 'ab':
    write_tfrecord(tmp_path / name, [b'x' * 20, b'y' * 24])
  reader = TFRecords([Part(str(tmp_path / name), 0, 2, 2) for name in 'ab'])
  header, footer = 12, 4
  assert [reader.name_of(i) for i in range(4)] == [
    f'{tmp_path / name} byte {place}' for name in 'ab' for place in (0, header + 20 + footer)
  ]


def test_a_reader_goes_to_other_processes(tmp_path):
  write_tfrecord(tmp_path / 'file', [b'one', b'two'])
  reader = pickle.loads(pickle.dumps(TFRecords([Part(str(tmp_path / 'file'), 0, 2, 2)])))
  assert [reader[0], reader[1]] == [b'one', b'two']


def test_no_files_are_no_records():
  assert len(TFRecords([])) == 0
