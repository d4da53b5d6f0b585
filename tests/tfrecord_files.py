"""TFRecord files as other programs write them."""

import struct


def crc32c(data):
  """Bit by bit, as in RFC 3720 appendix B.4, to judge the table in the code."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
  return crc ^ 0xFFFFFFFF


def masked(data):
  crc = crc32c(data)
  return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def write_tfrecord(path, records):
  with open(path, 'wb') as file:
    for record in records:
      length = struct.pack('<Q', len(record))
      file.write(length + masked(length) + record + masked(record))
