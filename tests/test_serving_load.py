"""A started server with a deadline, under load and after it."""

import pathlib
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import serving

from resjax import checksums

CLIENTS, SECONDS = 30, 2.0


@pytest.fixture(scope='module')
def photographs():
  return serving.photographs()


@pytest.fixture(scope='module')
def dialled(photographs, tmp_path_factory):
  """A server with a deadline, over a network of which it is said that an image takes long."""
  folder = serving.bundled(tmp_path_factory.mktemp('bundle') / 'slow', photographs)
  stored = checksums.of_json((folder / 'costs.json').read_bytes())
  for table in stored['tables']:
    table['seconds'] = [[seconds * size for size in table['of']['buckets']] for seconds in (0.05, 0.02)]
  (folder / 'costs.json').write_bytes(checksums.to_json(stored))
  found = serving.Served(f'--bundle={folder}', '--p95=300ms', '--max-batch=4', '--router=static')
  yield found
  if found.process.poll() is None:
    found.process.kill()
  found.end()


def asked(served, image, end):
  """What a client gets who asks again when it is answered, and waits a moment when it is refused."""
  found = []
  while time.monotonic() < end:
    found.append(served.ask(body=image))
    time.sleep(0.02 * (found[-1][0] != 200))
  return found


def test_under_load_a_deadline_turns_the_resolution_down_and_calm_turns_it_up_again(dialled, photographs):
  """The network is faster than its table says, so the pace falls to its least, 0.2: 10 ms an image at 16 px, 4 at 8."""
  assert 'p95 300 ms; the dial: 16 px (50.0 ms), 8 px (20.0 ms) an image\n' in dialled.lines
  status, answer = dialled.ask(body=photographs[0], path='/predict?budget=0.6')
  assert (status, answer['error']) == (400, 'budget: got 0.6, expected none: the server keeps its deadline of 300 ms')
  status, answer = dialled.ask(body=photographs[0])
  assert (status, answer['resolution']) == (200, '16')
  end = time.monotonic() + SECONDS
  with ThreadPoolExecutor(CLIENTS) as pool:
    clients = list(pool.map(lambda i: asked(dialled, photographs[i % len(photographs)], end), range(CLIENTS)))
  assert {status for found in clients for status, _ in found} <= {200, 429}
  sizes = [answer['resolution'] for found in clients for status, answer in found if status == 200]
  assert len(sizes) > CLIENTS and sizes.count('8') > 0.7 * len(sizes)
  assert 'resjax_dial{step="8 px"} 1.0' in dialled.ask('GET', '/metrics')[1]
  end = time.monotonic() + 20
  while dialled.ask(body=photographs[0])[1].get('resolution') != '16':
    assert time.monotonic() < end
    time.sleep(0.2)
  steps = re.findall(r'resjax_dial{step="(\d+) px"} (\S+)', dialled.ask('GET', '/metrics')[1])
  assert dict(steps) == {'16': '1.0', '8': '0.0'}


def test_when_the_front_is_killed_the_others_end_and_their_folder_is_gone(dialled):
  session, listed = serving.below(dialled)
  (config,) = re.findall(rf'^ *{session} .* (/\S+/mosec/config\.json)$', listed, re.MULTILINE)
  assert pathlib.Path(config).is_file()
  dialled.process.kill()
  dialled.process.wait()
  assert serving.alive(session) == [] and not pathlib.Path(config).parents[1].exists()
