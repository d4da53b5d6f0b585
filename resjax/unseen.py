"""Resolutions that the network was not trained at: their BatchNorm from the trained ones, or from unlabelled images.

A size between or beyond the trained ones, and an input that is not square, gets a set of normalisers under a key of its
own; `view` then serves it like any other. Every function says in one line what it did, for the user to read.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from resjax import widths
from resjax.apply import Apply, run
from resjax.quantisation import BASES
from resjax.resolution import Branch, Resolution, at_width, name, parse, sides, width_of
from resjax.switchable import SHARED_SET, Variables, areas_of, path_text, set_of, sets_of, view, with_view

WAYS = ('interpolate', 'nearest')
_ENOUGH = 8  # images that are normalised together, as `models.layers.ENOUGH`
_MANY = 64  # images in all: with 9 a network of digits lost 2 points at 32 px, with 64 as many as 1,024 to 0.2


def add(
  variables: Variables, resolution: Resolution, how: str = 'interpolate', model: nn.Module | Apply | None = None
) -> tuple[Variables, str]:
  """Returns variables that serve one more resolution, and what was done.

  An input that is not square gets the normalisers of the square with its area. A resolution that has normalisers keeps
  them, and so does a network whose BatchNorm is one for all sizes. All square sizes in the tree count as trained; where
  there are none, the others do, each as the square of its area. In a tree that was shared with `private=`, all that is
  private is the normalisers; what is not floating is never mixed.

  Args:
    variables: As `share` returns them; all else in them is passed through. New entries may alias old ones.
    resolution: In pixels, of a square, or (height, width).
    how: 'interpolate': scale, bias, mean and variance linear in the resolution between the two trained neighbours;
      beyond the trained sizes those of the last one, since extrapolated variances could be negative. 'nearest': those
      of the trained size nearest in pixels, of two equally near the larger one.
    model: The plain network: with it, a width or a further branch that was not trained gets the channels of its size.

  Returns:
    The variables, with what is private to this resolution, bit for bit a trained set where it is one's; and a line such
    as '136 px: BatchNorm interpolated between 128 and 160 px'.

  Raises:
    ValueError: It is no resolution, or a width or a further branch that was not trained; or there is no such way.
  """
  height, width = sides(resolution)
  if how not in WAYS:
    raise ValueError(f'how: got {how!r}, expected one of {", ".join(WAYS)}')
  key, known = name(resolution), sets_of(variables)
  if SHARED_SET in known:
    return variables, f'{key} px: the BatchNorm of all sizes'
  if key in known:
    return variables, f'{key} px: its own BatchNorm'
  if model is None and isinstance(resolution, Branch) and resolution.number > 1:
    raise ValueError(f'resolution: got {key}, expected a branch among {", ".join(areas_of(known))}')
  side = math.sqrt(height * width)
  areas = areas_of(known, width_of(resolution))
  if not areas and model is not None and width_of(resolution) < 1:
    wide, note = add(variables, at_width(resolution, 1.0), how)
    return _slimmed(variables, wide, resolution, model), f'{key}: the leading channels of {note}'
  if not areas:
    raise ValueError(f'resolution: got {key}, expected a width among those of {", ".join(areas_of(known))}')
  squares = {k: area for k, area in areas.items() if name(at_width(parse(k), 1.0)).isdigit()}
  there = {math.sqrt(area): k for k, area in (squares or areas).items()}
  low, high = _neighbours(list(there), side, how)
  source = f'of {there[low]} px' if low == high else f'interpolated between {there[low]} and {there[high]} px'
  share = 0.0 if low == high else (side - low) / (high - low)
  area = '' if height == width else f' (in area {side:.0f}x{side:.0f})'

  def wider(sets: dict[str, Any]) -> dict[str, Any]:
    if SHARED_SET in sets:
      return sets
    return sets | {key: _between(sets[there[low]], sets[there[high]], share)}

  if 'params' not in variables:
    added = {'private': wider(known)}
  else:
    params, statistics = variables['params'], variables['batch_stats']
    added = {'params': params | {'private': wider(params['private'])}, 'batch_stats': wider(statistics)}
  return variables | added, f'{key} px{area}: BatchNorm {source}'


def add_all(
  variables: Variables, trained: Sequence[Resolution], resolutions: Sequence[Resolution], how: str = 'interpolate'
) -> tuple[Variables, list[str]]:
  """Returns variables that serve all of some resolutions, and what was done for each.

  Each is made from those that are there before, whatever the order. In the ensemble of them a trained one weighs by
  its `alpha`, and any other by the mean of those.

  Args:
    variables: As of `add`.
    trained: The resolutions of `params['alpha']`, if there is such an entry, in its order.
    resolutions: That are wanted, in their order.
    how: As of `add`.

  Raises:
    ValueError: As of `add`.
  """
  lines, before = [], variables
  for resolution in resolutions:
    added, line = add(before, resolution, how)
    variables = _with_sets(variables, added)
    lines.append(line)
  params = variables.get('params', {})
  if 'alpha' in params:
    alpha = params['alpha']
    known = dict(zip(trained, alpha)) if len(alpha) == len(trained) else {}  # of what was taken out the weights are not
    alpha = jnp.stack([known.get(resolution, alpha.mean()) for resolution in resolutions])
    variables = variables | {'params': params | {'alpha': alpha}}
  return variables, lines


def _with_sets(variables: Variables, others: Variables) -> Variables:
  """Variables with the sets of normalisers that others of the same tree have besides."""
  if 'params' not in variables:
    return variables | {'private': sets_of(variables) | sets_of(others)}
  params, statistics = variables['params'], variables['batch_stats']
  params = params | {'private': params['private'] | others['params']['private']}
  return variables | {'params': params, 'batch_stats': statistics | others['batch_stats']}


def _slimmed(variables: Variables, wide: Variables, resolution: Resolution, model: Any) -> Variables:
  """Variables with the leading channels of a size's normalisers, which `wide` has, as those of it at a width."""
  size, key, params = name(at_width(resolution, 1.0)), name(resolution), variables['params']
  own = {'params': wide['params']['private'][size], 'batch_stats': wide['batch_stats'][size]}
  narrow = widths.part(own, model, width_of(resolution), sides(resolution))
  params = params | {'private': params['private'] | {key: narrow['params']}}
  return variables | {'params': params, 'batch_stats': variables['batch_stats'] | {key: narrow['batch_stats']}}


def recalibrate(
  model: nn.Module | Apply, variables: Variables, resolution: Resolution, batches: Iterable[Array]
) -> tuple[Variables, str]:
  """Returns variables whose statistics at one resolution are those of the given images, and what was done.

  Each running mean and variance becomes the mean over the batches of its value in the batch, weighted by the batch's
  size; in each batch the network normalises by that batch, as in training. Scale, bias and all else stay as they are,
  a quantised network's bases too.
  Batches should be about as large as in training: of one or two images the deepest maps hardly vary, and what is
  divided by that is no answer. The line says where there are fewer than eight together, or 64 in all. No labels are
  needed.

  Args:
    model: A plain network, called as `model(images, train=True)`; any momentum below 1. Or a function, see
      `resjax.apply.Apply`: the leaves that it does not return as they came are its running statistics, each
      `momentum * old + (1 - momentum) * batch`, and play no part in training's logits.
    variables: With normalisers for this resolution, see `add`. Where the statistics are one for all sizes, those
      change, and the result is meant for this resolution alone.
    resolution: In pixels, of a square, or (height, width), or these at a width.
    batches: Of normalised images, floating `[B, height, width, 3]`; they need not be equally large.

  Returns:
    The variables, and a line such as '136 px: BatchNorm statistics from 512 images'.

  Raises:
    ValueError: The resolution has no normalisers; there are no images, or of another shape or type; the network keeps
      no statistics, or changes what is none, such as a counter; or a statistic is not finite or not a running average.
  """
  height, width = sides(resolution)
  narrow = model if width_of(resolution) == 1 else widths.narrowed(model, width_of(resolution))
  key, plain = set_of(variables, resolution), view(variables, resolution, model)
  leaves, structure = jax.tree.flatten(plain)
  names = [path_text(path) for path, _ in jax.tree_util.tree_leaves_with_path(plain)]

  def update(leaves: Sequence[Array], images: Array) -> Sequence[Array]:
    old = jax.tree.unflatten(structure, leaves)
    new = run(narrow, old, images, True)[1]
    kept = {BASES: old[BASES]} if isinstance(new, dict) and BASES in new else {}
    return jax.tree.leaves(new | kept if kept else new)

  moments = jax.jit(lambda leaves, images: _moments(update, names, leaves, images))
  found, sizes = [], []
  for images in batches:
    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[1:3] != (height, width) or not jnp.issubdtype(images.dtype, jnp.floating):
      got = f'{images.dtype} {images.shape}'
      raise ValueError(f'batches: got {got}, expected normalised images, floating [B, {height}, {width}, 3]')
    found.append(jax.device_get(moments(leaves, images)))
    sizes.append(len(images))
  if not sum(sizes):
    raise ValueError('batches: got no images, expected at least one batch')
  means = {place: np.average([batch[place] for batch in found], axis=0, weights=sizes) for place in found[0]}
  if not means:
    raise ValueError('model: returns every variable as it came, expected one that updates running statistics')
  if not all(np.isfinite(mean).all() for mean in means.values()):
    raise ValueError(f'batches: statistics at {key} px are not finite, expected finite images and a momentum below 1')
  new = [jnp.asarray(means[place], old.dtype) if place in means else old for place, old in enumerate(leaves)]
  line = f'{name(resolution)} px: BatchNorm statistics from {_of_images(sizes)}'
  return with_view(variables, resolution, jax.tree.unflatten(structure, new)), line


def _of_images(sizes: Sequence[int]) -> str:
  """How many images there are in batches of these sizes, and that they are few where they are."""
  told = f'{sum(sizes)} image{"s" * (sum(sizes) > 1)}'
  if max(sizes) < _ENOUGH:
    return f'{told}, at most {max(sizes)} together: too few to normalise by, expected {_ENOUGH} or more in a batch'
  return f'{told}, few to go by: expected {_MANY} or more' if sum(sizes) < _MANY else told


def recalibrate_all(
  model: nn.Module | Apply, variables: Variables, batches: Mapping[Resolution, Iterable[Array]]
) -> tuple[Variables, list[str]]:
  """Returns variables whose statistics at each of some resolutions are those of the given images, and what was done.

  For a network whose sizes did not learn their statistics from all images: of those that DRNet trained, each counted
  the images that were sent to it (docs/drnet.md).

  Args:
    model: As of `recalibrate`.
    variables: Likewise.
    batches: As of `recalibrate`, for each of the resolutions.

  Raises:
    ValueError: As of `recalibrate`; or the statistics are one for all sizes, which would all change by any of them.
  """
  lines = []
  if SHARED_SET in (set_of(variables, resolution) for resolution in batches):
    raise ValueError('variables: the statistics of BatchNorm are one for all sizes, expected those of each')
  for resolution, of_one in batches.items():
    variables, line = recalibrate(model, variables, resolution, of_one)
    lines.append(line)
  return variables, lines


def _neighbours(trained: list[float], side: float, how: str) -> tuple[float, float]:
  """The sizes below and above, the same one twice where a single one serves."""
  if how == 'nearest':
    nearest = min(trained, key=lambda size: (abs(size - side), -size))
    return nearest, nearest
  inside = min(max(side, min(trained)), max(trained))
  return max(size for size in trained if size <= inside), min(size for size in trained if size >= inside)


def _between(low: Variables, high: Variables, share: float) -> Variables:
  """The set between two, linear; where they are one, that very set."""
  if low is high:
    return low

  def mix(a: Array, b: Array) -> Array:
    return (1 - share) * a + share * b if jnp.issubdtype(a.dtype, jnp.floating) else a

  return jax.tree.map(mix, low, high)


def _moments(
  update: Callable[..., Sequence[Array]], names: Sequence[str], leaves: Sequence[Array], images: Array
) -> dict[int, Array]:
  """What each running statistic would be if it held this batch alone, by its place among the leaves.

  An update is new = momentum * old + (1 - momentum) * batch. From old = 0 it gives the batch's part; from a power of
  two beside which that part vanishes, it gives the momentum. (A derivative would not: NNX stops gradients here.)
  """
  kept = _passed_on(jax.make_jaxpr(update)(leaves, images).jaxpr)
  places = [i for i in range(len(leaves)) if kept[i] != i]
  if not places:
    return {}
  for i in places:
    if not jnp.issubdtype(leaves[i].dtype, jnp.floating):
      raise ValueError(f'model: changes {names[i]}, {leaves[i].dtype}, expected only running averages to change')

  def updated(statistics: Sequence[Array]) -> Sequence[Array]:
    changed = dict(zip(places, statistics))
    new = update([changed.get(i, x) for i, x in enumerate(leaves)], images)
    return [new[i] for i in places]

  found = {}
  large = [2.0 ** (3 * jnp.finfo(leaves[i].dtype).maxexp // 4) for i in places]
  pairs = [jnp.stack([jnp.zeros_like(leaves[i]), jnp.full_like(leaves[i], huge)]) for i, huge in zip(places, large)]
  for i, huge, new in zip(places, large, jax.vmap(updated)(pairs)):  # the network itself runs once
    momentum = new[1] / huge
    found[i] = jnp.where((momentum > -0.5) & (momentum < 1), new[0] / (1 - momentum), jnp.nan)
  return found


def _passed_on(jaxpr: Any) -> list[int | None]:
  """For each output of a jaxpr the place of the input that it is, also through a function that was jitted; or None."""
  origin: dict[int, int] = {id(variable): place for place, variable in enumerate(jaxpr.invars)}
  for equation in jaxpr.eqns:
    if equation.primitive.name in ('jit', 'pjit'):
      for out, place in zip(equation.outvars, _passed_on(equation.params['jaxpr'].jaxpr)):
        if place is not None and id(equation.invars[place]) in origin:
          origin[id(out)] = origin[id(equation.invars[place])]
  return [origin.get(id(variable)) for variable in jaxpr.outvars]
