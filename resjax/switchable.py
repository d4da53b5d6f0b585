"""Resolution switching, stated on the variables of a plain network.

Convolutions and the classifier are shared; every module that keeps batch statistics is private to each resolution.
No model knows of it: `share` gives every resolution its own normalisers, `view` hands one resolution's ordinary
variables to the ordinary network.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

Variables = dict[str, Any]
Resolution = int | tuple[int, int]  # pixels: of a square's side, or (height, width)

# The one set of normalisers of a network whose BatchNorm is shared by all resolutions (an ablation).
SHARED_SET = 'all'


def share(variables: Variables, resolutions: Sequence[int], *, shared_batch_norm: bool = False) -> Variables:
  """Returns the variables of a switchable network: every resolution starts with its own copy of the normalisers.

  Private are the parameters of every module that keeps batch statistics, whatever its name: any Flax model with
  BatchNorm works. The copies alias the same buffers: build a state that will be donated inside `jax.jit`.

  Args:
    variables: Of a plain network: `{'params': ..., 'batch_stats': ...}`.
    resolutions: Input sizes in pixels; their order does not matter here.
    shared_batch_norm: One set of normalisers for all resolutions instead (the paper's ablation).

  Returns:
    `{'params': {'shared': ..., 'private': {'224': ...}}, 'batch_stats': {'224': ...}}`.

  Raises:
    ValueError: The network keeps no batch statistics, or a resolution is repeated or no positive integer.
  """
  if not variables.get('batch_stats'):
    raise ValueError(
      'variables: no batch_stats, expected a network with BatchNorm (nothing would be private to a resolution)'
    )
  check_resolutions(resolutions)
  statistics = flatten_dict(variables['batch_stats'])
  normalisers = {path[:-1] for path in statistics}
  shared, private = {}, {}
  for path, value in flatten_dict(variables['params']).items():
    (private if path[:-1] in normalisers else shared)[path] = value
  keys = [SHARED_SET] if shared_batch_norm else [str(r) for r in resolutions]
  return {
    'params': {
      'shared': unflatten_dict(shared),
      'private': {key: unflatten_dict(private) for key in keys},
    },
    'batch_stats': {key: unflatten_dict(statistics) for key in keys},
  }


def check_resolutions(resolutions: Sequence[int]) -> None:
  """Raises ValueError unless the resolutions are distinct positive integers, at least one."""
  ok = all(isinstance(r, int) and r > 0 for r in resolutions)
  if not resolutions or not ok or len(set(resolutions)) != len(resolutions):
    raise ValueError(f'resolutions: got {tuple(resolutions)}, expected one or more distinct positive integers')


def key_of(resolution: Resolution) -> str:
  """Returns what a resolution's own normalisers are called: '160', or '128x160' for height x width."""
  height, width = resolution if isinstance(resolution, tuple) else (resolution, resolution)
  return str(height) if height == width else f'{height}x{width}'


def set_of(variables: Variables, resolution: Resolution) -> str:
  """Returns the key of the normalisers that serve a resolution.

  Raises:
    ValueError: The network has no normalisers for this resolution.
  """
  known = variables['batch_stats']
  if SHARED_SET in known:
    return SHARED_SET
  key = key_of(resolution)
  if key not in known:
    trained = ', '.join(sorted((k for k in known if k.isdigit()), key=int, reverse=True))
    raise ValueError(f'resolution: got {resolution}, expected one of {trained}')
  return key


def view(variables: Variables, resolution: Resolution) -> Variables:
  """Returns the ordinary variables of the ordinary network at one resolution, sharing the arrays.

  `model.apply(view(variables, 224), images, train=False)` is the whole of switching.

  Raises:
    ValueError: The network has no normalisers for this resolution.
  """
  key = set_of(variables, resolution)
  params = variables['params']
  flat = flatten_dict(params['shared']) | flatten_dict(params['private'][key])
  return {'params': unflatten_dict(flat), 'batch_stats': variables['batch_stats'][key]}


def extract(variables: Variables, resolution: Resolution) -> Variables:
  """Returns a copy of one resolution as a plain network's variables; changing it leaves the original as it is.

  Raises:
    ValueError: The network has no normalisers for this resolution.
  """
  return jax.tree.map(jnp.array, view(variables, resolution))


def forward(
  model: nn.Module,
  variables: Variables,
  images: Sequence[Array],
  resolutions: Sequence[int],
  *,
  train: bool,
  mask: Sequence[Array] | None = None,
) -> tuple[Array, Variables]:
  """Runs the network once per resolution, each with its own normalisers.

  Args:
    model: A plain network, called as `model(images, train=...)`, with `mask=` too where a mask is given.
    variables: As `share` returns them; other entries are left alone.
    images: One `[B, r, r, C]` per resolution.
    resolutions: In the order of `images`.
    train: Normalise by the batch and update the running statistics, or normalise by the running statistics.
    mask: `[B]` per resolution: the samples that count in the batch statistics. None: all do.

  Returns:
    Logits `[R, B, K]` in the order of `resolutions`, and the new batch_stats (the same ones when not training).

  Raises:
    ValueError: Images and resolutions do not pair up, or a resolution has no normalisers.
  """
  if len(images) != len(resolutions):
    raise ValueError(f'images: got {len(images)} sizes, expected one for each of the resolutions {tuple(resolutions)}')
  statistics = dict(variables['batch_stats'])
  logits = []
  for i, (inputs, resolution) in enumerate(zip(images, resolutions, strict=True)):
    current = view(variables | {'batch_stats': statistics}, resolution)
    options = {'train': train} if mask is None else {'train': train, 'mask': mask[i]}
    if train:
      out, updates = model.apply(current, inputs, **options, mutable=['batch_stats'])
      statistics[set_of(variables, resolution)] = updates['batch_stats']
    else:
      out = model.apply(current, inputs, **options)
    logits.append(out)
  return jnp.stack(logits), statistics
