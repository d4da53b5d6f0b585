"""A network by its layers: parameters, and at each resolution multiply-adds and the memory of activations.

Nothing is run and nothing allocated: shapes are traced.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from resjax import macs, models, packing, rsnet, widths
from resjax.models import predictor
from resjax.resolution import at_widths, name, sides, width_of


def of_config(config: ConfigDict, depth: int | None = None) -> dict[str, Any]:
  """Returns what a config's network is made of, as JSON values.

  Args:
    config: Read: model, resolutions, widths, private, shared_batch_norm, and with method 'drnet' drnet.predictor.
    depth: Modules below this depth are added up in those above; None: every layer by itself.

  Returns:
    `layers`: a list of {'name', 'shared', 'private', 'macs': {resolution: of one image}, 'activations': {resolution:
    bytes}}; `total`: the same, added up; `predictor`: its layers, or None, at the size of its input; `parameters`:
    {'shared', 'private', 'sets', 'all_sets', 'alpha', 'predictor', 'all'}. `private` is of one resolution with all
    channels, `all_sets` of all. Activations are the outputs of all layers (modules without others in them) for one
    image. Of a quantised network also `size`: what `packing.size` says of all that is kept, a predictor left out.
  """
  model, resolutions = models.from_config(config), at_widths(config)
  layers = _layers(model, resolutions, depth)
  total = added('all', layers)
  sets = len(resolutions) if rsnet.private(config) in ('all', 'affine') else 1
  chooses = None
  if config.method == 'drnet':
    found = predictor.from_config(config)
    chooses = _layers(found.model, (found.size,), depth)
  own = sum(layer['shared'] + layer['private'] for layer in chooses or ())
  count = {'shared': total['shared'], 'private': total['private'], 'sets': sets, 'alpha': len(resolutions)}
  made = jax.eval_shape(lambda key: rsnet.init(model, config, key), jax.random.key(0))
  count['all_sets'] = sum(leaf.size for leaf in jax.tree.leaves(made['params']['private']))
  every = total['shared'] + count['all_sets'] + len(resolutions) + own
  size = {'size': packing.size(made)._asdict()} if config.model.quantise else {}
  return {
    'model': config.model.name,
    'resolutions': [name(resolution) for resolution in resolutions],
    'layers': layers,
    'total': total,
    'predictor': chooses,
    'parameters': count | {'predictor': own, 'all': every},
    **size,
  }


def _layers(model: nn.Module, resolutions: tuple[Any, ...], depth: int | None) -> list[dict[str, Any]]:
  """One entry for each module of a depth, in the order in which they run."""
  first, *others = (_traced(widths.narrowed(model, width_of(resolution)), resolution) for resolution in resolutions)
  order, statistics, sizes = first[0], first[3], first[4]
  rows: list[dict[str, Any]] = []
  for path in order:
    size, private = sizes.get(path, 0), path in statistics
    rows.append(
      {
        'name': '/'.join(path),
        'shared': 0 if private else size,
        'private': size if private else 0,
        'macs': {name(r): found[1].get(path, 0) for r, found in zip(resolutions, (first, *others))},
        'activations': {name(r): found[2].get(path, 0) for r, found in zip(resolutions, (first, *others))},
      }
    )
  groups: dict[str, list[dict[str, Any]]] = {}
  for row in rows:
    groups.setdefault('/'.join(row['name'].split('/')[:depth]), []).append(row)
  return [added(group, members) for group, members in groups.items()]


def _traced(model: nn.Module, resolution: Any) -> tuple[list[Any], dict[Any, int], dict[Any, int], set[Any], Any]:
  """The layers' paths; by path multiply-adds and bytes of outputs; those with statistics; parameters by path."""
  images = jax.ShapeDtypeStruct((1, *sides(resolution), 3), jnp.float32)
  variables = widths.shapes_of(model, 1.0, (*sides(resolution), 3))
  outputs: dict[tuple[str, ...], int] = {}

  def note(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    out = call(*args, **kwargs)
    if context.method_name == '__call__':
      size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(out))
      outputs[context.module.path] = outputs.get(context.module.path, 0) + size
    return out

  def apply(variables: Any, images: jax.Array) -> Any:
    with nn.intercept_methods(note):
      return model.apply(variables, images, train=False)

  scopes = macs.by_scope(apply, variables, images)
  sizes: dict[tuple[str, ...], int] = {}
  for path, leaf in flatten_dict(variables['params']).items():
    sizes[path[:-1]] = sizes.get(path[:-1], 0) + int(np.prod(leaf.shape))
  statistics = {path[:-1] for path in flatten_dict(variables.get('batch_stats', {}))}
  counted = {tuple(scope.split('/')[1:]): number for scope, number in scopes.items()}
  inner = {path[:end] for path in outputs for end in range(len(path))}
  kept = {path: size for path, size in outputs.items() if path not in inner}
  order = sorted(outputs, key=list(outputs).index)
  paths = [path for path in order if path in kept or path in sizes or path in counted]
  return paths + [path for path in counted if path not in paths], counted, kept, statistics, sizes


def added(group: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
  """Returns the sum of some layers as one."""
  keys = rows[0]['macs']
  return {
    'name': group,
    'shared': sum(row['shared'] for row in rows),
    'private': sum(row['private'] for row in rows),
    **{kind: {key: sum(row[kind][key] for row in rows) for key in keys} for kind in ('macs', 'activations')},
  }
