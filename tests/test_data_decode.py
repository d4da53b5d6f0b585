import io
import struct
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from configs import default
from resjax.data import decode as decode_mod
from resjax.data.decode import BadImage, decode, dimensions

LIMIT = 50_000_000


def encode(picture, kind, **options):
  buffer = io.BytesIO()
  picture.save(buffer, kind, **options)
  return buffer.getvalue()


@pytest.fixture(scope='module')
def photograph():
  """A real photograph of 200 x 301 pixels, an odd width."""
  return load_sample_images().images[0][100:300, 200:501]


@pytest.fixture(scope='module')
def picture(photograph):
  return Image.fromarray(photograph)


def test_ordinary_jpeg_is_what_libjpeg_says(picture, photograph):
  data = encode(picture, 'JPEG', quality=95, subsampling=0)
  assert dimensions(data, LIMIT) == (200, 301)
  pixels = decode(data)
  assert (pixels.dtype, pixels.shape) == (np.uint8, (200, 301, 3))
  assert np.abs(pixels.astype(int) - np.asarray(Image.open(io.BytesIO(data)))).max() <= 1
  assert np.abs(pixels.astype(int) - photograph).mean() < 2


def test_lossless_kinds_come_out_exactly(picture, photograph):
  for kind, options in (('PNG', {}), ('BMP', {}), ('WEBP', {'lossless': True})):
    data = encode(picture, kind, **options)
    assert dimensions(data, LIMIT) == (200, 301)
    np.testing.assert_array_equal(decode(data), photograph)


def test_greyscale_palette_and_two_level_images(picture):
  for mode, kind in (('L', 'PNG'), ('L', 'JPEG'), ('P', 'PNG'), ('1', 'PNG'), ('LA', 'PNG')):
    data = encode(picture.convert(mode), kind)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert('RGB')).astype(int)
    assert np.abs(decode(data) - expected).max() <= (1 if kind == 'JPEG' else 0)


def test_cmyk_jpeg(picture, photograph):
  data = encode(picture.convert('CMYK'), 'JPEG', quality=95)
  np.testing.assert_array_equal(decode(data), Image.open(io.BytesIO(data)).convert('RGB'))
  assert np.abs(decode(data).astype(int) - photograph).mean() < 2


def test_sixteen_bits_keep_their_range():
  values = np.arange(0, 65536, 257, np.uint16).reshape(16, 16)  # 0, 257, ..., 65535: levels 0 to 255
  data = encode(Image.fromarray(values), 'PNG')
  levels = np.arange(256).reshape(16, 16, 1)
  np.testing.assert_array_equal(decode(data), np.broadcast_to(levels, (16, 16, 3)))


def test_alpha_is_dropped(picture, photograph):
  alpha = Image.linear_gradient('L').resize(picture.size)
  rgba = picture.copy()
  rgba.putalpha(alpha)
  np.testing.assert_array_equal(decode(encode(rgba, 'PNG')), photograph)
  # A palette with one transparency for each colour: PIL warns, and warnings are errors here.
  palette = picture.convert('P', palette=Image.Palette.ADAPTIVE)
  data = encode(palette, 'PNG', transparency=bytes(range(256)))
  np.testing.assert_array_equal(decode(data), np.asarray(palette.convert('RGB')))


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_pixel_by_pixel(picture, kind, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  options = {'lossless': True} if kind == 'WEBP' else {'quality': 95} if kind == 'JPEG' else {}
  data = encode(picture, kind, exif=exif, **options)
  expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert('RGB'))
  assert dimensions(data, LIMIT) == expected.shape[:2]
  assert expected.shape[:2] == ((200, 301) if orientation < 5 else (301, 200))
  tolerance = 1 if kind == 'JPEG' else 0
  assert np.abs(decode(data).astype(int) - expected).max() <= tolerance
  # A rotated JPEG is never shrunk: its blocks begin at another edge.
  if kind == 'JPEG' and orientation > 1:
    assert decode(data, shrink=2).shape == expected.shape


def test_broken_exif_spoils_no_picture(picture):
  data = encode(picture, 'JPEG', exif=b'Exif\0\0MM\0*\xff\xff\xff\xff broken')
  assert decode(data).shape == (200, 301, 3)


@pytest.mark.parametrize('shrink', [2, 4, 8])
def test_shrunk_jpeg_is_near_the_mean_of_its_pixels(picture, photograph, shrink):
  data = encode(picture, 'JPEG', quality=95, subsampling=0)
  pixels = decode(data, shrink).astype(float)
  assert pixels.shape == (-(-200 // shrink), -(-301 // shrink), 3)
  h, w = 200 // shrink, 301 // shrink
  blocks = decode(data)[: h * shrink, : w * shrink].reshape(h, shrink, w, shrink, 3).mean((1, 3))
  difference = np.abs(pixels[:h, :w] - blocks)
  assert difference.mean() < 2.5
  assert difference.mean() < np.abs(photograph[::shrink, ::shrink][:h, :w] - blocks).mean() / 2


def test_pixels_pass_through(photograph):
  assert dimensions(photograph, LIMIT) == (200, 301)
  assert decode(photograph, shrink=4) is photograph


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'BMP'])
def test_truncated_files_are_bad(picture, kind):
  data = encode(picture, kind)
  for length in (len(data) * 9 // 10, len(data) // 2, 40, 4):
    with pytest.raises(BadImage) as error:
      dimensions(data[:length], LIMIT)
      decode(data[:length])
    assert str(error.value).strip()


def test_corrupt_files_are_bad(picture):
  for data in (b'', b'not an image', b'\xff\xd8\xff' + bytes(500), b'<svg></svg>'):
    with pytest.raises(BadImage):
      dimensions(data, LIMIT)
    with pytest.raises(BadImage):
      decode(data)
  jpeg = bytearray(encode(picture, 'JPEG', quality=95))
  jpeg[len(jpeg) // 2 : len(jpeg) // 2 + 200] = b'\xff\xd9' * 100  # an end in the middle
  with pytest.raises(BadImage):
    decode(bytes(jpeg))
  png = bytearray(encode(picture, 'PNG'))
  png[len(png) // 2] ^= 0xFF
  with pytest.raises(BadImage):
    decode(bytes(png))


def test_harmless_padding_is_forgiven(picture):
  # What some cameras and editors write: a few bytes too many before the end marker.
  data = encode(picture, 'JPEG', quality=95)
  padded = data[:-2] + bytes(7) + data[-2:]
  with pytest.raises(ValueError, match='extraneous'):
    simplejpeg.decode_jpeg(padded)
  assert np.abs(decode(padded).astype(int) - decode(data)).max() <= 1


def png_header(width, height):
  """A PNG of a few bytes that announces a size."""

  def chunk(name, content):
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))

  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


def test_decompression_bombs_are_refused_by_their_header(picture):
  with pytest.raises(
    BadImage, match=r'8000 x 7000 pixels, more than max_pixels = 50000000 \(config.data.max_pixels, --max-pixels\)$'
  ):
    dimensions(png_header(8000, 7000), LIMIT)
  for side in (10_000, 60_000):  # PIL's own warning and error
    with pytest.raises(BadImage, match='decompression bomb'):
      dimensions(png_header(side, side), LIMIT)
  jpeg = bytearray(encode(picture, 'JPEG'))
  frame = jpeg.index(b'\xff\xc0')
  jpeg[frame + 5 : frame + 9] = struct.pack('>HH', 65500, 65500)
  with pytest.raises(BadImage, match=r'65500 x 65500 pixels, more than max_pixels'):
    dimensions(bytes(jpeg), LIMIT)
  assert dimensions(encode(picture, 'PNG'), 200 * 301) == (200, 301)
  with pytest.raises(BadImage, match='301 x 200'):
    dimensions(encode(picture, 'PNG'), 200 * 301 - 1)


def xmp(orientation):
  return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>{orientation}</tiff:Orientation></x:xmpmeta>'.encode()


def with_segment(jpeg, content, fill=b''):
  """A JPEG with an APP1 segment in front."""
  return jpeg[:2] + fill + b'\xff\xe1' + struct.pack('>H', len(content) + 2) + content + jpeg[2:]


def with_chunk(png, name, content, before):
  """A PNG with another chunk."""
  at = png.index(before) - 4
  chunk = struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))
  return png[:at] + chunk + png[at:]


def carriers(picture, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  raw = exif.tobytes()
  jpeg, png = encode(picture, 'JPEG', quality=95), encode(picture, 'PNG')
  profile = f'\nexif\n{len(raw):8d}\n{raw.hex()}\n'.encode()
  yield 'XMP in JPEG', with_segment(jpeg, b'http://ns.adobe.com/xap/1.0/\0' + xmp(orientation))
  yield 'fill bytes before EXIF', with_segment(jpeg, raw, b'\xff\xff\xff')
  yield 'XMP in WebP', encode(picture, 'WEBP', lossless=True, xmp=xmp(orientation))
  yield 'XMP in PNG', with_chunk(png, b'iTXt', b'XML:com.adobe.xmp\0\0\0\0\0' + xmp(orientation), b'IDAT')
  yield 'raw profile in PNG', with_chunk(png, b'zTXt', b'Raw profile type exif\0\0' + zlib.compress(profile), b'IDAT')
  yield 'EXIF behind the picture of a PNG', with_chunk(png, b'eXIf', raw[6:], b'IEND')
  yield 'TIFF', encode(picture, 'TIFF', exif=exif)
  yield 'AVIF', encode(picture, 'AVIF', quality=90, exif=exif)


@pytest.mark.parametrize('orientation', [1, 3, 6, 7])
def test_every_carrier_of_an_orientation_is_read_as_pillow_reads_it(picture, orientation):
  for name, data in carriers(picture, orientation):
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert('RGB')
    assert upright.size == ((301, 200) if orientation < 5 else (200, 301)), name
    assert dimensions(data, LIMIT) == upright.size[::-1], name
    assert np.abs(decode(data).astype(int) - np.asarray(upright)).max() <= ('JPEG' in name or 'EXIF' in name), name


def test_kinds_are_told_by_content_and_no_others_are_decoded(picture, photograph):
  for kind in ('EPS', 'PPM', 'TGA', 'PCX', 'ICO', 'JPEG2000'):
    with pytest.raises(BadImage, match=r'^not an image file \(\d+ bytes\)$'):
      decode(encode(picture, kind))
  for kind, options in (('TIFF', {}), ('TIFF', {'compression': 'tiff_lzw'}), ('GIF', {}), ('AVIF', {'quality': 95})):
    data = encode(picture, kind, **options)
    np.testing.assert_array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert('RGB')))
  first, second = picture.convert('P'), picture.rotate(180).convert('P')
  moving = encode(first, 'GIF', save_all=True, append_images=[second])
  np.testing.assert_array_equal(decode(moving), np.asarray(first.convert('RGB')))
  assert decode_mod.kind_of(b'\0\0\0\x18ftypmif1\0\0\0\0mif1avif') == 'AVIF'
  assert decode_mod.kind_of(b'\0\0\0\x18ftypmif1\0\0\0\0mif1heic') == 'HEIF'
  assert decode_mod.kind_of(b'\0\0\0\x18ftypmp42\0\0\0\0isomavif') is None  # a film


def test_heic_is_read_where_its_plugin_is_and_otherwise_says_what_to_install(picture, monkeypatch):
  heif = pytest.importorskip('pillow_heif')
  heif.register_heif_opener()
  data = encode(picture, 'HEIF', quality=95)
  np.testing.assert_array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert('RGB')))
  assert '.heic' in decode_mod.suffixes()
  monkeypatch.setattr(decode_mod, 'readable', lambda kind: kind != 'HEIF')
  with pytest.raises(BadImage, match=r"^HEIF, which needs pillow-heif: pip install 'resjax\[heif\]'$"):
    decode(data)


def test_a_phones_largest_photograph_passes_by_default_and_arrays_are_looked_at_too():
  assert dimensions(png_sized(8160, 6144), default.get_config().data.max_pixels) == (6144, 8160)
  for wrong in (np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)):
    with pytest.raises(BadImage, match=r'^got .*, expected uint8 \[H, W, 3\]$|0 pixels|x 0 pixels, expected some$'):
      dimensions(wrong, LIMIT)


def png_sized(width, height):
  return encode(Image.new('1', (width, height)), 'PNG')
