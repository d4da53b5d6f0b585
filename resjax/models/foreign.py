"""Networks that are not ours, named in a config as 'package.module:factory': found, made and checked."""

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import InvalidRngError

from resjax.models import quantised
from resjax.quantisation import BASES
from resjax.resolution import Resolution, sides

# What a factory is called with where it takes it, besides num_classes; another value than this is refused otherwise.
DEFAULTS: dict[str, Any] = {
  'width': 1.0,
  'zero_init_last_gamma': False,
  'dtype': 'float32',
  'axis_name': None,
  'conv': None,
}


def find(name: str) -> Callable[..., Any]:
  """Returns the factory of a name such as 'package.module:factory', a function or a class.

  Raises:
    ValueError: The name is not of this form, the module can't be imported, fails while it is, or has no such function.
  """
  module, _, attribute = name.partition(':')
  if not all(part.isidentifier() for part in (*module.split('.'), attribute)):
    raise ValueError(f"model.name: got {name!r}, expected 'package.module:factory'")
  try:
    factory = getattr(importlib.import_module(module), attribute, None)
  except ImportError as error:
    raise ValueError(
      f'model.name: got {name!r}, expected a module that Python can import, its folder in PYTHONPATH ({error})'
    ) from error
  except Exception as error:  # whatever a user's module does
    raise ValueError(_failure(name, 'while it is imported', error)) from error
  if not callable(factory):
    found = 'has no such name' if factory is None else f'has a {type(factory).__name__} there'
    raise ValueError(f'model.name: got {name!r}, expected a function or class, and {module} {found}')
  return factory


def create(name: str, *, num_classes: int, given: Mapping[str, Any], options: Mapping[str, Any]) -> nn.Module:
  """Returns the network that a factory makes of those keywords that its signature takes.

  Args:
    name: As in `find`.
    num_classes: Length of the logits.
    given: The values of `DEFAULTS`.
    options: Further keywords, which it must take.

  Raises:
    ValueError: There is no such factory; it does not take what was asked for, needs more, or fails; or what it makes is
      no Flax (linen) module that is called as `model(images, train=...)`.
  """
  wanted, factory = {'num_classes': num_classes, **given, **options}, find(name)
  if isinstance(factory, type) and not issubclass(factory, nn.Module):
    kinds = ', '.join(f'{kind.__module__}.{kind.__qualname__}' for kind in factory.__bases__)
    raise ValueError(f'model.name: {name} is a class of {kinds}, expected a flax.linen.Module')
  try:
    parameters = inspect.signature(factory).parameters.values()
  except TypeError:
    raise ValueError(f'model.name: got {name!r}, expected a function or class with a signature') from None
  chosen = {keyword: value for keyword, value in wanted.items() if _takes(parameters, keyword)}
  for keyword in wanted.keys() - chosen.keys() - {'num_classes'}:
    if keyword == 'axis_name' and wanted[keyword] is not None:
      raise ValueError(f'sync_batch_norm: got True, expected False, since {name} takes no axis_name')
    if keyword == 'conv' and wanted[keyword] is not None:
      raise ValueError(
        f"model.quantise: got {quantised.text_of(wanted['conv'])!r}, expected '', since {name} takes no conv"
      )
    if keyword in options or wanted[keyword] != DEFAULTS[keyword]:
      raise ValueError(f'model.{keyword}: got {wanted[keyword]!r}, and {name} takes no {keyword}')
  variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
  missing = [p.name for p in parameters if p.default is p.empty and p.kind not in variadic and p.name not in chosen]
  if missing:
    known = ', '.join(['num_classes', *DEFAULTS])
    raise ValueError(f'model.name: {name} needs {", ".join(missing)}, expected no others than {known}')
  with _named(name, 'when it is called'):
    model = factory(**chosen)
  if not isinstance(model, nn.Module):
    raise ValueError(f'model.name: {name} gives a {type(model).__name__}, expected a flax.linen.Module')
  if not takes(model, 'train'):
    raise ValueError(f'model.name: {name} gives a network that takes no train, expected model(images, *, train)')
  return model


def _failure(name: str, doing: str, error: Exception) -> str:
  """What a user's code did, in one line."""
  first = next(iter(str(error).splitlines()), '')
  return f'model.name: {name} fails {doing}, expected no error ({type(error).__name__}: {first[:300]})'


@contextlib.contextmanager
def _named(name: str, doing: str) -> Iterator[None]:
  """What a user's code raises inside ends in one line that names it, with the error as its cause."""
  try:
    yield
  except Exception as error:
    raise ValueError(_failure(name, doing, error)) from error


def takes(model: nn.Module, keyword: str) -> bool:
  """Whether a network's call has this keyword."""
  return _takes(inspect.signature(type(model).__call__).parameters.values(), keyword)


def _takes(parameters: Any, keyword: str) -> bool:
  """Whether a signature has this keyword."""
  named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
  return any(p.kind == p.VAR_KEYWORD or (p.name == keyword and p.kind in named) for p in parameters)


def check(
  model: nn.Module, name: str, *, num_classes: int, resolutions: Sequence[Resolution], axis_name: str | None
) -> None:
  """Raises ValueError unless training can take the network; computes shapes alone.

  Args:
    model: As `create` returns it.
    name: What errors call it.
    num_classes: Length of the logits that it must give.
    resolutions: Of its images, pixels, highest first.
    axis_name: The named axis over which its BatchNorm normalises.
  """
  sizes = [jax.ShapeDtypeStruct((2, *sides(resolution), 3), jnp.float32) for resolution in resolutions]
  images = sizes[0]
  with _named(name, f'at images {images.shape}'):
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
  if not variables.get('batch_stats'):
    raise ValueError(f'model.name: {name} keeps no batch statistics, expected a network with flax.linen.BatchNorm')
  if others := sorted(variables.keys() - {'params', 'batch_stats', BASES}):
    raise ValueError(f'model.name: {name} keeps {", ".join(others)} too, expected params and batch_stats alone')
  for size in sizes:
    with _named(name, f'at images {size.shape}'):
      logits = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, size)
    if getattr(logits, 'shape', None) != (2, num_classes):
      got = getattr(logits, 'shape', f'a {type(logits).__name__}')
      raise ValueError(f'model.name: {name} gives {got} for two images, expected logits {(2, num_classes)}')

  def train(x: jax.Array) -> Any:
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), variables)
    return model.apply(zeros, x, train=True, mutable=True)

  try:
    jax.eval_shape(jax.vmap(train, axis_name=axis_name), jax.ShapeDtypeStruct((1, *images.shape), jnp.float32))
  except InvalidRngError:
    raise ValueError(
      f'model.name: {name} draws random numbers in training, expected a network without Dropout'
    ) from None
  except Exception as error:
    raise ValueError(_failure(name, 'in training', error)) from error
