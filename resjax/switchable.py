"""Resolution switching, stated on the variables of a plain network.

What is private to a resolution, as a rule its normalisers, exists once per resolution; all else is shared. No model
knows of it: `share` gives every resolution its own copies, `view` hands one resolution's ordinary variables to the
ordinary network.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from resjax import moved, widths
from resjax.apply import Apply, at, run
from resjax.quantisation import BASES
from resjax.resolution import Resolution, check_images, is_name, parse, several, sides, width_of
from resjax.resolution import name as key_of

Variables = dict[str, Any]

# The one private set of a network whose normalisers are shared by all resolutions (an ablation).
SHARED_SET = 'all'

# What of the normalisers is private: scale and bias, mean and variance, both, or nothing.
PRIVATE = ('all', 'affine', 'statistics', 'none')


def share(
  variables: Any,
  resolutions: Sequence[Resolution],
  *,
  private: Callable[[str, Any], bool] | str | None = None,
  shared_batch_norm: bool = False,
  model: nn.Module | None = None,
) -> Variables:
  """Returns the variables of a switchable network: every resolution starts with its own copy of what is private.

  The variables are those of any Flax (linen) network with BatchNorm, `{'params': ..., 'batch_stats': ...}`, and private
  are the parameters of every module that keeps batch statistics, whatever its name, and the statistics. The `bases`
  of a quantised network are shared, and stand among its `batch_stats`. With a function `private`, the variables are any
  pytree of arrays. The copies alias the same buffers: build a state that will be donated inside `jax.jit`.

  Args:
    variables: Of a plain network.
    resolutions: Input sizes in pixels, of squares, or (height, width), or a `resolution.Branch`; in any order.
    private: `private(path, leaf)` says whether a leaf is private; `path` is such as 'params/block1/norm/scale'. Or of a
      network with BatchNorm one of `PRIVATE`: what is not private has one set for all, 'all'. None: 'all'.
    shared_batch_norm: The same as 'none' (the paper's ablation); with a function one private set for all resolutions.
    model: The plain network, which says how many channels there are at a width; else not needed.

  Returns:
    `{'params': {'shared': ..., 'private': {'224': ..., '128x192': ...}}, 'batch_stats': {...}}`; with a function,
    `{'shared': tree, 'private': {'224': tree}}`, each tree as it was, with None in place of the other's leaves.

  Raises:
    ValueError: Nothing would be private; without a function, there are other collections than those two, or `private`
      is unknown; the variables are shared already; a resolution is repeated (see `resolution.branches`), or is none; or
      one is at a width that the network can't have, or at which not all of BatchNorm is private.
  """
  if is_shared(variables):
    raise ValueError("variables: shared already, expected a plain network's (resjax.extract takes one out)")
  resolutions = several(resolutions)
  names = _names(resolutions, all_private=private in (None, 'all') and not shared_batch_norm)
  if callable(private):
    mask = jax.tree.map_with_path(lambda path, leaf: bool(private(path_text(path), leaf)), variables)
    if not any(jax.tree.leaves(mask)):
      raise ValueError('private: true for no leaf, expected one or more that are private to a resolution')
    alone = jax.tree.map(lambda leaf, chosen: leaf if chosen else None, variables, mask)
    rest = jax.tree.map(lambda leaf, chosen: None if chosen else leaf, variables, mask)
    return {'shared': rest, 'private': {key: alone for key in ([SHARED_SET] if shared_batch_norm else names)}}
  affine, kept = _own(private or 'all', shared_batch_norm)
  _check_batch_norm(variables)
  statistics = flatten_dict(variables['batch_stats'])
  normalisers = {path[:-1] for path in statistics}
  shared: dict[Any, Any] = {}
  normal: dict[Any, Any] = {}
  for path, value in flatten_dict(variables['params']).items():
    (normal if path[:-1] in normalisers else shared)[path] = value
  own = {'params': unflatten_dict(normal), 'batch_stats': unflatten_dict(statistics)}
  sets = {key: widths.part(own, model, width_of(r), sides(r)) for key, r in zip(names, resolutions)}
  private_sets = {key: sets.get(key, own)['params'] for key in (names if affine else [SHARED_SET])}
  running = {key: sets.get(key, own)['batch_stats'] for key in (names if kept else [SHARED_SET])}
  params = {'shared': unflatten_dict(shared), 'private': private_sets}
  return {'params': params, 'batch_stats': running | _bases(variables)}


def _names(resolutions: tuple[Resolution, ...], *, all_private: bool) -> list[str]:
  """The names of resolutions; ValueError where there are none, one twice, or one at a width shares BatchNorm."""
  names = [key_of(r) for r in resolutions]
  if not resolutions or len(set(names)) != len(names):
    raise ValueError(
      f'resolutions: got {resolutions}, expected one or more distinct positive integers or (height, width)'
    )
  narrow = next((r for r in resolutions if width_of(r) < 1), None)
  if narrow is not None and not all_private:
    raise ValueError(f'resolutions: got {narrow}, expected none at a width where BatchNorm is not private')
  return names


def _own(private: str, shared_batch_norm: bool) -> tuple[bool, bool]:
  """Whether scale and bias are private, and whether the statistics are."""
  if private not in PRIVATE:
    raise ValueError(f'private: got {private!r}, expected a function, or one of {", ".join(PRIVATE)}')
  if shared_batch_norm and private not in ('all', 'none'):
    raise ValueError(f"shared_batch_norm: got True with private={private!r}, expected one of the two, or 'none'")
  private = 'none' if shared_batch_norm else private
  return private in ('all', 'affine'), private in ('all', 'statistics')


def _bases(variables: Any) -> dict[str, Any]:
  """The bases of a quantised network, which all resolutions share, by their name; empty where there are none."""
  return {name: variables[name] for name in (BASES,) if name in variables}


def path_text(path: tuple[Any, ...]) -> str:
  """Returns a leaf's place in a tree as a string: 'params/norm/scale'."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def _check_batch_norm(variables: Any) -> None:
  """Raises ValueError unless these are params and batch_stats, and nothing else."""
  if not isinstance(variables, dict) or not variables.get('batch_stats'):
    raise ValueError(
      'variables: no batch_stats, expected a network with BatchNorm, or private=..., which says what is private'
    )
  if others := sorted(variables.keys() - {'params', 'batch_stats', BASES}):
    raise ValueError(
      f'variables: got the collections {", ".join(others)} too, expected params and batch_stats alone, or private=..., '
      'which says what is private'
    )


def is_shared(variables: Any) -> bool:
  """Whether these are variables as `share` returns them, entries of other names beside them or not."""
  if not isinstance(variables, dict):
    return False
  if 'params' not in variables:
    private = variables.get('private')
    return 'shared' in variables and isinstance(private, dict) and all(map(_is_key, private))
  params, statistics = variables['params'], variables.get('batch_stats', {})
  if not isinstance(params, dict) or not {'shared', 'private'} <= params.keys():
    return False
  own = params['private'].keys()
  return all(map(_is_key, own)) and (own <= statistics.keys() or SHARED_SET in {*own, *statistics})


def _is_key(key: Any) -> bool:
  """Whether a dict's key names a private set."""
  return isinstance(key, str) and (key == SHARED_SET or is_name(key))


def sets_of(variables: Variables) -> dict[str, Any]:
  """Returns what is private to each resolution, by its name; of BatchNorm networks the statistics alone.

  Where the statistics are shared, it is scale and bias, which may be shared too.

  Raises:
    ValueError: The variables are not shared.
  """
  if not is_shared(variables):
    raise ValueError("variables: a plain network's, expected what resjax.share returns")
  if 'params' not in variables:
    return variables['private']
  statistics = variables['batch_stats']
  return variables['params']['private'] if SHARED_SET in statistics else statistics


def set_of(variables: Variables, resolution: Resolution) -> str:
  """Returns the key of the private set that serves a resolution; of BatchNorm networks that of its statistics.

  Raises:
    ValueError: The variables are not shared, or have no private set for this resolution.
  """
  key = _key_in(sets_of(variables), resolution)
  return _key_in(variables['batch_stats'], resolution) if 'params' in variables else key


def _key_in(sets: dict[str, Any], resolution: Resolution) -> str:
  """The key among sets of one kind."""
  if SHARED_SET in sets:
    return SHARED_SET
  key = key_of(resolution)
  if key not in sets:
    raise ValueError(f'resolution: got {resolution}, expected one of {", ".join(areas_of(sets))}')
  return key


def areas_of(sets: dict[str, Any], width: float | None = None) -> dict[str, int]:
  """Returns the pixels of the sizes that have a private set, by its key, the largest first; of one width, or all."""
  there = {key: parse(key) for key in sets if key[0].isdigit()}
  areas = {key: math.prod(sides(r)) for key, r in there.items() if width is None or width_of(r) == width}
  return dict(sorted(areas.items(), key=lambda item: -item[1]))


def view(variables: Variables, resolution: Resolution, model: Any = None) -> Any:
  """Returns the ordinary variables of the ordinary network at one resolution, sharing the arrays.

  `model.apply(view(variables, 224), images, train=False)` is the whole of switching. At a width they are those of
  `widths.narrowed(model, width)`: the leading channels of every array.

  Args:
    variables: As `share` returns them.
    resolution: Of those that were shared.
    model: The plain network; needed at a width alone.

  Raises:
    ValueError: The variables are not shared, or have no private set for this resolution; or a width has no model.
  """
  return widths.part(_whole_view(variables, resolution), model, width_of(resolution), sides(resolution))


def _whole_view(variables: Variables, resolution: Resolution) -> Any:
  """The ordinary variables at one resolution; at a width, what is shared has all its channels."""
  key = set_of(variables, resolution)
  if 'params' not in variables:
    return _where_none(variables['shared'], variables['private'][key])
  params = variables['params']
  own = params['private'][_key_in(params['private'], resolution)]
  flat, statistics = flatten_dict(params['shared']) | flatten_dict(own), variables['batch_stats']
  return {'params': unflatten_dict(flat), 'batch_stats': statistics[key]} | _bases(statistics)


def with_view(variables: Variables, resolution: Resolution, plain: Any) -> Variables:
  """Returns the variables, changed to what the network left of one resolution's `view`.

  Of BatchNorm networks only the statistics are taken, and the bases of a quantised one; of other trees every leaf. What
  is shared changes for all resolutions.
  """
  key = set_of(variables, resolution)
  if 'params' in variables:
    if 'batch_stats' not in plain:
      raise ValueError('plain: no batch_stats, expected what the network left of a view')
    return variables | {'batch_stats': variables['batch_stats'] | {key: plain['batch_stats']} | _bases(plain)}
  sets = variables['private']
  return variables | {
    'shared': _at_leaves_of(variables['shared'], plain),
    'private': sets | {key: _at_leaves_of(sets[key], plain)},
  }


def _where_none(tree: Any, other: Any) -> Any:
  """The leaves of a tree; where it has None, those of another."""
  return jax.tree.map(lambda a, b: b if a is None else a, tree, other, is_leaf=lambda x: x is None)


def _at_leaves_of(tree: Any, other: Any) -> Any:
  """Another tree's leaves where a tree has leaves, None where it has None."""
  return jax.tree.map(lambda a, b: None if a is None else b, tree, other, is_leaf=lambda x: x is None)


def extract(variables: Variables, resolution: Resolution, model: Any = None) -> Any:
  """Returns a copy of one resolution as a plain network's variables; arguments and errors as of `view`."""
  return jax.tree.map(jnp.array, view(variables, resolution, model))


def forward(
  model: nn.Module | Apply,
  variables: Variables,
  images: Sequence[Array],
  resolutions: Sequence[Resolution],
  *,
  train: bool,
  mask: Sequence[Array] | Array | None = None,
) -> tuple[Array, Any]:
  """Runs the network once per resolution, each with what is its own.

  Args:
    model: A Flax (linen) module, called as `model(images, train=...)`, with `mask=` too where a mask is given; or a
      function, see `resjax.apply.Apply`.
    variables: As `share` returns them; other entries are left alone.
    images: One `[B, r, r, C]` per resolution.
    resolutions: Highest first, in the order of `images`.
    train: Normalise by the batch and update the running statistics, or normalise by the running statistics.
    mask: `[B]` per resolution: the samples that count in the batch statistics, see `models.layers.Norm`. None: all do.

  Returns:
    Logits `[R, B, K]` in the order of `resolutions`, and the new batch_stats; of a tree that was shared with `private=`
    the new variables, all of them. When not training, these are the same ones.

  Raises:
    ValueError: Images, masks and resolutions do not pair up or are not highest first, or a resolution has no private
      set.
  """
  check_images(images, resolutions, mask)
  new, logits = variables, []
  for i, (inputs, resolution) in enumerate(zip(images, resolutions, strict=True)):
    own_mask = None if mask is None else mask[i]
    out, plain = run(at(model, resolution), _whole_view(new, resolution), inputs, train, own_mask, width_of(resolution))
    if train:
      new = with_view(new, resolution, plain)
    logits.append(out)
  return jnp.stack(logits), new['batch_stats'] if 'params' in variables else new


moved.tell(globals())
