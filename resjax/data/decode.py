"""From an encoded file to upright uint8 RGB, or a `BadImage` that says why not."""

import io

import numpy as np
import simplejpeg
from PIL import Image

__all__ = ['BadImage', 'decode', 'dimensions']

# What files of images are called.
SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp')

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


def dimensions(image: bytes | np.ndarray, max_pixels: int) -> tuple[int, int]:
  """Reads the size of an image from its header.

  Args:
    image: An encoded file, or pixels `[H, W, 3]`.
    max_pixels: Larger images are refused: a small file can unpack to terabytes.

  Returns:
    Height and width in pixels of the upright image.

  Raises:
    BadImage: The header can't be read, or announces more than `max_pixels`.
  """
  if isinstance(image, np.ndarray):
    height, width = image.shape[:2]
  else:
    height, width = _jpeg_size(image) or _open(image).size[::-1]
    if _orientation(image) >= 5:
      height, width = width, height
  if height * width > max_pixels:
    raise BadImage(f'{width} x {height} pixels, more than config.data.max_pixels = {max_pixels}')
  return height, width


def decode(image: bytes | np.ndarray, shrink: int = 1) -> np.ndarray:
  """Decodes an image whose `dimensions` have been accepted.

  Greyscale, palette, CMYK and 16-bit images become 8-bit RGB; an alpha channel is dropped, as PIL's
  `convert('RGB')` does; the EXIF orientation is applied; of an animation the first picture is
  taken.

  Args:
    image: An encoded file, or pixels `[H, W, 3]`, which come back as they are.
    shrink: 1, 2, 4 or 8: an ordinary JPEG comes out that many times smaller both ways (rounded up),
      through a smaller inverse DCT of each block, which averages rather than drops pixels. Any
      other image comes out in full size.

  Returns:
    uint8 `[H, W, 3]`, 0..255.

  Raises:
    BadImage: The file is corrupt, truncated or of an unknown kind.
  """
  if isinstance(image, np.ndarray):
    return image
  orientation = _orientation(image)
  pixels = _decode_jpeg(image, shrink if orientation == 1 else 1)
  if pixels is None:
    pixels = _decode_other(image)
  return _UPRIGHT[orientation](pixels) if orientation in _UPRIGHT else pixels


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
  """Height and width of a JPEG that libjpeg-turbo turns into RGB itself; None for all else."""
  if not simplejpeg.is_jpeg(data):
    return None
  try:
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
  except ValueError:
    return None  # PIL will say what is wrong with it
  return None if colours in ('CMYK', 'YCCK') else (height, width)


def _decode_jpeg(data: bytes, shrink: int) -> np.ndarray | None:
  """Pixels of an ordinary JPEG; None where PIL should try."""
  size = _jpeg_size(data)
  if size is None:
    return None
  height, width = (-(-side // shrink) for side in size)
  try:
    return simplejpeg.decode_jpeg(data, 'RGB', min_height=height, min_width=width)
  except ValueError as error:
    if any(text in str(error) for text in _HARMLESS):
      return None
    raise BadImage(str(error)) from error


def _open(data: bytes) -> Image.Image:
  """Opens a file by its header."""
  try:
    return Image.open(io.BytesIO(data))
  except Image.UnidentifiedImageError:
    raise BadImage(f'not an image file ({len(data)} bytes)') from None
  except Exception as error:  # whatever a decoder may raise over broken bytes
    raise BadImage(str(error)) from error


def _orientation(data: bytes) -> int:
  """The EXIF orientation, 1 to 8; 1 where there is none."""
  if not _has_exif(data):
    return 1
  try:
    orientation = _open(data).getexif().get(0x0112, 1)
  except Exception:  # a broken EXIF block spoils no picture; decoding finds what else is wrong
    return 1
  return orientation if orientation in _UPRIGHT else 1


def _has_exif(data: bytes) -> bool:
  """Whether a file may carry EXIF; of a JPEG the segments before the picture are looked through."""
  if not simplejpeg.is_jpeg(data):
    return b'eXIf' in data or b'EXIF' in data or b'Exif' in data  # PNG, WebP, others
  at = 2
  while data[at : at + 1] == b'\xff' and data[at + 1 : at + 2] != b'\xda':
    if data[at + 1 : at + 2] == b'\xe1' and data[at + 4 : at + 8] == b'Exif':
      return True
    at += 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
  return False


def _decode_other(data: bytes) -> np.ndarray:
  """Pixels of whatever PIL reads."""
  picture = _open(data)
  try:
    if picture.mode == 'F':
      raise ValueError('floating-point values, whose range is unknown')
    if picture.mode.startswith('I'):  # 16 bits, which PIL's convert would clip
      grey = np.clip(np.round(np.asarray(picture) / 257), 0, 255).astype(np.uint8)
      return np.repeat(grey[..., None], 3, axis=2)
    if 'transparency' in picture.info:
      picture = picture.convert('RGBA')
    return np.asarray(picture.convert('RGB'))
  except Exception as error:  # whatever a decoder may raise over broken bytes
    raise BadImage(str(error)) from error
