"""From an encoded file to upright uint8 RGB, or a `BadImage` that says why not."""

import functools
import importlib.util
import io
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import ExifTags, Image

from resjax import moved
from resjax.data import bombs
from resjax.telling import one_line

__all__ = ['BadImage', 'Picture', 'decode', 'dimensions', 'readable', 'suffixes']

# What files of images are called, by what they hold; `readable` says which of these can be read here.
_SUFFIXES = {
  'JPEG': ('.jpg', '.jpeg', '.jfif'),
  'PNG': ('.png',),
  'WEBP': ('.webp',),
  'BMP': ('.bmp',),
  'GIF': ('.gif',),
  'TIFF': ('.tif', '.tiff'),
  'AVIF': ('.avif',),
  'HEIF': ('.heic', '.heif'),
}
# How they begin. No other kind is decoded, whatever a file is called: some decoders start other programs.
_BEGINNINGS = {
  b'\xff\xd8\xff': 'JPEG',
  b'\x89PNG\r\n\x1a\n': 'PNG',
  b'BM': 'BMP',
  b'GIF87a': 'GIF',
  b'GIF89a': 'GIF',
  **dict.fromkeys((b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'), 'TIFF'),
}
BEGINNING = 256  # bytes by which a kind is known
_HEIC = (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'hevm', b'hevs')
_WANTED = {'AVIF': 'Pillow 11.3 or newer with AVIF', 'HEIF': "pillow-heif: pip install 'resjax[heif]'"}

_SLOW_PIXELS = 2_000_000  # of a run-length coded BMP, which Pillow reads in Python, a second for each million
_PASSES = 20  # over as many pixels as are allowed at most, together those of all scans of a JPEG

# What libjpeg warns of although nothing of the picture is missing.
_HARMLESS = ('extraneous bytes before marker', 'Invalid SOS parameters')

# The EXIF orientation: how the stored rows and columns become upright.
_UPRIGHT = {
  2: lambda a: a[:, ::-1],
  3: lambda a: a[::-1, ::-1],
  4: lambda a: a[::-1],
  5: lambda a: a.swapaxes(0, 1),
  6: lambda a: a.swapaxes(0, 1)[:, ::-1],
  7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
  8: lambda a: a.swapaxes(0, 1)[::-1],
}


class BadImage(ValueError):
  """An image that can't be read; the message says why."""


@functools.cache
def readable(kind: str) -> bool:
  """Returns whether a kind is read here: AVIF is since Pillow 11.3, HEIF where pillow-heif is installed."""
  if kind == 'HEIF':
    if importlib.util.find_spec('pillow_heif') is None:
      return False
    import pillow_heif

    pillow_heif.register_heif_opener()
  elif kind == 'AVIF':
    Image.init()
    return 'AVIF' in Image.OPEN
  return True


@functools.cache
def suffixes() -> tuple[str, ...]:
  """Returns the endings of the files that are read here, in small letters."""
  return tuple(suffix for kind, known in _SUFFIXES.items() if readable(kind) for suffix in known)


def wanted_for(suffix: str) -> str | None:
  """Returns what is missing here to read files of an ending; None for endings that are no image's."""
  kind = next((kind for kind, known in _SUFFIXES.items() if suffix.lower() in known), None)
  return kind and f'{suffix.lower()}, which needs {_WANTED[kind]}' if kind in _WANTED else None


class Picture:
  """An image whose header was read and accepted.

  Attributes:
    height: In pixels, of the upright image.
    width: Likewise.
  """

  def __init__(self, image: bytes | np.ndarray, max_pixels: int):
    """Reads the header.

    Args:
      image: An encoded file, or pixels `[H, W, 3]`.
      max_pixels: Larger images are refused: a small file can unpack to terabytes.

    Raises:
      BadImage: The header can't be read, or announces more than `max_pixels` or what would take too long.
    """
    self._data, self._orientation = image, 1
    self._opened: Image.Image | None = None  # by Pillow; an ordinary JPEG needs none
    header = None
    if isinstance(image, np.ndarray):
      if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise BadImage(f'got {image.dtype} {image.shape}, expected uint8 [H, W, 3]')
      self.height, self.width = image.shape[:2]
    elif header := _jpeg_header(image):
      self.height, self.width = header.size
    else:
      self._opened = _open(image)
      self.width, self.height = self._opened.size
    pixels = self.height * self.width
    if pixels > max_pixels:
      raise BadImage(
        f'{self.width} x {self.height} pixels, more than max_pixels = {max_pixels} '
        '(config.data.max_pixels, --max-pixels)'
      )
    if not pixels:
      raise BadImage(f'{self.width} x {self.height} pixels, expected some')
    if isinstance(image, np.ndarray):
      return
    if not (header and header.one_scan) and (refusal := bombs.refusal(image, pixels, _PASSES * max_pixels)):
      raise BadImage(refusal)
    tiles = getattr(self._opened, 'tile', ())
    if pixels > _SLOW_PIXELS and any(tile[0] == 'bmp_rle' for tile in tiles):
      raise BadImage(f'a run-length coded BMP of {pixels} pixels, expected at most {_SLOW_PIXELS}')
    if self._opened:
      _load(self._opened)  # what says which way up it is may stand behind the picture
    if self._opened or (header and header.tagged):
      self._orientation = _orientation(self._opened, image)
    if self._orientation >= 5:
      self.height, self.width = self.width, self.height

  def pixels(self, shrink: int = 1) -> np.ndarray:
    """Decodes it; as of `decode`."""
    if isinstance(self._data, np.ndarray):
      return self._data
    shape = (self.width, self.height) if self._orientation >= 5 else (self.height, self.width)
    pixels = None if self._opened else _decode_jpeg(self._data, shape, shrink if self._orientation == 1 else 1)
    if pixels is None:
      pixels = _decode_other(self._opened or _open(self._data))
      if pixels.shape[:2] != shape:
        raise BadImage(f'{pixels.shape[1]} x {pixels.shape[0]} pixels, expected the {shape[1]} x {shape[0]} announced')
    return _UPRIGHT[self._orientation](pixels) if self._orientation in _UPRIGHT else pixels


def dimensions(image: bytes | np.ndarray, max_pixels: int) -> tuple[int, int]:
  """Returns height and width in pixels of the upright image; arguments and errors as of `Picture`."""
  picture = Picture(image, max_pixels)
  return picture.height, picture.width


def decode(image: bytes | np.ndarray, shrink: int = 1, max_pixels: int = 2**26) -> np.ndarray:
  """Decodes an image.

  Greyscale, palette, CMYK and 16-bit images become 8-bit RGB; an alpha channel is dropped, as PIL's `convert('RGB')`
  does; it is turned as `PIL.ImageOps.exif_transpose` does; of an animation the first picture is taken.

  Args:
    image: An encoded file, or pixels `[H, W, 3]`, which come back as they are.
    shrink: 1, 2, 4 or 8: an ordinary JPEG comes out that many times smaller both ways (rounded up), through a smaller
      inverse DCT of each block, which averages rather than drops pixels. Any other image comes out in full size.
    max_pixels: Larger images are refused.

  Returns:
    uint8 `[H, W, 3]`, 0..255.

  Raises:
    BadImage: The file is corrupt, truncated or of an unknown kind, or refused by its header.
  """
  return Picture(image, max_pixels).pixels(shrink)


def kind_of(data: bytes) -> str | None:
  """Returns what a file holds by its first bytes, a key of `_SUFFIXES`; None for all that is not read."""
  if data[4:8] == b'ftyp':
    brands = data[8:12], data[16 : min(int.from_bytes(data[:4], 'big'), BEGINNING)]
    if brands[0] in (b'avif', b'avis') or (brands[0] in (b'mif1', b'msf1') and b'avif' in brands[1]):
      return 'AVIF'
    return 'HEIF' if brands[0] in _HEIC or brands[0] in (b'mif1', b'msf1') else None
  if data[:4] == b'RIFF' and data[8:12] == b'WEBP':
    return 'WEBP'
  return next((kind for beginning, kind in _BEGINNINGS.items() if data.startswith(beginning)), None)


def known(begins: bytes, size: int) -> str:
  """Returns the kind of a file by its first `BEGINNING` bytes and its size; BadImage: it is none that is read."""
  if kind := kind_of(begins):
    return kind
  raise BadImage(f'not an image file ({size} bytes)' if size else 'an empty file')


def _open(data: bytes) -> Image.Image:
  """Opens a file by its header."""
  kind = known(data, len(data))
  if not readable(kind):
    raise BadImage(f'{kind}, which needs {_WANTED[kind]}')
  if refusal := bombs.before_opening(data):
    raise BadImage(refusal)
  try:
    return Image.open(io.BytesIO(data), formats=(kind,))
  except Image.UnidentifiedImageError:
    raise BadImage(f'a damaged {kind} file ({len(data)} bytes)') from None
  except Exception as error:  # whatever a decoder may raise over broken bytes
    raise BadImage(one_line(error)) from error


def _load(picture: Image.Image) -> None:
  """Decodes a picture in place."""
  try:
    picture.load()
  except Exception as error:  # whatever a decoder may raise over broken bytes
    raise BadImage(one_line(error)) from error


class _Header(NamedTuple):
  """What is known of a JPEG that libjpeg-turbo turns into RGB itself."""

  size: tuple[int, int]  # stored height and width
  one_scan: bool
  tagged: bool  # it may say which way up it is


def _jpeg_header(data: bytes) -> _Header | None:
  """Looks through what stands before the picture of a JPEG; None for all else, and where Pillow should look."""
  if not data.startswith(b'\xff\xd8\xff'):
    return None
  try:
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    return None if colours in ('CMYK', 'YCCK') else _Header((height, width), *_segments(data))
  except (ValueError, IndexError):
    return None


def _segments(data: bytes) -> tuple[bool, bool]:
  """Whether a JPEG has one scan, and whether there may be an orientation in EXIF or XMP; IndexError: it is damaged."""
  at, components, tagged = 2, 0, False
  for _ in range(bombs.MOST_STEPS):
    if data[at] != 0xFF:
      return False, True  # not as it should be: Pillow passes over what it does not know
    marker, size = data[at + 1], data[at + 2] << 8 | data[at + 3]
    if marker == 0xFF:  # a fill byte
      at += 1
      continue
    if marker == 0xDA:
      return data[at + 4] == components, tagged
    if marker == 0xE1:
      segment = data[at + 4 : at + 2 + size]
      tagged |= segment.startswith(b'Exif') or b'Orientation' in segment
    elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
      components = data[at + 9] if marker < 0xC2 else -1  # of a progressive one no scan has all
    at += 2 + size
  raise IndexError


def _orientation(picture: Image.Image | None, data: bytes) -> int:
  """The orientation, 1 to 8, as Pillow finds it in EXIF, XMP and others; 1 where there is none."""
  try:
    orientation = (picture or _open(data)).getexif().get(ExifTags.Base.Orientation, 1)
  except Exception:  # a broken EXIF block spoils no picture; decoding finds what else is wrong
    return 1
  return orientation if orientation in _UPRIGHT else 1


def _decode_jpeg(data: bytes, shape: tuple[int, int], shrink: int) -> np.ndarray | None:
  """Pixels of an ordinary JPEG; None where PIL should try."""
  height, width = (-(-side // shrink) for side in shape)
  try:
    return simplejpeg.decode_jpeg(data, 'RGB', min_height=height, min_width=width)
  except ValueError as error:
    if any(text in str(error) for text in _HARMLESS):
      return None
    raise BadImage(str(error)) from error


def _decode_other(picture: Image.Image) -> np.ndarray:
  """Pixels of whatever PIL reads."""
  try:
    if picture.mode == 'F' or (picture.mode == 'I' and picture.format == 'TIFF'):
      raise ValueError('floating-point or 32-bit values, whose range is unknown')
    if picture.mode.startswith('I'):  # 16 bits, which PIL's convert would clip
      grey = np.clip(np.round(np.asarray(picture) / 257), 0, 255).astype(np.uint8)
      return np.repeat(grey[..., None], 3, axis=2)
    if 'transparency' in picture.info:
      picture = picture.convert('RGBA')
    return np.asarray(picture.convert('RGB'))
  except Exception as error:  # whatever a decoder may raise over broken bytes
    raise BadImage(one_line(error)) from error


moved.tell(globals())
