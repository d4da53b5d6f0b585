"""The sandwich rule: of many branches a step trains the largest, the smallest, and some between that are drawn.

Yu and Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV 2019. A step is that of a network
which has the drawn branches alone. One program serves every draw: it holds all branches, and of those between each is
run or passed over as it goes.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array
from ml_collections import ConfigDict

from resjax import switchable
from resjax.apply import Apply
from resjax.resolution import Resolution, at_widths
from resjax.resolution import name as key_of

_DRAWS = 2**32 - 1  # sets the draws' key apart from the keys of all steps


def draw(config: ConfigDict, step: Array) -> Array:
  """Returns the places of the branches that a step trains, rising, int32 `[config.sandwich + 2]`.

  The first, the last, and so many of the others, each as likely as the next: a function of the seed and the step, the
  same on every device. Steps whose gradients are averaged into one update have one draw.

  Args:
    config: Reads `sandwich`, `seed`, `resolutions`, `widths` and `optimizer.accumulate`.
    step: int `[]`.
  """
  last = len(at_widths(config)) - 1
  key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), _DRAWS), step // config.optimizer.accumulate)
  between = jax.random.choice(key, jnp.arange(1, last), (config.sandwich,), replace=False)
  return jnp.concatenate([jnp.zeros(1, int), jnp.sort(between), jnp.full(1, last)]).astype(jnp.int32)


def among(drawn: Array, count: int) -> Array:
  """Returns which of so many branches are among those that are drawn, bool `[count]`."""
  return jnp.zeros(count, bool).at[drawn].set(True)


def forward(
  model: nn.Module | Apply,
  variables: switchable.Variables,
  images: Sequence[Array],
  resolutions: Sequence[Resolution],
  drawn: Array,
  places: slice,
) -> tuple[Array, Any]:
  """Returns what `switchable.forward` does in training; where a branch is not drawn zeros, and its statistics stay.

  Args:
    model: As there, and so are the next two.
    variables: See there.
    images: See there.
    resolutions: All of them.
    drawn: As `draw` returns it.
    places: Of those that are asked for, which have `images`.
  """
  runs = [True, *among(drawn, len(resolutions))[1:-1], True][places]
  statistics, logits = _as_varying(variables['batch_stats'], images[0]), []
  for image, resolution, here in zip(images, resolutions[places], runs, strict=True):

    def taken(statistics: Any, image: Array, resolution: Resolution = resolution) -> tuple[Array, Any]:
      return switchable.forward(model, variables | {'batch_stats': statistics}, [image], [resolution], train=True)

    def passed(statistics: Any, image: Array, taken: Any = taken) -> tuple[Array, Any]:
      like = jax.eval_shape(taken, statistics, image)[0]
      return _as_varying(jnp.zeros(like.shape, like.dtype), image), statistics

    if here is True:
      row, statistics = taken(statistics, image)
    else:
      row, statistics = jax.lax.cond(here, taken, passed, statistics, image)
    logits.append(row)
  return jnp.concatenate(logits), statistics


def _as_varying(tree: Any, images: Array) -> Any:
  """The same arrays, said to differ between devices as images do: the two ways of a choice must say the same."""
  some = images.ravel()[0] > 0
  return jax.tree.map(lambda x: jnp.where(some, x, x), tree)


def named(found: dict[str, Array], resolutions: Sequence[Resolution], drawn: Array | None) -> dict[str, Array]:
  """Returns what is found of each branch as metrics by name: 'loss_160' of `found['loss']`.

  Args:
    found: `[S]` of the branches that are drawn, or `[S + 1]` where the ensemble's follows.
    resolutions: All of them.
    drawn: The places of those, int `[S]`; the others' metrics are NaN, and `drawn_160` is 1 or 0 for each that may be
      passed over. None: all are drawn.
  """
  names = [*map(key_of, resolutions), 'ensemble']
  metrics: dict[str, Array] = {}
  for kind, values in found.items():
    if drawn is not None:
      known = jnp.full(len(resolutions), jnp.nan).at[drawn].set(values[: len(drawn)])
      values = jnp.concatenate([known, values[len(drawn) :]])
    metrics |= {f'{kind}_{name}': value for name, value in zip(names, values)}
  if drawn is not None:
    run = among(drawn, len(resolutions)).astype(jnp.float32)
    metrics |= {f'drawn_{name}': run[place] for place, name in enumerate(names[1:-2], 1)}
  return metrics


def standing(
  tx: optax.GradientTransformation, resolutions: Sequence[Resolution], drawn: Array | None
) -> optax.GradientTransformation:
  """Returns an optimiser that leaves what is private to branches that are not drawn as it is, bit for bit.

  Their gradient is zero, and momentum and weight decay would still move them. So do their entries of alpha stay.

  Args:
    tx: The optimiser; its state is the same.
    resolutions: All of them.
    drawn: The places of some; None: all are drawn.
  """
  if drawn is None:
    return tx
  run = among(drawn, len(resolutions))
  places = {key_of(resolution): place for place, resolution in enumerate(resolutions)}

  def chosen(path: Any, new: Array, old: Array) -> Array:
    names = [str(getattr(entry, 'key', '')) for entry in path]
    kind, *rest = *itertools.dropwhile(lambda name: name not in ('shared', 'private', 'alpha'), names), ''
    if kind == 'alpha':
      return jnp.where(run, new, old)
    place = places.get(rest[0]) if kind == 'private' else None
    return new if place is None else jnp.where(run[place], new, old)

  def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    updates, after = tx.update(grads, state, params)
    still = jax.tree.map(jnp.zeros_like, updates)
    map_with_path = jax.tree_util.tree_map_with_path
    return map_with_path(chosen, updates, still), map_with_path(chosen, after, state)

  return optax.GradientTransformation(tx.init, update)
