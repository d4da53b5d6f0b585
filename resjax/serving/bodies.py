"""What a request carries: one image as it is, or several as a form or as MessagePack."""

from typing import Any, NamedTuple, NoReturn

import msgspec
from aiohttp import BodyPartReader, http_exceptions, web

from resjax.routing import Budget
from resjax.telling import shown, utf8

# Letters of what is wrong with a form.
_LONGEST = 200

MSGPACK = ('application/msgpack', 'application/x-msgpack', 'application/vnd.msgpack')


class Refused(Exception):
  """A request that is refused, with its status of HTTP."""

  def __init__(self, status: int, why: str):
    super().__init__(why)
    self.status = status


class Upload(NamedTuple):
  """The images of a request."""

  images: list[bytes]
  names: list[str]
  budget: str | None
  single: bool  # the body was an image, and the answer is one


class _Packed(msgspec.Struct, forbid_unknown_fields=True):
  """Images as MessagePack."""

  images: list[bytes]
  budget: str | float | None = None


_DECODER = msgspec.msgpack.Decoder(_Packed | list[bytes])


async def read(request: web.Request, max_bytes: int) -> Upload:
  """Returns the images of a request, and the budget that it names: in a form's or map's field, else in the address.

  Args:
    request: With the body unread.
    max_bytes: Of the body.

  Raises:
    Refused: The body is too large, empty or malformed, or the budget is none.
  """
  if (request.content_length or 0) > max_bytes:
    raise _too_large(max_bytes)
  for field in request.query:
    if field != 'budget' or len(request.query) > 1:
      raise Refused(400, f'address: got {shown(field)}, expected budget alone, once')
  budget: Any = request.query.get('budget')
  if request.content_type.startswith('multipart/'):
    images, names, inside = await _form(request, max_bytes)
    budget = budget if inside is None else inside
  else:
    body = await request.read()  # aiohttp raises 413 where it is too large
    if not body:
      raise Refused(400, 'body: empty, expected an image')
    if request.content_type not in MSGPACK:
      return Upload([body], ['0'], _budget(budget), True)
    images, inside = _packed(body)
    names, budget = [str(number) for number in range(len(images))], budget if inside is None else inside
  if not images:
    raise Refused(400, 'body: got no images, expected one or more')
  if not all(images):
    raise Refused(400, f'image {names[images.index(b"")]}: empty, expected an image')
  return Upload(images, names, _budget(budget), False)


async def _form(request: web.Request, max_bytes: int) -> tuple[list[bytes], list[str], str | None]:
  """Images of a form, whatever their fields are called, their names, and the field `budget`."""
  images: list[bytes] = []
  names: list[str] = []
  budget, total = None, 0
  try:
    async for part in await request.multipart():
      if not isinstance(part, BodyPartReader):
        raise Refused(400, 'body: got a form within a form, expected images')
      content = bytearray()
      while chunk := await part.read_chunk():
        content += chunk
        total += len(chunk)
        if total > max_bytes:
          raise _too_large(max_bytes)
      if part.name == 'budget' and part.filename is None:
        if budget is not None:
          raise Refused(400, 'budget: got two, expected one')
        budget = content.decode(errors='replace')
      else:
        images.append(bytes(content))
        names.append(utf8(part.filename or str(len(names))))
  except (ValueError, AssertionError, RuntimeError, http_exceptions.HttpProcessingError) as error:
    why = ' '.join(str(getattr(error, 'message', error)).split())
    _malformed(f'{type(error).__name__}: {why[:_LONGEST]}')
  return images, names, budget


def _packed(body: bytes) -> tuple[list[bytes], Any]:
  """Images of MessagePack, and the budget."""
  try:
    found = _DECODER.decode(body)
  except msgspec.DecodeError as error:
    _malformed(str(error))
  return (found, None) if isinstance(found, list) else (found.images, found.budget)


def _budget(value: Any) -> str | None:
  """A budget as text, checked."""
  if value is None:
    return None
  try:
    return Budget.parse(value).exact
  except ValueError as error:
    raise Refused(400, str(error)) from None


def _too_large(max_bytes: int) -> Refused:
  return Refused(413, f'body: too large, expected at most {max_bytes} bytes')


def _malformed(why: str) -> NoReturn:
  raise Refused(400, f'body: malformed ({why}), expected an image, a form, or MessagePack of images') from None
