"""Ends runs in every way and counts what is said: one line, the exit code of docs/reliability.md, nothing lost.

python tests/faults/ends.py interrupted group full worker data damaged reader

Each life is `main.py`, in a session of its own. Ctrl-C comes at five moments of a start with no compiled programs.
Where the run can go on, the same command does, and ends in the arrays of a run that was left alone, bit for bit.
Exits 1 where one of that fails.
"""

import contextlib
import functools
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import lives
import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
COMMAND = [sys.executable, ROOT / 'main.py', f'--config={lives.HERE / "recipe.py"}', '--config.epochs=2']


class Life:
  """A process that trains; what it says on stderr stands in a file."""

  def __init__(self, workdir, *fields, cold=False, **options):
    self.workdir, self._said = workdir, pathlib.Path(f'{workdir}.said')
    environment = os.environ | lives.variables(1)
    if cold:
      environment['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(dir=workdir.parent)
    with self._said.open('wb') as file:
      options = {'stdout': subprocess.DEVNULL, 'stderr': file, 'env': environment, 'start_new_session': True} | options
      self.process = subprocess.Popen([*COMMAND, f'--workdir={workdir}', *fields], **options)

  def until(self, ready, seconds=300):
    """Waits for a moment."""
    deadline = time.monotonic() + seconds
    while not ready():
      assert self.process.poll() is None, f'ended with code {self.process.poll()} before: {self.text()[-3000:]}'
      assert time.monotonic() < deadline, f'not reached: {self.text()[-3000:]}'
      time.sleep(0.002)

  def text(self):
    """All that was said."""
    return self._said.read_text()

  def end(self, code, lines=1):
    """Waits; returns what was said besides the bar of progress, and refuses another code or other numbers of lines."""
    try:
      got = self.process.wait(300)
    finally:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(self.process.pid, signal.SIGKILL)
    lines_said = self.text().replace('\r', '\n').splitlines()
    slow = 'Waiting for previous save to complete'  # Orbax's, on a machine with other work
    said = [line for line in lines_said if line.strip() and line[:6] != 'epoch ' and slow not in line]
    assert got == code and len(said) == lines, (got, len(said), '\n'.join(said)[-3000:])
    return said


def alike(workdir, *fields, like):
  """Lets a run go on, and compares it with one that was left alone."""
  Life(workdir, *fields).end(0, 0)
  ours, theirs = lives.state(workdir), lives.state(like)
  assert ours.keys() == theirs.keys() and all((ours[name] == theirs[name]).all() for name in ours), workdir
  return f'goes on, {len(ours)} arrays bit-identical'


def undisturbed(root, *fields):
  """A run that was left alone."""
  if not lives.saved(workdir := root / 'whole'):
    Life(workdir, *fields).end(0, 0)
  return workdir


def interrupted(root):
  """Ctrl-C at five moments of a cold start."""
  moments = {
    'imports': lambda life: life.until(lambda: time.monotonic() > begin + 0.5),
    'start': lambda life: life.until((life.workdir / '.lock').exists),
    'compiling': lambda life: (life.until((life.workdir / 'checkpoints').is_dir), time.sleep(1)),
    'steps': lambda life: life.until(lambda: 'step 1/' in life.text()),
    'save': lambda life: life.until(lambda: lives.saving(life.workdir)),
  }
  for name, reach in moments.items():
    begin = time.monotonic()
    life = Life(root / name, cold=True)
    reach(life)
    life.process.send_signal(signal.SIGINT)
    print(
      f'Ctrl-C, {name}: code 130: {life.end(130)[0][:7]}; {alike(life.workdir, like=undisturbed(root))}', flush=True
    )


def group(root):
  """A signal to all processes of a run with workers."""
  workers = '--config.data.workers=2'
  for number, code in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
    life = Life(root / number.name, workers)
    life.until(lambda life=life: lives.saved(life.workdir))
    os.killpg(life.process.pid, number)
    life.end(code)
    print(f'{number.name} to all: code {code}; {alike(life.workdir, workers, like=undisturbed(root))}', flush=True)


def full(root):
  """A disk that takes no file of more than 8 KB."""
  limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (8192, 8192))
  said = Life(root / 'full', preexec_fn=limit).end(1)
  assert 'expected a folder with room' in said[0], said
  print(
    f'a full disk: code 1: {said[0].partition(": ")[0]}; {alike(root / "full", like=undisturbed(root))}', flush=True
  )


def children(pid):
  """The processes that decode."""
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    with contextlib.suppress(OSError):
      parent = path.read_text().rpartition(')')[2].split()[1]
      if int(parent) == pid and 'spawn_main' in (path.parent / 'cmdline').read_text():
        found.append(int(path.parent.name))
  return found


def worker(root):
  """A process that decodes is killed."""
  workers = '--config.data.workers=2'
  life = Life(root / 'worker', workers)
  life.until(lambda: lives.saved(life.workdir))
  os.kill(children(life.process.pid)[0], signal.SIGKILL)
  said = life.end(1)
  assert said[0].startswith('error: config.data.workers: a process that decodes ended with code -9'), said
  print(f'a decoding process killed: code 1; {alike(life.workdir, workers, like=undisturbed(root))}', flush=True)


def folder(path):
  """Photographs of noise in two classes; returns the fields of a run on them."""
  noise = np.random.default_rng(0)
  for split, count in (('train', 320), ('val', 40)):
    for number in range(count):
      image = path / split / 'ab'[number % 2] / f'{number}.png'
      image.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(noise.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(image)
  return ['--config.data.source=folder', f'--config.data.dir={path}', '--config.data.eval_split=val',
          '--config.model.num_classes=2', '--config.epochs=4']  # fmt: skip


def data(root):
  """Images are deleted, and others put in their places, during a run."""
  fields = folder(root / 'images')
  shutil.copytree(root / 'images', root / 'copy')
  (root / 'data').mkdir()
  whole = undisturbed(root / 'data', *fields)
  for name in ('deleted', 'replaced'):
    life = Life(root / name, *fields)
    life.until(lambda life=life: lives.saved(life.workdir))
    for image in (root / 'images' / 'train').glob('*/*.png'):
      image.unlink()
      if name == 'replaced':
        image.write_bytes(b'no image')
    code, said = life.process.wait(300), life.text()
    assert 'Traceback' not in said and code == 1, (code, said[-3000:])
    last = said.strip().splitlines()[-1]
    if name == 'replaced':
      refusal = Life(root / name, *fields).end(1)
      assert 'other data' in refusal[0], refusal
    shutil.rmtree(root / 'images')
    shutil.copytree(root / 'copy', root / 'images')
    print(f'data {name}: code 1: {last[:60]}...; {alike(root / name, *fields, like=whole)}', flush=True)


def damaged(root):
  """The newest step is cut in half."""
  whole = undisturbed(root)
  run = root / 'damaged'
  life = Life(run)
  life.until(lambda: len(lives.saved(run)) >= 2)
  life.process.send_signal(signal.SIGTERM)
  life.end(75)
  lives.damage(run, lives.saved(run)[-1])
  said = Life(run).end(0)
  assert 'moved to' in said[0], said
  print(f'a damaged step: code 0, one line; {alike(run, like=whole)}', flush=True)


def reader(root):
  """Who reads the output is gone."""
  whole = undisturbed(root)
  read, write = os.pipe()
  os.close(read)
  life = Life(whole, stdout=write)
  os.close(write)
  life.end(141, 0)
  print('the reader gone: code 141, nothing said', flush=True)


def main():
  """Runs what the arguments name."""
  ways = (interrupted, group, full, worker, data, damaged, reader)
  root = pathlib.Path(tempfile.mkdtemp(prefix='resjax-ends-'))
  failed = False
  for way in ways:
    if way.__name__ in (sys.argv[1:] or [way.__name__]):
      try:
        way(root)
      except AssertionError as error:
        failed = True
        print(f'FAILED {way.__name__}: {error}', flush=True)
  shutil.rmtree(root, ignore_errors=True)
  sys.exit(failed)


if __name__ == '__main__':
  main()
