"""What an encoded image would cost beyond its pixels, told from its bytes before a decoder sees it."""

import itertools
import re
import struct
from collections.abc import Iterator

import numpy as np

__all__ = ['MOST_BYTES', 'MOST_STEPS', 'before_opening', 'refusal']

MOST_BYTES = 512 << 20  # of a file: the pixels of a phone's largest photograph, uncompressed, in 16 bits
_SCANS = 100  # of a JPEG; cameras and encoders make 1 to 15
_METADATA = 32 << 20  # bytes before the picture of a JPEG
MOST_STEPS = 100_000  # segments before it, and bytes between them: each is a step in Python
_COMMENTS = 1 << 20  # bytes before the first picture of a GIF: Pillow joins them by copying
_CHUNKS = 100_000  # of a PNG: encoders make one every 8 kB or more
_TILES = 100_000  # of a TIFF
_MARKER = re.compile(rb'\xff+([^\x00\xff\xd0-\xd7])')


def before_opening(data: bytes) -> str | None:
  """Returns why a file should not even be opened, or None: what stands around its picture would take too long to read.

  Args:
    data: The encoded file.
  """
  if len(data) > MOST_BYTES:
    return f'{len(data)} bytes, more than the {MOST_BYTES} that an image may have'
  if data.startswith(b'\xff\xd8') and (reason := _before_scans(data)):
    return reason
  if data.startswith(b'\x89PNG') and sum(1 for _ in itertools.islice(_chunks(data), _CHUNKS + 1)) > _CHUNKS:
    return f'a PNG of more than {_CHUNKS} chunks'
  if data.startswith(b'GIF8') and _before_picture(data) > _COMMENTS:
    return f'a GIF with more than {_COMMENTS} bytes before its picture'
  if data[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+') and _tiles(data) > _TILES:
    return f'a TIFF of more than {_TILES} parts'
  return None


def refusal(data: bytes, pixels: int, most: int) -> str | None:
  """Returns why a picture should not be decoded, or None: a JPEG of too many scans, each a pass over it.

  Args:
    data: The encoded file.
    pixels: That it announces.
    most: Pixels of all its scans together.
  """
  if not data.startswith(b'\xff\xd8'):
    return None
  allowed = min(_SCANS, max(1, most // pixels))
  possible = sum(  # in the whole file, also where the bytes are no marker
    int(np.count_nonzero(np.frombuffer(data, '<u2', (len(data) - at) // 2, at) == 0xDAFF)) for at in (0, 1)
  )
  if possible <= allowed:
    return None
  markers = list(itertools.islice((marker for marker, _, _ in _markers(data)), MOST_STEPS + 1))
  if markers.count(0xDA) > allowed:
    return f'a JPEG of more than {allowed} scans, too many for {pixels} pixels'
  return f'a JPEG of more than {MOST_STEPS} segments' if len(markers) > MOST_STEPS else None


def _before_scans(data: bytes) -> str | None:
  """Why what stands before a JPEG's first scan would take too long to read, or None."""
  steps = end = 0
  for marker, begin, place in _markers(data):
    steps += 1 + begin - end
    end = _after(data, marker, place)
    if steps > MOST_STEPS:
      return f'a JPEG with more than {MOST_STEPS} segments before its picture, or bytes between them'
    if marker == 0xDA or place > _METADATA:
      break
  else:
    place = len(data)
  return f'a JPEG with more than {_METADATA} bytes before its picture' if place > _METADATA else None


def _markers(data: bytes) -> Iterator[tuple[int, int, int]]:
  """The markers of a JPEG to the end of its picture, each with the places of its two bytes and behind them."""
  place = 2
  while found := _MARKER.search(data, place):
    marker, place = found[1][0], found.end()
    if marker == 0xD9:
      return
    yield marker, place - 2, place
    place = _after(data, marker, place)


def _after(data: bytes, marker: int, place: int) -> int:
  """The place behind the segment of a marker, which itself ends at `place`."""
  bare = marker in (0x01, 0xD8)
  return place if bare else place + max(2, int.from_bytes(data[place : place + 2], 'big'))


def _chunks(data: bytes) -> Iterator[int]:
  """The places of a PNG's chunks."""
  place = 8
  while place + 8 <= len(data):
    yield place
    place += 12 + int.from_bytes(data[place : place + 4], 'big')


def _before_picture(data: bytes) -> int:
  """The bytes before a GIF's first picture."""
  if len(data) < 13:
    return 0
  begin = place = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
  while data[place : place + 1] not in (b',', b';', b''):
    place += 2 if data[place] == 0x21 else 1  # an extension; anything else is passed over
    if data[place - 2] == 0x21:
      while (size := data[place : place + 1]) not in (b'\0', b''):
        place += 1 + size[0]
      place += 1
    if place - begin > _COMMENTS:
      break
  return place - begin


def _tiles(data: bytes) -> int:
  """The strips or tiles of a TIFF's first picture."""
  order, big = '<' if data[:1] == b'I' else '>', data[2:3] == b'+' or data[3:4] == b'+'
  try:
    (place,) = struct.unpack_from(order + ('Q' if big else 'I'), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ('Q' if big else 'H'), data, place)
    place, entry, size = place + (8 if big else 2), order + ('HHQ' if big else 'HHI'), 20 if big else 12
    entries = (struct.unpack_from(entry, data, place + size * n) for n in range(min(count, 65_535)))
    return max((length for tag, _, length in entries if tag in (273, 324)), default=0)
  except struct.error:  # it ends before
    return 0
