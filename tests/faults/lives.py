"""Runs as groups of processes, and what is left of them: the images they saw, the state they saved.

A run of one process is forked from this one, which has imported all that it needs and started no JAX backend: so ask
for `state` and `differences` when all lives are over. Runs of several processes are commands of their own.
"""

import json
import multiprocessing
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

CACHE = pathlib.Path(tempfile.gettempdir()) / f'resjax-faults-{os.getuid()}'
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(CACHE))
os.environ |= {'JAX_PLATFORMS': 'cpu', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}

import jax  # noqa: E402
import life  # noqa: E402
import numpy as np  # noqa: E402
import sklearn.datasets  # noqa: E402, F401
from orbax.checkpoint import v1 as ocp  # noqa: E402

HERE = pathlib.Path(__file__).parent
PREEMPTED = 75


class Forked:
  """A forked life, with the methods of a Popen."""

  def __init__(self, arguments, devices, log):
    self._process = multiprocessing.get_context('fork').Process(target=self._live, args=(arguments, devices, log))
    self._process.start()
    self.pid = self._process.pid

  @staticmethod
  def _live(arguments, devices, log):
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    os.environ |= variables(devices)
    life.live(*arguments)

  def poll(self):
    return self._process.exitcode

  def wait(self, seconds=None):
    self._process.join(seconds)
    if self._process.exitcode is None:
      raise TimeoutError(f'process {self.pid} still runs after {seconds} s')
    return self._process.exitcode

  def kill(self):
    self._process.kill()


def variables(devices):
  """What the environment must hold for so many virtual devices, quickly compiled for."""
  count = f'--xla_force_host_platform_device_count={devices}'
  return {'XLA_FLAGS': f'{count} --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'}


def start(workdir, *fields, processes=1, devices=1, stop_after=0, pause=0.0):
  """Starts the recipe in `workdir`, as so many processes of so many virtual devices each; returns them."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  notes = pathlib.Path(f'{workdir}.notes')
  notes.mkdir(parents=True, exist_ok=True)
  group = []
  for number in range(processes):
    arguments = [str(notes / f'{number}.jsonl'), str(stop_after), str(pause)]
    arguments += [f'--config={HERE / "recipe.py"}', f'--workdir={workdir}', *fields]
    with open(notes / f'{number}.log', 'ab') as log:
      if processes == 1:
        group.append(Forked(arguments, devices, log))
      else:
        joining = [f'--coordinator=127.0.0.1:{port}', f'--processes={processes}', f'--process_id={number}']
        command = [sys.executable, HERE / 'life.py', *arguments, *joining]
        group.append(subprocess.Popen(command, env=os.environ | variables(devices), stdout=log, stderr=log))
  return group


def finish(group, seconds=600):
  """Waits for a group; returns its exit codes."""
  try:
    return [process.wait(seconds) for process in group]
  finally:
    for process in group:
      process.kill()


def run(workdir, *fields, expected=0, **options):
  """Lives one life to its end."""
  codes = finish(start(workdir, *fields, **options))
  if set(codes) != {expected}:
    raise AssertionError(f'exit codes {codes}, expected {expected}:\n{log(workdir)[-3000:]}')


def log(workdir, number=0):
  """What a process has printed in all its lives."""
  return pathlib.Path(f'{workdir}.notes', f'{number}.log').read_text()


def seen(workdir):
  """The images of each step, `{step: sorted ids of all processes}`; the same in every life, or AssertionError."""
  found = {}
  for path in sorted(pathlib.Path(f'{workdir}.notes').glob('*.jsonl')):
    steps = {}
    for line in path.read_text().splitlines():
      if not line.endswith(']]'):
        continue  # cut short by a kill
      step, ids = json.loads(line)
      assert steps.setdefault(step, ids) == ids, f'{workdir}: step {step} saw other images in another life'
    for step, ids in steps.items():
      found.setdefault(step, []).extend(ids)
  return {step: sorted(ids) for step, ids in sorted(found.items())}


def noted(workdir):
  """The steps whose batches the first process noted in all its lives, in that order."""
  path = pathlib.Path(f'{workdir}.notes', '0.jsonl')
  lines = path.read_text().splitlines() if path.exists() else []
  return [json.loads(line)[0] for line in lines if line.endswith(']]')]


def saved(workdir):
  """The steps that stand in the workdir as complete."""
  root = pathlib.Path(workdir, 'checkpoints')
  return sorted(int(path.name) for path in root.iterdir() if path.name.isdigit()) if root.is_dir() else []


def damage(workdir, step):
  """Cuts the arrays of a step in half."""
  for path in pathlib.Path(workdir, 'checkpoints', str(step), 'state', 'd').iterdir():
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def saving(workdir):
  """Whether a step is just being written."""
  return any(pathlib.Path(workdir, 'checkpoints').glob('*.orbax-checkpoint-tmp'))


def state(workdir):
  """All arrays of the newest step, by path."""
  path = pathlib.Path(workdir).absolute() / 'checkpoints' / str(saved(workdir)[-1])
  shapes = ocp.metadata(path, 'state').metadata
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes)
  loaded = ocp.load_checkpointables(path, {'state': wanted})['state']
  return {jax.tree_util.keystr(name): np.asarray(leaf) for name, leaf in jax.tree.leaves_with_path(loaded)}


def differences(workdir, other):
  """The largest differences between two runs' newest states, each relative to the array's largest entry or 1.

  Of `params`, `batch_stats` and `opt_state` apart.
  """
  ours, theirs = state(workdir), state(other)
  assert ours.keys() == theirs.keys()
  gap = lambda a, b: float(np.abs(a.astype(np.float64) - b).max(initial=0) / max(1, np.abs(b).max(initial=0)))
  kinds = ('params', 'batch_stats', 'opt_state')
  return {kind: max(gap(ours[name], theirs[name]) for name in ours if name.startswith(f"['{kind}']")) for kind in kinds}


def losses(workdir):
  """The training loss of each step."""
  lines = [json.loads(line) for line in pathlib.Path(workdir, 'metrics.jsonl').read_text().splitlines()]
  return {line['step']: line['train/loss'] for line in lines if 'train/loss' in line}
