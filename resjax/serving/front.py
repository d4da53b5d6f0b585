"""The front of a server: HTTP, what is let in, and what comes back. Behind it mosec decodes, gathers and runs batches.

It is there for what mosec 0.9 has no place for: mosec answers an empty body with 200, hands workers the body alone,
without address or headers, and does not say when it is ready.
"""

import asyncio
import io
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from PIL import Image

from resjax.serving import bodies
from resjax.serving.bodies import Refused, Upload
from resjax.serving.messages import Reply, Task
from resjax.serving.metrics import Metrics
from resjax.serving.settings import Depth, Settings
from resjax.telling import printable

# Of the deadline, the share in which what is let in must be done at the dial's cheapest step.
_WITHIN = 0.75

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Front:
  """Takes requests, asks mosec for each image, and answers.

  Attributes:
    state: 'starting', 'ready' or 'draining'.
    under_way: Images let in and not answered.
    answered: Requests that were let in and have been answered.
  """

  def __init__(self, settings: Settings, behind: str, depth: Depth, budgets: str | None = None):
    """Takes no requests yet.

    Args:
      settings: How the network is served.
      behind: The address of mosec's route.
      depth: Where others read how many images are under way.
      budgets: Why requests may not have budgets of their own; None: they may.
    """
    self.state, self.under_way, self.answered = 'starting', 0, 0
    self.metrics = Metrics()
    self._settings, self._behind, self._depth = settings, behind, depth
    self._no_budgets = budgets
    self._capacity = settings.capacity
    self._session: aiohttp.ClientSession | None = None
    self._replies = msgspec.json.Decoder(Reply)

  def application(self) -> web.Application:
    """Returns what serves it."""
    app = web.Application(client_max_size=self._settings.max_bytes, middlewares=[self._counted])
    app.router.add_post('/predict', self._predict)
    app.router.add_get('/health', self._health)
    app.router.add_get('/ready', self._ready)
    app.router.add_get('/metrics', self._metrics)
    app.cleanup_ctx.append(self._connected)
    return app

  async def _connected(self, app: web.Application) -> Any:
    """Holds the connections to mosec."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout()) as self._session:
      yield

  @web.middleware
  async def _counted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
    """Counts answers to images, and says what is refused as JSON."""
    begin = time.monotonic()
    try:
      response = await handler(request)
    except Refused as error:
      response = _error(error.status, str(error))
    except (web.RequestPayloadError, ConnectionError) as error:  # broken off, or encoded as nothing can be
      response = _error(400, f'body: could not be read ({type(error).__name__})')
      response.force_close()
    except web.HTTPException as error:
      why = (
        f'body: too large, expected at most {self._settings.max_bytes} bytes' if error.status == 413 else error.reason
      )
      response = _error(error.status, why)
      if allowed := error.headers.get('Allow'):
        response.headers['Allow'] = allowed
    if request.path == '/predict':
      self.metrics.requests.labels(response.status).inc()
      if response.status == 200:
        self.metrics.seconds.observe(time.monotonic() - begin)
    return response

  async def _predict(self, request: web.Request) -> web.Response:
    """Lets a request in, or not; what is let in is answered."""
    if self.state != 'ready':
      raise Refused(503, f'the server is {self.state}')
    self._let_in(1)
    images, arrived = 1, time.monotonic()
    try:
      async with asyncio.timeout(self._settings.timeout):
        upload = await bodies.read(request, self._settings.max_bytes)
        if upload.budget is not None and self._no_budgets is not None:
          raise Refused(400, f'budget: got {upload.budget}, expected none: {self._no_budgets}')
        if len(upload.images) > self._settings.capacity:
          raise Refused(413, f'body: got {len(upload.images)} images, expected at most {self._settings.capacity}')
        self._let_in(len(upload.images) - 1)
        images = len(upload.images)
        return self._answer(upload, await self._ask(upload, arrived))
    except TimeoutError:
      raise Refused(408, f'no answer within {self._settings.timeout:g} s') from None
    finally:
      self._count(-images)
      self.answered += 1

  def _let_in(self, images: int) -> None:
    """Counts images that are let in; Refused where there is no room."""
    if images and self.under_way + images > self._capacity:
      raise Refused(429, f'full: {self.under_way} images are under way')
    self._count(images)

  def _count(self, images: int) -> None:
    self.under_way += images
    self._depth.images = self.under_way
    self.metrics.under_way.set(self.under_way)

  async def _ask(self, upload: Upload, arrived: float) -> list[Reply | Refused]:
    """What comes of each image."""
    return await asyncio.gather(*(self._ask_one(self._task(image, arrived, upload.budget)) for image in upload.images))

  def _task(self, image: bytes, arrived: float, budget: str | None = None) -> Task:
    return Task(image, arrived, self._settings.key, budget)

  async def _ask_one(self, task: Task) -> Reply | Refused:
    """What comes of an image."""
    assert self._session is not None
    try:
      async with self._session.post(self._behind, data=msgspec.msgpack.encode(task)) as response:
        content = await response.read()
    except aiohttp.ClientError as error:
      return Refused(503, f'the classifying process is gone ({type(error).__name__})')
    if response.status == 200:
      return self._replies.decode(content)
    return Refused(response.status, content.decode(errors='replace').removeprefix('request validation error: '))

  async def works(self) -> bool:
    """Whether an image comes all the way through; it is counted nowhere."""
    blank = io.BytesIO()
    Image.new('RGB', (8, 8)).save(blank, 'PNG')
    reply = await self._ask_one(self._task(blank.getvalue(), time.monotonic()))
    if isinstance(reply, Refused) and reply.status == 500:
      raise OSError(f'the classifying process answers a blank image with an error: {reply}')
    return isinstance(reply, Reply)

  def _answer(self, upload: Upload, replies: list[Reply | Refused]) -> web.Response:
    """The answer to a request: of several images those that are none have an error, and the others their classes."""
    rows: list[dict[str, Any]] = []
    for name, reply in zip(upload.names, replies, strict=True):
      if isinstance(reply, Reply) and reply.error is None:
        self._note(reply)
        rows.append(reply.prediction if upload.single else {'image': name, **reply.prediction})
        continue
      if isinstance(reply, Reply):
        raise Refused(reply.status, reply.error or '')  # such as a budget that can't be met, the same for all
      if reply.status == 422:
        self.metrics.unreadable.inc()
      if upload.single or reply.status != 422:
        raise reply
      rows.append({'image': name, 'error': str(reply)})
    status = 422 if all('error' in row for row in rows) else 200
    return _json(rows[0] if upload.single else {'predictions': rows}, status)

  def _note(self, reply: Reply) -> None:
    """Counts an image, and takes note of the dial: what it can't do in time is not let in."""
    self.metrics.images.labels(reply.prediction['resolution']).inc()
    self.metrics.macs.inc(reply.prediction['macs'])
    if reply.dial is not None and reply.seconds is not None and self._settings.p95 is not None:
      self.metrics.dialled(reply.dial)
      in_time = int(_WITHIN * self._settings.p95 / reply.seconds)
      self._capacity = min(self._settings.capacity, max(1, in_time))

  async def _health(self, request: web.Request) -> web.Response:
    return _json({'status': 'alive'})

  async def _ready(self, request: web.Request) -> web.Response:
    return _json({'status': self.state}, 200 if self.state == 'ready' else 503)

  async def _metrics(self, request: web.Request) -> web.Response:
    """Those of the front, and mosec's: batches, stages, queue."""
    text = self.metrics.text()
    if self._session is not None and self.state == 'ready':
      try:
        async with self._session.get(self._behind.rpartition('/')[0] + '/metrics') as response:
          text += (await response.read()).replace(b'# EOF\n', b'')
      except aiohttp.ClientError:
        pass  # its own are there all the same
    return web.Response(body=text, headers={'Content-Type': 'text/plain; version=0.0.4; charset=utf-8'})


def _json(value: Any, status: int = 200) -> web.Response:
  return web.Response(body=msgspec.json.encode(value) + b'\n', status=status, content_type='application/json')


def _error(status: int, why: str) -> web.Response:
  """An answer that says why there is none; who was too many, or comes at the end, is told to come again."""
  response = _json({'error': printable(why)}, status)
  if status in (429, 503):
    response.headers['Retry-After'] = '1'
  if status in (408, 413, 503):
    response.force_close()
  return response
