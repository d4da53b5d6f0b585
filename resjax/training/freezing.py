"""Parameters that stay as they are, or learn at rates of their own: by patterns of their paths, or by their depth."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.lax import stop_gradient
from ml_collections import ConfigDict

from resjax.apply import Apply, Branched, linen
from resjax.models import quantised
from resjax.resolution import Resolution, at_width
from resjax.resolution import name as key_of
from resjax.switchable import SHARED_SET

Pairs = Sequence[tuple[str, float]]


def plain_path(path: Sequence[Any]) -> str:
  """Returns a leaf's path in the plain network, 'stage1_block1/conv1/kernel', from that in the switchable one."""
  names = _names(path)
  return '/'.join(names[{'shared': 1, 'private': 2}.get(names[0], 0) :])


def pairs(optimizer: ConfigDict) -> Pairs:
  """Returns the patterns of `freeze`, with the factor 0, before those of `rates`.

  Args:
    optimizer: `config.optimizer`.
  """
  return (*((pattern, 0.0) for pattern in optimizer.freeze), *optimizer.rates)


def _names(path: Sequence[Any]) -> list[str]:
  """A path's parts."""
  return [str(getattr(entry, 'key', entry)) for entry in path]


def factor_of(path: str, rates: Pairs, full: Sequence[str] = ()) -> float:
  """Returns the learning rate's factor of a parameter: that of the first pattern that its path matches, else 1.

  Args:
    path: As of `plain_path`.
    rates: Patterns as in a shell, such as ('stage1_*', 0.1), each with its factor.
    full: What its path in the switchable network may be, 'private/224/bn1/scale': patterns that begin with 'shared/'
      or 'private/' may match it, too.
  """
  return next((factor for pattern, factor in rates if _matches(pattern, path, full)), 1.0)


def _matches(pattern: str, path: str, full: Sequence[str]) -> bool:
  """Whether a pattern means a parameter."""
  paths = [path, *full] if pattern.startswith(('shared/', 'private/')) else [path]
  return any(fnmatch.fnmatchcase(name, pattern) for name in paths)


def _of_leaf(path: Sequence[Any], rates: Pairs) -> float:
  """The factor of a leaf of `params`."""
  return factor_of(plain_path(path), rates, ('/'.join(_names(path)),))


def depths(model: nn.Module, resolution: int) -> dict[str, int]:
  """Returns how far from the output each module of a network stands, by its name: 0 for the last, the head.

  Counted are the modules that the network itself calls and that hold parameters, in the order of their first calls:
  of ours the stem, every block, MobileNetV2's last convolution, and the head. A module whose parameters are `scale` and
  `bias` alone, a normaliser, stands with the one before it; parameters of the network itself with the first.

  Args:
    model: A plain network.
    resolution: Of the images that it is traced with, in pixels.
  """
  calls: dict[str, None] = {}

  def interceptor(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    calls.update(dict.fromkeys(context.module.path[:1]))
    return call(*args, **kwargs)

  images = jax.ShapeDtypeStruct((1, resolution, resolution, 3), jnp.float32)
  with nn.intercept_methods(interceptor):
    made = jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), images)
  params, place, places = made['params'], -1, {}
  for name in (name for name in calls if name in params):
    place += not params[name].keys() <= {'scale', 'bias'}
    places[name] = max(0, place)
  return {name: place - places.get(name, 0) for name in params}


def label(factor: float) -> str:
  """Returns what the parameters of a factor are called."""
  return f'x{factor:g}'


def labels(params: Any, optimizer: ConfigDict) -> Any:
  """Returns the label of every parameter's factor, as a tree like `params`.

  Args:
    params: Of the switchable network.
    optimizer: `config.optimizer`; reads `freeze` and `rates`.

  Raises:
    ValueError: A pattern matches no parameter: it would do nothing in silence. Or no parameter would learn.
  """
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  rates, frozen_first = pairs(optimizer), len(optimizer.freeze)
  for number, (pattern, _) in enumerate(rates):
    if not any(_matches(pattern, plain_path(path), ['/'.join(_names(path))]) for path in paths):
      field = 'freeze' if number < frozen_first else 'rates'
      raise ValueError(
        f'config.optimizer.{field}: got {pattern!r}, expected a pattern of some parameters, such as '
        f'{plain_path(paths[0])!r}'
      )
  found = jax.tree_util.tree_map_with_path(lambda path, _: label(_of_leaf(path, rates)), params)
  if set(jax.tree.leaves(found)) == {label(0.0)}:
    named = ', '.join(repr(pattern) for pattern, factor in rates if not factor)
    raise ValueError(f'config.optimizer: freeze and rates, {named}, leave no parameter to learn, expected some')
  return found


def held(params: Any, rates: Pairs) -> Any:
  """Returns parameters of which those with the factor 0 are constants: they cost no way back."""
  if all(factor for _, factor in rates):
    return params
  return jax.tree_util.tree_map_with_path(lambda path, x: x if _of_leaf(path, rates) else stop_gradient(x), params)


def holding(loss_fn: Callable[..., Any], rates: Pairs) -> Callable[..., Any]:
  """Returns `loss_fn(params, ...)` with its parameters as of `held`."""
  return lambda params, *rest: loss_fn(held(params, rates), *rest)


def frozen(model: nn.Module, rates: Pairs, statistics: str = 'batch') -> nn.Module | Apply:
  """Returns the network whose frozen normalisers run as at evaluation, and leave their statistics as they are.

  Frozen is a module that keeps statistics and whose every parameter has the factor 0, at the branch that is run, by the
  size of the images the first one of it; or a quantised convolution whose kernel has, which leaves its bases as they
  are.

  Args:
    model: A plain network.
    rates: As of `factor_of`.
    statistics: 'kept': all normalisers run so; with 'batch' and no factor of 0 the model is returned as it is.
  """
  if statistics == 'batch' and all(factor for _, factor in rates):
    return model
  run = linen(model)

  def at(branch: Resolution | None) -> Apply:
    def apply(variables: Any, images: Array, train: bool, **options: Any) -> tuple[Array, Any]:
      here = at_width((images.shape[1], images.shape[2]), options.get('width', 1.0)) if branch is None else branch
      own = f'private/{key_of(here)}', f'private/{SHARED_SET}'

      def stays(path: str, private: bool) -> bool:
        sets = own if private else ('shared',)
        kept = private and statistics == 'kept'
        return kept or not factor_of(path, rates, [f'{name}/{path}' for name in sets])

      with nn.intercept_methods(_interceptor(stays)):
        return run(variables, images, train, **options)

    return apply

  return Branched(at)


def _interceptor(stays: Any) -> Any:
  """Makes normalisers and quantised layers run as at evaluation where `stays(path, private)` is of all they learn."""

  def interceptor(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    module = context.module
    private = module.has_variable('batch_stats', 'mean')
    if context.method_name != '__call__' or not (private or isinstance(module, quantised.Conv)):
      return call(*args, **kwargs)
    prefix = '/'.join(module.path)
    if not all(stays(f'{prefix}/{name}', private) for name in module.variables.get('params', {'statistics': None})):
      return call(*args, **kwargs)
    if isinstance(module, nn.BatchNorm):
      if module.use_running_average is None:
        return call(*args, **kwargs | {'use_running_average': True})
      object.__setattr__(module, 'use_running_average', True)  # of this call's own instance
      return call(*args, **kwargs)
    return call(*args, **kwargs | {'train': False, 'mask': None})

  return interceptor
