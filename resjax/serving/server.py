"""The life of a server: its processes are started, watched, and ended; what was let in is answered."""

import asyncio
import contextlib
import logging
import os
import pathlib
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import http_exceptions, web

from resjax.serving.front import Front
from resjax.serving.settings import FOLDER, ROUTE, Depth, Settings, described

# Seconds: between two looks at what is being started; from the closing of the port to that of what came through it;
# that those get then who are refused, or have been too slow; that mosec may take to end, after its own for requests.
_LOOK, _LAST, _REST, _ENDING = 0.05, 0.25, 1.0, 10.0

# Bytes of a path in which mosec has its sockets, whose own may have 107 at most.
_LONGEST = 75


def serve(settings: Settings, host: str, port: int, tell: Callable[[str], None]) -> None:
  """Serves until SIGTERM or SIGINT.

  Args:
    settings: How the network is served.
    host: Address to bind to.
    port: 0: any that is free.
    tell: Gets lines for the user.

  Raises:
    ValueError: The settings do not fit the network; or the path of temporary files is too long.
    OSError: The port is taken, or a process ended that should not have.
  """
  with tempfile.TemporaryDirectory(prefix='resjax-serve-') as folder:
    if len(os.fsencode(folder)) > _LONGEST:
      raise ValueError(f'TMPDIR: got {tempfile.gettempdir()}, expected a shorter path: sockets are made in it')
    asyncio.run(_serve(settings, host, port, pathlib.Path(folder), tell))


async def _serve(settings: Settings, host: str, port: int, folder: pathlib.Path, tell: Callable[[str], None]) -> None:
  """Opens the port, starts mosec, waits for a signal, answers what was let in, ends mosec."""
  settings.write(folder)
  logging.getLogger('aiohttp.server').addFilter(_ours)
  stop = asyncio.Event()
  for name in (signal.SIGTERM, signal.SIGINT):
    asyncio.get_running_loop().add_signal_handler(name, stop.set)
  inner = _free_port()
  front = Front(settings, f'http://127.0.0.1:{inner}{ROUTE}', Depth(folder), _no_budgets(settings))
  runner = web.AppRunner(front.application(), access_log=None, shutdown_timeout=_REST)
  await runner.setup()
  site = web.TCPSite(runner, host, port)
  try:
    await site.start()
  except OSError as error:
    await runner.cleanup()
    raise OSError(f'--host, --port: got {host} and {port}, which can not be listened on: {error.strerror}') from None
  bound = runner.addresses[0]
  address = f'http://{bound[0]}:{bound[1]}' if ':' not in bound[0] else f'http://[{bound[0]}]:{bound[1]}'
  try:
    async with _mosec(settings, folder, inner) as process:
      ended = asyncio.create_task(process.wait())
      stopping = asyncio.create_task(stop.wait())
      starting = asyncio.create_task(_started(folder, front, f'http://127.0.0.1:{inner}/'))
      await asyncio.wait([ended, stopping, starting], return_when=asyncio.FIRST_COMPLETED)
      if starting.done() and not stopping.done() and not ended.done():
        for line in _lines(starting.result(), settings):
          tell(line)
        tell(f'ready on {address}: POST /predict; GET /health, /ready, /metrics')
        await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
      starting.cancel()
      if ended.done() and not stopping.done():
        raise _why(folder, process.returncode)
      front.state = 'draining'
      tell(f'draining: {front.under_way} images under way')
      await _drained(front, settings.timeout)
      await site.stop()
      await asyncio.sleep(_LAST)  # who has connected by now is told that it is the end
      await runner.cleanup()
  finally:
    front.state = 'draining'
    await runner.cleanup()
  tell(f'stopped: all {front.answered} requests that were let in are answered')


@contextlib.asynccontextmanager
async def _mosec(settings: Settings, folder: pathlib.Path, port: int) -> Any:
  """Starts mosec in a session of its own, so that Ctrl-C reaches the front alone; at the end none of it is left."""
  about = {'ADDRESS': '127.0.0.1', 'PORT': port, 'PATH': folder / 'mosec', 'NAMESPACE': 'mosec', 'LOG_LEVEL': 'error'}
  about |= {'TIMEOUT': int(1e3 * settings.timeout) + 1000, 'CAPACITY': settings.capacity + 1}
  about |= {'MAX_REQUEST_SIZE': settings.max_bytes + 4096}
  surroundings = {FOLDER: str(folder)} | {f'MOSEC_{name}': str(value) for name, value in about.items()}
  process = await asyncio.create_subprocess_exec(
    *(sys.executable, '-m', 'resjax.serving.app'),
    stdin=asyncio.subprocess.PIPE,
    env=os.environ | surroundings,
    start_new_session=True,
  )
  try:
    yield process
  finally:
    with contextlib.suppress(ProcessLookupError):
      process.terminate()
    with contextlib.suppress(TimeoutError):
      await asyncio.wait_for(process.wait(), settings.timeout + _ENDING)
    with contextlib.suppress(ProcessLookupError, PermissionError):
      os.killpg(process.pid, signal.SIGKILL)  # none as a rule
    await process.wait()


async def _started(folder: pathlib.Path, front: Front, inner: str) -> dict[str, Any]:
  """Waits until an image comes through, and returns what is served; where nothing is, for ever."""
  while (found := described(folder)) is None or 'error' in found:
    await asyncio.sleep(_LOOK)
  async with aiohttp.ClientSession() as session:
    while True:
      with contextlib.suppress(aiohttp.ClientError):
        async with session.get(inner) as response:
          if response.status == 200 and await front.works():
            break
      await asyncio.sleep(_LOOK)
  front.state = 'ready'
  return found


async def _drained(front: Front, timeout: float) -> None:
  """Waits until all that was let in is answered, no longer than requests may take."""
  with contextlib.suppress(TimeoutError):
    async with asyncio.timeout(timeout + 1):
      while front.under_way:
        await asyncio.sleep(_LOOK)


def _why(folder: pathlib.Path, code: int | None) -> Exception:
  """What is raised where mosec has ended by itself."""
  error = (described(folder) or {}).get('error')
  return ValueError(error) if error else OSError(f'the serving processes ended (exit code {code}), see above')


def _ours(record: logging.LogRecord) -> bool:
  """Whether a line of the log is not of a client's broken HTTP, which is answered with 400."""
  error = record.exc_info[1] if record.exc_info else None
  return not isinstance(error, http_exceptions.HttpProcessingError | web.RequestPayloadError)


def _no_budgets(settings: Settings) -> str | None:
  """Why requests may not have budgets of their own; None: they may."""
  if settings.p95 is not None:
    return f'the server keeps its deadline of {1e3 * settings.p95:g} ms'
  return None if settings.resolution is None else f'the server runs at {settings.resolution} px'


def _lines(found: dict[str, Any], settings: Settings) -> list[str]:
  """What is served, for the user."""
  lines = list(found['notes'])
  if found['steps']:
    steps = ', '.join(f'{name} ({1e3 * seconds:.1f} ms)' for name, seconds in found['steps'])
    deadline, (cheapest, least) = settings.p95 or 0, found['steps'][-1]
    lines.append(f'p95 {1e3 * deadline:g} ms; the dial: {steps} an image')
    if least > deadline:
      lines.append(f'p95 {1e3 * deadline:g} ms is less than an image takes at {cheapest}: answers will be late')
  return lines


def _free_port() -> int:
  """A port of the loopback that is free now."""
  with socket.socket() as opened:
    opened.bind(('127.0.0.1', 0))
    return opened.getsockname()[1]
