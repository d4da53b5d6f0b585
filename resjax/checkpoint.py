"""A run's checkpoints without its training: read, damage told from a disk that refuses; a network written as one."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from resjax import checksums, formats, logs, moved, paths
from resjax.logs import news_only
from resjax.switchable import Variables

with logs.untouched():  # it logs while it is imported
  from orbax.checkpoint import v1 as ocp

_T = TypeVar('_T')

# What `read_apart` runs, and how it ends.
_APART = """
import pathlib, sys
from resjax import checkpoint
try:
  checkpoint.read_all(pathlib.Path(sys.argv[1]))
except (ValueError, OSError) as error:
  print(error)
  sys.exit(3 if isinstance(error, ValueError) else 4)
"""
_CODES = {3: ValueError, 4: OSError}

# So often a run may delete what is being read.
_TRIES = 20

# What is saved beside every state.
_META: dict[str, tuple[type, ...]] = {
  'config': (dict,),
  'class_names': (list, tuple),
  'train_seconds': (float, int),
  'finished': (bool,),
  'images': (int,),
  'epochs': (float, int),
  'history': (list, tuple),
  'data': (dict,),
}


def load_meta(workdir: str | pathlib.Path, *, step: int | None = None) -> dict[str, Any]:
  """Returns what was saved beside the state: `config`, `class_names`, `train_seconds`, `finished`; and its `step`.

  There is also the `format`; without it, it is 0.

  Args:
    workdir: The run's folder; only read, also while the run goes on.
    step: One of those saved; None: the latest.

  Raises:
    FileNotFoundError: There is no such checkpoint.
    ValueError: It is damaged, or a newer version wrote it.
    OSError: The disk does not let it be read.
  """
  return _latest(_meta, workdir, step)


def _meta(path: pathlib.Path) -> dict[str, Any]:
  """What stands beside the state in the folder of a step."""
  whole(lambda: checksums.verify(path, 'meta/'), path)
  meta = whole(lambda: ocp.load_checkpointables(paths.literal(path), {'meta': None}), path)['meta']
  return checked(meta, path) | {'step': int(path.name)}


class Saved(NamedTuple):
  """What a checkpoint holds for who does not train on."""

  variables: Variables  # `params`, the averaged ones where the run keeps them, and `batch_stats`
  meta: dict[str, Any]  # see `load_meta`


def load(
  workdir: str | pathlib.Path, *, step: int | None = None, sharding: jax.sharding.Sharding | None = None
) -> Saved:
  """Returns the variables that a run's evaluation uses, and what was saved with them; no optimiser's state is read.

  Args:
    workdir: The run's folder; only read, also while the run goes on.
    step: One of those saved; None: the latest.
    sharding: Where the arrays stand; None: on this process's first device.

  Raises:
    FileNotFoundError: There is no such checkpoint.
    ValueError: It is damaged, or a newer version wrote it.
    OSError: The disk does not let it be read.
  """
  return _latest(lambda path: _saved(path, sharding or _here()), workdir, step)


def _saved(path: pathlib.Path, sharding: jax.sharding.Sharding) -> Saved:
  """What the folder of a step holds."""
  whole(lambda: checksums.verify(path), path)
  shapes = _shapes(path)
  averaged = 'params' if shapes['ema'] is None else 'ema'
  whole_average = _holds_statistics(shapes['ema'])
  names = ('ema',) if whole_average else (averaged, 'batch_stats')
  loaded = _read(path, {name: shapes[name] for name in names}, sharding)
  meta, state = checked(loaded['meta'], path), loaded['state']
  variables = state['ema'] if whole_average else {'params': state[averaged], 'batch_stats': state['batch_stats']}
  return Saved(variables, meta | {'step': int(path.name)})


def checked(meta: Any, path: str | pathlib.Path) -> dict[str, Any]:
  """Returns what was saved beside a state, if it is what this version reads.

  Args:
    meta: As of `load_meta`.
    path: What messages call the checkpoint.

  Raises:
    ValueError: Something in it is of another kind, or a newer version wrote it.
  """
  if not isinstance(meta, dict):
    raise ValueError(f'{path}: damaged, got {meta!r} beside the state, expected a dict')
  formats.check(meta.get('format', 0), path)
  for name, kinds in _META.items():
    if name in meta and not isinstance(meta[name], kinds):
      kind = ' or '.join(kind.__name__ for kind in kinds)
      raise ValueError(f'{path}: damaged, got {name} {meta[name]!r}, expected a {kind}')
  return meta


def averages_statistics(path: pathlib.Path) -> bool:
  """Whether the state in the folder of a step has an average, and that is of BatchNorm's statistics too.

  Raises:
    ValueError: The step is damaged.
    OSError: The disk does not let it be read.
  """
  return _holds_statistics(_shapes(path)['ema'])


def _holds_statistics(ema: Any) -> bool:
  """Whether a saved average is of statistics too; before version 0.2 it was of the parameters alone."""
  return ema is not None and 'batch_stats' in ema


def write(workdir: str | pathlib.Path, variables: Variables, meta: dict[str, Any]) -> None:
  """Writes a network that no training goes on with as the checkpoint of step 0.

  Args:
    workdir: Its folder, made if it is missing.
    variables: `params` and `batch_stats`.
    meta: JSON values, see `load_meta`.

  Raises:
    FileExistsError: The workdir has checkpoints already.
    OSError: It can't be written.
  """
  root = paths.local(workdir, 'workdir').absolute() / 'checkpoints'
  if root.exists():
    raise FileExistsError(f'workdir: {workdir} holds a run already, expected a new folder')
  root.mkdir(parents=True)
  state = variables | {'step': np.zeros((), np.int32), 'opt_state': (), 'ema': None}
  with news_only():
    ocp.save_checkpointables(paths.literal(root / '0'), {'state': state, 'meta': meta})
  checksums.seal(root / '0')


def read_all(path: pathlib.Path) -> None:
  """Reads every file and every array in the folder of a step, and forgets it; errors as of `whole`."""
  whole(lambda: checksums.verify(path), path)
  _read(path, _shapes(path), _here())


def read_apart(path: pathlib.Path) -> None:
  """Does `read_all` in a process of its own, on its CPU; errors as of `whole`.

  Orbax counts what a process reads, and hosts that have not read equally often wait for each other in vain.
  """
  environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': os.pathsep.join(sys.path)}
  done = subprocess.run([sys.executable, '-c', _APART, path], env=environment, capture_output=True, text=True)
  if done.returncode in _CODES:
    raise _CODES[done.returncode](done.stdout.strip().splitlines()[-1])
  if done.returncode:
    last = next(iter(done.stderr.strip().splitlines()[-1:]), '')
    raise OSError(f'{path}: the process that reads it ended with code {done.returncode}: {last[:400]}')


def whole(read: Callable[[], _T], path: str | pathlib.Path) -> _T:
  """Returns what a read of a checkpoint gives.

  Args:
    read: By Orbax.
    path: What messages call the checkpoint.

  Raises:
    ValueError: It is damaged, or not what was asked for.
    OSError: The disk does not let it be read.
  """
  try:
    with news_only(), logs.untouched():
      return read()
  except Exception as error:  # Orbax and TensorStore raise many kinds
    logs.leave_out_leftovers()
    if refusal := _refusal(_root_of(error), path):
      raise OSError(f'{path}: {reason(refusal)}; expected a folder that can be read, and memory for it') from error
    raise ValueError(f'{path}: {reason(error)}; expected a whole checkpoint that fits the config') from error


def reason(error: BaseException) -> str:
  """Returns the first line of what caused an error, not too long."""
  error = _root_of(error)
  return next(iter(str(error).split(' [tensorstore_spec')[0].splitlines()), type(error).__name__)[:400]


def _path(workdir: str | pathlib.Path, step: int | None) -> pathlib.Path:
  """The folder of a complete step."""
  root = paths.local(workdir, 'workdir').absolute() / 'checkpoints'
  if not root.is_dir():
    raise FileNotFoundError(f'no checkpoints in {workdir}, expected the workdir of a run')
  steps = sorted(int(path.name) for path in root.iterdir() if path.name.isdecimal())
  if not steps:
    raise FileNotFoundError(f'no complete checkpoint in {workdir} yet')
  if step is not None and step not in steps:
    raise FileNotFoundError(f'no checkpoint of step {step} in {workdir}, expected one of {", ".join(map(str, steps))}')
  return root / str(steps[-1] if step is None else step)


def _latest(read: Callable[[pathlib.Path], _T], workdir: str | pathlib.Path, step: int | None) -> _T:
  """Reads a step, or the latest: where a run that goes on deletes that meanwhile, the one that is the latest then."""
  for _ in range(_TRIES):
    path = _path(workdir, step)
    try:
      return read(path)
    except (ValueError, OSError):
      if step is not None or _path(workdir, None) == path:
        raise
  raise OSError(f'workdir {workdir}: a run deletes its checkpoints sooner than they are read; expected fewer of them')


def _shapes(path: pathlib.Path) -> Any:
  """The state of a step as shapes and types."""
  shapes = whole(lambda: ocp.metadata(paths.literal(path), 'state'), path).metadata
  if shapes is None:  # Orbax only logs why: reading says it
    _read(path, {'step': jax.ShapeDtypeStruct((), np.int32)}, _here())
    raise ValueError(f'{path}: no arrays; expected a whole checkpoint')
  return shapes


def _read(path: pathlib.Path, shapes: Any, sharding: jax.sharding.Sharding) -> Any:
  """The arrays of a step's state that are named, and what was saved beside it."""
  wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)
  context = ocp.Context()
  context.pytree_options.loading.partial_load = True
  with context:
    return whole(lambda: ocp.load_checkpointables(paths.literal(path), {'state': wanted, 'meta': None}), path)


def _here() -> jax.sharding.Sharding:
  """This process's first device."""
  return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _root_of(error: BaseException) -> BaseException:
  """What caused an error."""
  while error.__cause__ is not None:
    error = error.__cause__
  return error


def _refusal(error: BaseException, path: str | pathlib.Path) -> BaseException | None:
  """The error that says that the disk did not answer or may not be read, which is no damage; None: there is none.

  Orbax takes a folder that may not be looked into for one that is missing, so all folders are looked into.
  """
  errors = [error]
  for _ in os.walk(path, onerror=errors.append):
    pass
  missing = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
  status = ('PERMISSION_DENIED', 'DEADLINE_EXCEEDED', 'UNAVAILABLE', 'RESOURCE_EXHAUSTED')
  refusals = (e for e in errors if (isinstance(e, OSError) and not isinstance(e, missing)) or str(e).startswith(status))
  return next(refusals, None)


moved.tell(globals())
