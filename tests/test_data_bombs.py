"""Images that would take long to decode, or much memory, are refused from their bytes."""

import struct
import time
import zlib

import pytest
from PIL import Image
from sklearn.datasets import load_sample_images
from test_data_decode import encode, with_chunk, with_segment

from resjax.data.decode import BadImage, decode


@pytest.fixture(scope='module')
def picture():
  return Image.fromarray(load_sample_images().images[0][100:300, 200:501])


def scans(jpeg, count):
  """A progressive JPEG whose last scan is repeated."""
  last = jpeg.rindex(b'\xff\xda')
  return jpeg[:last] + jpeg[last:-2] * count + jpeg[-2:]


def test_a_jpeg_of_many_scans_is_refused_in_no_time(picture):
  progressive = encode(picture, 'JPEG', progressive=True)
  assert decode(progressive).shape == (200, 301, 3)
  large = encode(picture.resize((4000, 3000)), 'JPEG', progressive=True, quality=5)
  begin = time.process_time()
  with pytest.raises(BadImage, match=r'^a JPEG of more than 100 scans, too many for 12000000 pixels$'):
    decode(scans(large, 3000))
  with pytest.raises(BadImage, match='more than 100 scans'):
    decode(scans(encode(picture.convert('CMYK'), 'JPEG', progressive=True), 200))
  with pytest.raises(BadImage, match='more than 20 scans, too many for 12000000 pixels'):
    decode(scans(large, 40), max_pixels=12_000_000)
  assert time.process_time() - begin < 5
  film = b'\xff\xda' * 500  # behind the picture, as phones append one
  assert decode(progressive + film).shape == decode(with_segment(progressive, film)).shape == (200, 301, 3)


def test_what_is_large_around_a_picture_is_refused_before_it_is_opened(picture):
  png = encode(picture, 'PNG')
  many = with_chunk(png, b'tEXt', b'a\0b', b'IDAT')
  chunk = many[33 : 33 + 15]
  with pytest.raises(BadImage, match='^a PNG of more than 100000 chunks$'):
    decode(png[:33] + chunk * 100_001 + png[33:])
  for name in (b'zTXt', b'iCCP'):
    with pytest.raises(BadImage, match='Decompressed data too large'):
      decode(with_chunk(png, name, b'a\0\0' + zlib.compress(bytes(80_000_000)), b'IDAT'))
  gif = encode(picture, 'GIF')
  at = 13 + (3 << (gif[10] & 7) + 1)
  with pytest.raises(BadImage, match='^a GIF with more than 1048576 bytes before its picture$'):
    decode(gif[:at] + b'!\xfe' + (b'\xff' + bytes(255)) * 5000 + b'\0' + gif[at:])
  with pytest.raises(BadImage, match='^a TIFF of more than 100000 parts$'):
    decode(b'II*\0\x08\0\0\0\x01\0\x11\x01\x04\0' + struct.pack('<II', 10**6, 8) + bytes(100))
  with pytest.raises(BadImage, match=r'^a run-length coded BMP of 4000000 pixels, expected at most 2000000$'):
    head = struct.pack('<IiiHHIIiiII', 40, 2000, 2000, 1, 8, 1, 0, 0, 0, 256, 0)
    decode(b'BM' + struct.pack('<IHHI', 1078, 0, 0, 1078) + head + bytes(1024))


@pytest.mark.parametrize('stuffing', [b'\xff', b'\xff\xfe\0\2', b'\0'])
@pytest.mark.parametrize('mode', ['RGB', 'CMYK'])  # read by libjpeg-turbo, and by Pillow
def test_a_jpeg_of_millions_of_steps_is_refused_and_of_some_is_read(picture, stuffing, mode):
  jpeg = encode(picture.convert(mode), 'JPEG')
  at = 4 + jpeg[5]  # behind its first segment
  begin = time.process_time()
  with pytest.raises(BadImage, match='^a JPEG with more than 100000 segments before its picture, or bytes between'):
    decode(jpeg[:at] + stuffing * 4_000_000 + jpeg[at:])
  assert time.process_time() - begin < 2
  assert (decode(jpeg[:at] + stuffing * 1000 + jpeg[at:]) == decode(jpeg)).all()


def test_a_progressive_jpeg_of_millions_of_segments_among_its_scans_is_refused(picture):
  progressive = scans(encode(picture, 'JPEG', progressive=True), 2)
  last = progressive.rindex(b'\xff\xda')
  stuffing = b'\xff\xfe\0\2' * 2_000_000 + b'\xff\xfe\xff\x02' + b'\xff\xda' * 32640  # looks like many scans
  begin = time.process_time()
  with pytest.raises(BadImage, match='^a JPEG of more than 100000 segments$'):
    decode(progressive[:last] + stuffing + progressive[last:])
  assert time.process_time() - begin < 2
