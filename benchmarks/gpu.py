"""All that is measured on a GPU, by one command, as JSON, of which tables.py makes tables of docs/performance.md.

  pip install -e '.[gpu,test]'
  python benchmarks/gpu.py --json=docs/measured/gpu.json                       # under 8 minutes: what there is time for
  python benchmarks/gpu.py --json=docs/measured/gpu.json --seconds=2800        # all, by the parts' limits
  python benchmarks/gpu.py --json=docs/measured/gpu.json --only=routing,layers # these again; others stay in the file
  python benchmarks/gpu.py --json=gpu.json --small                             # in small form, on any machine

Parts, about in this order: what the device can do at most (ceiling), the training step of RS-Net (train) and the same
in PyTorch (torch), DRNet (drnet), layers, routing, memory in two passes and with rematerialisation, other batch sizes.
Each is a process of its own with a limit of time. One that fails is told as an error, one without time is left out, and
the others go on; the file is written after each. torch.compile works beside the first parts; it is timed alone.
"""

import argparse
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import figures
from gpu_figures import FIGURE

CHILD = pathlib.Path(__file__).with_name('gpu_parts.py')
ROOT = CHILD.parents[1]
PACKAGES = ('jax', 'jaxlib', 'jax-cuda13-plugin', 'nvidia-cudnn-cu13', 'flax', 'torch', 'triton', 'numpy')
SIZES = [224, 192, 160, 128, 96]


class Part(NamedTuple):
  """Something to be measured."""

  name: str
  child: str  # what gpu_parts.py calls it
  options: dict[str, Any]
  most: float = 120  # seconds, then it is ended
  least: float = 20  # with fewer left it is not begun
  beside: bool = False  # it prepares itself beside other parts
  alone: bool = False  # it needs the device's memory: what prepares itself comes first


def full(data: str) -> list[Part]:
  """Returns the parts, those of most worth first.

  Args:
    data: A folder `train/CLASS/*.jpg`, or ''.
  """
  common = {'resolutions': SIZES, 'classes': 1000, 'dtype': 'bfloat16', 'rounds': 5, 'round_s': 0.5}
  r18, r50 = ({**common, 'model': f'resnet{depth}', 'batch': 256, 'batches': [256]} for depth in (18, 50))
  routed = {'resolutions': [224, 160, 96], 'mix': [0.4, 0.3, 0.3], 'buckets': [16, 32, 64, 128, 256, 512]}
  loaded = {'loader': True, 'loader_steps': 40, 'profile': True}
  parts = [
    Part('ceiling', 'ceiling', {**common, 'size': 8192, 'copy_mib': 1024}, 60, 10),
    Part('torch resnet18', 'torch', {**r18, 'compiled': True}, 400, 60, beside=True),
    Part('train resnet18', 'train', {**r18, **loaded}, 240, 60),
    Part('train resnet50', 'train', {**r50, 'profile': True}, 300, 130, alone=True),
    Part('torch resnet50', 'torch', {**r50, 'compiled': False}, 90, 25, alone=True),
    Part('drnet', 'drnet', {'steps': 4, 'quickstart': True}, 200, 60),
    Part('layers', 'layers', {**common, 'batch': 128, 'size': 112, 'round_s': 0.1}, 60, 15),
    Part('routing resnet50', 'routing', {**r50, **routed, 'batches': [512, 2048]}, 240, 60, alone=True),
    *(
      Part(f'{way} resnet50', 'train', {**r50, 'way': way}, 240, 60, alone=True)
      for way in ('two_pass', 'remat convolutions', 'remat all')
    ),
    Part('batches resnet18', 'train', {**r18, 'batches': [64, 512]}, 240, 60, alone=True),
    Part('batches resnet50', 'train', {**r50, 'batches': [64, 512]}, 300, 90, alone=True),
    Part('torch resnet50 compiled', 'torch', {**r50, 'compiled': True}, 300, 90, alone=True),
  ]
  if data:
    of_data = {**r18, 'loader': True, 'loader_steps': 20, 'data': str(pathlib.Path(data).resolve())}
    parts.append(Part('data resnet18', 'train', of_data, 240, 60, alone=True))
  return parts


def small() -> list[Part]:
  """Returns the parts in small form: seconds, on any machine; no figure means anything."""
  common = {'resolutions': [16, 8], 'classes': 5, 'dtype': 'bfloat16', 'rounds': 2, 'round_s': 0.01}
  tiny = {**common, 'model': 'resnet_small', 'batch': 4, 'batches': [4]}
  digits = {'batch_size': 8, 'resolutions': (16, 8)}
  return [
    Part('ceiling', 'ceiling', {**common, 'size': 64, 'copy_mib': 1}),
    Part('torch resnet_small', 'torch', {**tiny, 'compiled': False}, beside=True),
    Part('layers', 'layers', {**common, 'batch': 2, 'size': 8}),
    Part('train resnet_small', 'train', {**tiny, 'loader': True, 'loader_steps': 4, 'profile': True}),
    Part('drnet', 'drnet', {'steps': 2, 'quickstart': False, 'config': digits}),
    Part('routing resnet_small', 'routing', {**tiny, 'mix': [0.5, 0.5], 'buckets': [1, 4], 'batches': [4]}),
    *(Part(f'{w} resnet_small', 'train', {**tiny, 'way': w}, alone=True) for w in ('two_pass', 'remat all')),
  ]


class Child:
  """A part at work."""

  def __init__(self, part: Part, environment: dict[str, str]):
    """Starts it."""
    self.part, self.figures, self.begin = part, [], time.monotonic()
    self.ready = threading.Event()  # it waits for its turn, or has ended
    self.errors = tempfile.TemporaryFile('w+')
    self.process = subprocess.Popen(
      [sys.executable, CHILD, part.child, json.dumps(part.options)],
      env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
      text=True, start_new_session=True,
    )  # fmt: skip
    self.listener = threading.Thread(target=self._listen, daemon=True)
    self.listener.start()

  def _listen(self) -> None:
    for line in self.process.stdout:
      if line.startswith(FIGURE):
        self.figures.append(json.loads(line[len(FIGURE) :]))
        say(f'  {line[len(FIGURE) :].strip()[:160]}')
      elif line == 'READY\n':
        self.ready.set()
    self.ready.set()

  def end(self, seconds: float) -> dict[str, Any]:
    """Lets it go on where it waits for its turn, and returns what it found; it is ended when the seconds are over."""
    self.process.stdin.close()
    result: dict[str, Any] = {'figures': self.figures}
    try:
      code = self.process.wait(max(1, seconds))
    except subprocess.TimeoutExpired:
      result['error'] = f'not done after {time.monotonic() - self.begin:.0f} s'
    else:
      self.errors.seek(0)
      lines = self.errors.read().splitlines()
      if code:
        say('\n'.join(lines[-30:]))
        result['error'] = f'exit code {code}: {lines[-1][:300] if lines else ""}'
    self.kill()
    return result | {'options': self.part.options, 'seconds': time.monotonic() - self.begin}

  def kill(self) -> None:
    """Ends it and all that it started."""
    try:
      os.killpg(self.process.pid, signal.SIGKILL)
    except ProcessLookupError:
      pass
    self.process.wait()
    self.listener.join(5)
    for file in (self.process.stdin, self.process.stdout, self.errors):
      file.close()


def measure(
  parts: list[Part], file: pathlib.Path, seconds: float, environment: dict[str, str], others: tuple[str, ...] = ()
) -> dict[str, Any]:
  """Runs the parts that there is time for, and returns and writes what the file holds then.

  Args:
    parts: To be run.
    file: With figures of other runs, or to be made.
    seconds: That there are.
    environment: Of the parts' processes.
    others: Names of parts that are left for another run; the file says so of those that it has nothing of.
  """
  begin, here = time.monotonic(), machine()
  found = json.loads(file.read_text()) if file.exists() else {'machine': here, 'parts': {}}
  if found['machine']['gpu'] != here['gpu']:
    say(f'{file} is of {found["machine"]["gpu"]}: its figures are dropped')
    found['parts'] = {}
  found['machine'] = here
  found['parts'] = {name: {'skipped': 'not tried'} for name in others} | found['parts']
  beside = [Child(part, environment) for part in parts if part.beside]

  def left() -> float:
    return seconds - (time.monotonic() - begin)

  def keep(part: Part, result: dict[str, Any]) -> None:
    say(f'{part.name}: {result.get("error") or result.get("skipped") or "done"}, {left():.0f} s left')
    if worth(result) >= worth(found['parts'].get(part.name, {})):
      found['parts'][part.name] = result  # what was found before is not lost to a failure
    file.write_text(json.dumps(found, indent=1) + '\n')

  def turn(wait: bool) -> None:
    for child in beside[:]:
      if child.ready.wait(max(0.0, min(child.part.most, left())) if wait else 0):
        beside.remove(child)
        keep(child.part, child.end(min(child.part.most, left())))

  queue = [part for part in parts if not part.beside]
  try:
    while queue:
      turn(wait=False)
      part = next((part for part in queue if not (part.alone and beside)), queue[0])
      queue.remove(part)
      turn(wait=part.alone)
      if left() < part.least:
        keep(part, {'skipped': f'no time: {max(0.0, left()):.0f} s left'})
        continue
      say(f'{part.name} ...')
      keep(part, Child(part, environment).end(min(part.most, left())))
    turn(wait=True)
    for child in beside:
      keep(child.part, child.end(1))
  finally:
    for child in beside:
      child.kill()
  return found


def worth(result: dict[str, Any]) -> int:
  """Returns 2 for all figures of a part, 1 for those before it failed, 0 for none."""
  return 0 if not result.get('figures') else 1 if result.get('error') else 2


def machine() -> dict[str, Any]:
  """Returns what the figures depend on."""
  query = ['nvidia-smi', '--query-gpu=name,driver_version,memory.total', '--format=csv,noheader']
  try:
    gpu = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()[0]
  except (OSError, subprocess.SubprocessError, IndexError):
    gpu = 'none'
  lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines() if os.path.exists('/proc/cpuinfo') else []
  names = [line.split(':')[1].strip() for line in lines if line.startswith('model name')]
  versions = {'python': platform.python_version(), **figures.versions(*PACKAGES)}
  flags = os.environ.get('XLA_FLAGS', '')
  return {'gpu': gpu, 'cpu': names[0] if names else '', 'cpus': os.cpu_count(), 'versions': versions, 'flags': flags}


def say(line: str) -> None:
  """Prints progress."""
  print(line, file=sys.stderr, flush=True)


def main() -> None:
  """Measures."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--json', required=True, help='the file; what other runs left in it stays')
  parser.add_argument('--seconds', type=float, default=470, help='in all (%(default)s)')
  parser.add_argument('--only', default='', help='parts whose names begin so, such as train,torch resnet50')
  parser.add_argument('--data', default='', help='a folder train/CLASS/*.jpg, for the way from files to the device')
  parser.add_argument('--small', action='store_true', help='in small form: seconds, no figure means anything')
  options = parser.parse_args()
  parts = small() if options.small else full(options.data)
  chosen = [part for part in parts if part.name.startswith(tuple(options.only.split(',')))]
  if not chosen:
    parser.error(f'--only: got {options.only!r}, expected some of {", ".join(part.name for part in parts)}')
  file = pathlib.Path(options.json)
  file.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory() as cache:
    paths = [str(ROOT), str(ROOT / 'tests'), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false', 'PYTHONPATH': os.pathsep.join(paths)}
    if not options.small:  # what is tried of an algorithm for the joint step is known to the others
      cached = f'--xla_gpu_per_fusion_autotune_cache_dir={cache}'
      environment['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {cached}'.strip()
    others = tuple(part.name for part in parts if part not in chosen)
    measure(chosen, file, options.seconds, environment, others)


if __name__ == '__main__':
  main()
