"""A served network under load from a second process: how fast, what happens at its limits, what the dial costs.

  python benchmarks/serving.py --workdir=runs/pretrained --images=DIR [--parts=throughput,deadline] [--json=FILE]

DIR has a folder for each class, called by its index. Some minutes; the network needs a calibration. Rows of one part
are measured in turns. Clients and server share the processor: what is comparable are the rows of one run. Statuses are
those of HTTP; 0: no connection, -1: it broke before an answer came.
"""

import argparse
import collections
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

import serving_hostile  # noqa: E402

from resjax.inference import Classifier  # noqa: E402
from resjax.inference.runtime import processor, processors  # noqa: E402

CLIENTS, HOSTILE, TURNS = 16, 500, 3
UNITS = {'images_a_second': 'images/s', 'p50_ms': 'ms p50', 'p95_ms': 'ms p95'}


class Server:
  """`resjax serve`, started and ready."""

  def __init__(self, workdir: str, *options: str):
    command = [sys.executable, '-m', 'resjax', 'serve', f'--workdir={workdir}', '--port=0', *options]
    surroundings = os.environ | {'PYTHONPATH': str(ROOT)}
    self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=surroundings)
    self.said = ''
    assert self.process.stderr is not None
    for line in self.process.stderr:
      self.said += line
      if ready := re.match(r'ready on http://127\.0\.0\.1:(\d+)', line):
        self.port = int(ready[1])
        self.url = f'http://127.0.0.1:{self.port}/predict'
        return
    raise SystemExit(f'error: no server: {self.said}')

  def processes(self) -> list[tuple[int, str, float]]:
    """Those below it: number, command, and MB in memory."""
    rows = subprocess.run(['ps', '-e', '-o', 'pid=,ppid=,sid=,stat=,rss=,args='], capture_output=True, text=True).stdout
    split = [row.split(None, 5) for row in rows.splitlines()]
    sessions = {row[2] for row in split if row[1] == str(self.process.pid)}
    mine = [row for row in split if row[2] in sessions or row[0] == str(self.process.pid)]
    return [(int(row[0]), row[5], int(row[4]) / 1024) for row in mine if row[3][0] != 'Z']

  def end(self) -> tuple[float, str]:
    """Ends it; the seconds that took, and what it said."""
    begin = time.monotonic()
    self.process.send_signal(signal.SIGTERM)
    rest = self.process.communicate(timeout=60)[1]
    return time.monotonic() - begin, rest


def load(server: Server, images: Sequence[pathlib.Path], seconds: float, **how: Any) -> subprocess.Popen:
  """Starts clients in a process of their own."""
  asked = {'url': server.url, 'images': [str(path) for path in images], 'seconds': seconds, 'seed': 0, **how}
  command = [sys.executable, str(ROOT / 'benchmarks' / 'serving_load.py')]
  process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  assert process.stdin is not None
  process.stdin.write(json.dumps(asked))
  process.stdin.close()
  return process


def found(process: subprocess.Popen) -> list[list[Any]]:
  """What came of it."""
  assert process.stdout is not None
  rows = json.loads(process.stdout.read())
  process.wait()
  return rows


def summary(rows: list[list[Any]], images: Sequence[pathlib.Path]) -> dict[str, Any]:
  """Counts, images a second, milliseconds of those that were answered, how many are right, and where they ran."""
  good = [row for row in rows if row[3] == 200]
  took = np.array([row[2] for row in good]) * 1e3
  end = max(row[1] + row[2] for row in rows)
  right = [int(images[row[0]].parent.name) == row[4] for row in good]
  return {
    'requests': len(rows),
    'statuses': dict(sorted(collections.Counter(row[3] for row in rows).items())),
    'images_a_second': len(good) / end,
    'p50_ms': float(np.quantile(took, 0.5)),
    'p95_ms': float(np.quantile(took, 0.95)),
    'top1': float(np.mean(right)),
    'resolutions': dict(sorted(collections.Counter(row[5] for row in good).items(), key=lambda each: -int(each[0]))),
  }


def answers(server: Server, workdir: str, images: Sequence[pathlib.Path], asked: dict[str, str]) -> dict[str, Any]:
  """How the server's answers compare with those of `resjax predict`."""
  classifier = Classifier.load(workdir, max_batch=16)
  expected = classifier.predict([str(path) for path in images], **asked)
  differences, other = [], 0
  for path, prediction in zip(images, expected, strict=True):
    answer = ask(server, '/predict', path.read_bytes())[1]
    same = (answer['label'], answer['resolution'], answer['macs'])
    other += same != (prediction.label, str(prediction.resolution), prediction.macs)
    differences.append(abs(answer['probability'] - (prediction.probability or 0)))
  return {'images': len(images), 'other_class_resolution_or_cost': other, 'probability': max(differences)}


def ask(server: Server, path: str, body: bytes, kind: str = 'image/jpeg') -> tuple[int, Any]:
  """One request: status and answer; the server may close while a body that is too large is sent."""
  connection = http.client.HTTPConnection('127.0.0.1', server.port, timeout=60)
  try:
    connection.request('POST', path, body, {'Content-Type': kind})
  except (BrokenPipeError, ConnectionResetError):
    pass
  response = connection.getresponse()
  content = response.read()
  connection.close()
  return response.status, json.loads(content)


def hostile(server: Server, images: Sequence[pathlib.Path]) -> dict[str, Any]:
  """What becomes of uploads that were made to harm, and of the server."""
  good = [path.read_bytes() for path in images[:50]]
  before, statuses, most = server.processes(), collections.Counter(), 0.0
  first = ask(server, '/predict', good[0])
  for number, (path, body, kind) in enumerate(serving_hostile.uploads(good, HOSTILE)):
    statuses[ask(server, path, body, kind)[0]] += 1
    if number % 5 == 0:
      most = max(most, sum(each[2] for each in server.processes()))
  after = server.processes()
  return {
    'uploads': HOSTILE,
    'statuses': dict(sorted(statuses.items())),
    'same_processes': [each[0] for each in before] == [each[0] for each in after],
    'MB_before_most_after': [
      round(sum(each[2] for each in before)),
      round(most),
      round(sum(each[2] for each in after)),
    ],
    'good_image_as_before': ask(server, '/predict', good[0]) == first,
  }


def ended(server: Server, images: Sequence[pathlib.Path]) -> dict[str, Any]:
  """SIGTERM while clients ask."""
  clients = load(server, images, 20, clients=CLIENTS)
  time.sleep(5)
  below = {each[0] for each in server.processes()}
  took, said = server.end()
  rows = found(clients)
  time.sleep(1)  # those that the kernel is ending
  processes = subprocess.run(['ps', '-e', '-o', 'pid=,stat='], capture_output=True, text=True).stdout.splitlines()
  living = {int(row.split()[0]) for row in processes if row.split()[1][0] != 'Z'}
  with socket.socket() as opened:
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind(('127.0.0.1', server.port))
  return {
    'statuses': dict(sorted(collections.Counter(row[3] for row in rows).items())),
    'seconds': took,
    'exit_code': server.process.returncode,
    'left': len(living & below),
    'said': said.strip().splitlines(),
  }


def fixed_and_routed(run: 'Run') -> Any:
  """Clients that ask again when they are answered."""
  return turns(run, {'fixed': (), 'routed': run.budgets}, TURNS, run.options.seconds, clients=CLIENTS)


def overload(run: 'Run') -> Any:
  """Three times what the largest resolution bears."""
  return turns(run, {'fixed': ()}, 1, run.options.seconds, rate=3 * run.bears())


def deadline(run: 'Run') -> Any:
  """More than the largest resolution bears, for some time, with and without the dial."""
  options = run.options
  dial = (f'--p95={options.p95}', f'--min-resolution={options.min_resolution}')
  return turns(run, {'fixed': (), 'dial': dial}, 2, 2 * options.seconds, rate=options.load * run.bears())


def turns(run: 'Run', servers: dict[str, tuple[str, ...]], count: int, seconds: float, **how: Any) -> Any:
  """Loads servers in turns, prints a line for each."""
  rows: dict[str, list[Any]] = {name: [] for name in servers}
  for turn in range(count):
    for name, arguments in servers.items():
      row = summary(found(load(run.server(*arguments), run.images, seconds, seed=turn, **how)), run.images)
      rows[name].append(row)
      numbers = ', '.join(f'{row[key]:.1f} {unit}' for key, unit in UNITS.items())
      print(
        f'  {name:8} {numbers}, top-1 {100 * row["top1"]:.1f} %; {row["statuses"]}; {row["resolutions"]}', flush=True
      )
  return rows


class Run:
  """What the parts share: images, servers that are started when first wanted, results."""

  def __init__(self, options: argparse.Namespace):
    self.options, self.results = options, {}
    self.images = sorted(pathlib.Path(options.images).glob('[0-9]*/*'))
    self.budgets = (f'--budget={options.budget}', f'--router={options.router}')
    self._servers: dict[tuple[str, ...], Server] = {}

  def server(self, *arguments: str) -> Server:
    """The server with these arguments."""
    if arguments not in self._servers:
      self._servers[arguments] = Server(self.options.workdir, *arguments)
      print('\n'.join(f'  {line}' for line in self._servers[arguments].said.splitlines()[:-1]), end='', flush=True)
    return self._servers[arguments]

  def bears(self) -> float:
    """Images a second that the largest resolution bears."""
    if 'throughput' not in self.results:
      return turns(self, {'fixed': ()}, 1, self.options.seconds, clients=CLIENTS)['fixed'][0]['images_a_second']
    return float(np.median([each['images_a_second'] for each in self.results['throughput']['fixed']]))

  def end(self) -> None:
    """Ends the servers."""
    for server in self._servers.values():
      if server.process.poll() is None:
        server.end()


PARTS = {
  'answers': lambda run: {
    name: answers(run.server(*arguments), run.options.workdir, run.images[:: len(run.images) // 100][:100], asked)
    for name, arguments, asked in (
      ('fixed', (), {}),
      ('routed', run.budgets, {'budget': run.options.budget, 'router': run.options.router}),
    )
  },
  'throughput': fixed_and_routed,
  'overload': overload,
  'deadline': deadline,
  'hostile': lambda run: hostile(run.server(), run.images),
  'end': lambda run: ended(run.server(), run.images),
}


def main() -> None:
  """Prints what each part finds, and writes JSON."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', required=True)
  parser.add_argument('--images', required=True)
  parser.add_argument('--parts', default=','.join(PARTS), help='some of them (%(default)s)')
  parser.add_argument('--budget', default='0.5')
  parser.add_argument('--router', default='detail')
  parser.add_argument('--p95', default='250ms')
  parser.add_argument('--min-resolution', default='128')
  parser.add_argument('--load', type=float, default=1.5, help='of what the largest resolution bears, for the deadline')
  parser.add_argument('--seconds', type=float, default=10, help='of one turn')
  parser.add_argument('--json')
  run = Run(parser.parse_args())
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and the servers with it
  run.results = {'machine': f'{processors()} processors of {processor()}', 'options': vars(run.options)}
  print(run.results['machine'], flush=True)
  try:
    for part in run.options.parts.split(','):
      print(part, flush=True)
      run.results[part] = PARTS[part](run)
      if part not in ('throughput', 'overload', 'deadline'):
        print(f'  {json.dumps(run.results[part])}', flush=True)
      if run.options.json:
        pathlib.Path(run.options.json).write_text(json.dumps(run.results, indent=1) + '\n')
  finally:
    run.end()


if __name__ == '__main__':
  main()
