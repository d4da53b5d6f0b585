"""Uploads made to harm a server, for benchmarks/serving.py: addresses, bodies and content types."""

import io
import struct
import zlib

import msgspec
import numpy as np
from PIL import Image

MOST = 10 << 20  # bytes of a request, the server's default


def png(width: int, height: int, rows: bytes = b'') -> bytes:
  """A PNG file that announces a size, whatever it holds."""

  def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

  head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')


def flipped(image: bytes, rng: np.random.Generator) -> bytes:
  """An image with some bytes changed."""
  content = np.frombuffer(image, np.uint8).copy()
  rows = rng.integers(0, len(content), rng.integers(1, 40))
  content[rows] = rng.integers(0, 256, len(rows))
  return content.tobytes()


def other_kind(image: bytes, rng: np.random.Generator) -> bytes:
  """An image as a file of another kind, with some bytes changed."""
  buffer = io.BytesIO()
  Image.open(io.BytesIO(image)).save(buffer, ['PNG', 'WEBP', 'BMP', 'GIF', 'TIFF'][rng.integers(5)])
  return flipped(buffer.getvalue(), rng)


def form(content: bytes, rng: np.random.Generator) -> bytes:
  """A form, cut off or changed somewhere."""
  body = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n' + content + b'\r\n--x--\r\n'
  return body[: rng.integers(1, len(body))] if rng.integers(2) else flipped(body, rng)


def uploads(images: list[bytes], count: int, seed: int = 0) -> list[tuple[str, bytes, str]]:
  """Returns so many uploads: address, body and content type, each an image of these that was made to harm, or none."""
  rng = np.random.default_rng(seed)
  found: list[tuple[str, bytes, str]] = []
  for number in range(count):
    image = images[rng.integers(len(images))]
    packed = msgspec.msgpack.encode([image, flipped(image, rng)])
    path, kind = '/predict', 'application/octet-stream'
    makers = (
      lambda image=image: flipped(image, rng),
      lambda image=image: image[: rng.integers(1, len(image))],
      lambda: rng.bytes(rng.integers(1, 20_000)),
      lambda image=image: other_kind(image, rng),
      lambda: png(int(rng.integers(1, 2**31)), int(rng.integers(1, 2**31))),
      lambda: png(9000, 9000, bytes(9000 * 27001 // 40)),
      lambda image=image: form(image, rng),
      lambda packed=packed: flipped(packed[:200], rng) + packed[200:],
      lambda: b'' if rng.integers(2) else bytes(MOST + 1),
      lambda image=image: image,
    )
    which = number % len(makers)
    body = makers[which]()
    if which == 6:
      kind = 'multipart/form-data; boundary=x'
    elif which == 7:
      kind = 'application/msgpack'
    elif which == 9:
      path = '/predict?budget=' + ['-1', 'nan', '0.0001', '1e400', '%00', 'x' * 4000][rng.integers(6)]
    found.append((path, body, kind))
  return found
