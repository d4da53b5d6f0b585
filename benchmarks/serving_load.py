"""The other side of benchmarks/serving.py, a process of its own: clients that ask a server, and what came of it.

  python benchmarks/serving_load.py < ASKED > FOUND

ASKED is JSON with `url`, `images` (files), `seconds`, and `clients`, each of whom asks again when answered, or `rate`,
images a second at random times whatever becomes of them; `seed`. FOUND is a list with a row for each request: its
image's number, when it was sent and how long it took in seconds, the status, the class and the resolution. Where there
was no answer the status is 0 if no connection was made, else -1: the request may have been lost.
"""

import asyncio
import json
import pathlib
import sys
import time
from typing import Any

import aiohttp
import numpy as np


async def ask(session: aiohttp.ClientSession, url: str, number: int, image: bytes, begin: float) -> list[Any]:
  """Sends one image."""
  sent = time.monotonic()
  status, answer = -1, {}
  try:
    async with session.post(url, data=image) as response:
      content = await response.read()
      status = response.status
      answer = json.loads(content) if status == 200 else {}
  except aiohttp.ClientConnectorError:
    status = 0
  except (aiohttp.ClientError, OSError):
    pass
  took = time.monotonic() - sent
  return [number, sent - begin, took, status, answer.get('class_index'), answer.get('resolution')]


async def load(asked: dict[str, Any]) -> list[list[Any]]:
  """Asks for some seconds."""
  images = [pathlib.Path(path).read_bytes() for path in asked['images']]
  order = np.random.default_rng(asked['seed']).permutation(len(images)).tolist()
  found: list[list[Any]] = []
  turn = iter(range(10**9))
  connector = aiohttp.TCPConnector(limit=0)
  async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:
    begin = time.monotonic()

    async def one() -> None:
      number = order[next(turn) % len(order)]
      found.append(await ask(session, asked['url'], number, images[number], begin))

    async def client() -> None:
      while time.monotonic() - begin < asked['seconds'] and not (found and found[-1][3] == 0):
        await one()

    if 'clients' in asked:
      await asyncio.gather(*(client() for _ in range(asked['clients'])))
      return found
    gaps = np.random.default_rng(asked['seed']).exponential(1 / asked['rate'], int(asked['rate'] * asked['seconds']))
    sent = []
    for when in np.cumsum(gaps):
      await asyncio.sleep(max(0.0, begin + when - time.monotonic()))
      sent.append(asyncio.create_task(one()))
    await asyncio.gather(*sent)
  return found


if __name__ == '__main__':
  json.dump(asyncio.run(load(json.load(sys.stdin))), sys.stdout)
