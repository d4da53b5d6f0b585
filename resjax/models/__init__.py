"""Plain image networks: `model.apply(variables, images, train=..., mask=...)` gives logits."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from resjax.models import foreign, quantised
from resjax.models.mobilenetv2 import MobileNetV2
from resjax.models.preact import PreactResNet
from resjax.models.resnet import BasicBlock, Bottleneck, ResNet
from resjax.telling import shown

__all__ = [
  'MODELS',
  'BasicBlock',
  'Bottleneck',
  'MobileNetV2',
  'PreactResNet',
  'ResNet',
  'bits_of',
  'check_mask',
  'check_name',
  'create',
  'from_config',
  'inner_of',
]

_MOST_CHANNELS = 2**20

_basic = functools.partial(ResNet, block=BasicBlock)
_bottleneck = functools.partial(ResNet, block=Bottleneck)

MODELS: dict[str, Callable[..., nn.Module]] = {
  'resnet18': functools.partial(_basic, stages=(2, 2, 2, 2)),
  'resnet34': functools.partial(_basic, stages=(3, 4, 6, 3)),
  'resnet50': functools.partial(_bottleneck, stages=(3, 4, 6, 3)),
  'resnet101': functools.partial(_bottleneck, stages=(3, 4, 23, 3)),
  'resnet152': functools.partial(_bottleneck, stages=(3, 8, 36, 3)),
  'resnext50_32x4d': functools.partial(
    ResNet, block=functools.partial(Bottleneck, groups=32, group_width=4), stages=(3, 4, 6, 3)
  ),
  'mobilenetv2': MobileNetV2,
  'resnet_small': functools.partial(_basic, stages=(1, 1, 1), features=16, small_images=True),
  'preact_resnet18': functools.partial(PreactResNet, stages=(2, 2, 2, 2)),
  'preact_resnet34': functools.partial(PreactResNet, stages=(3, 4, 6, 3)),
  'preact_resnet50': functools.partial(PreactResNet, stages=(3, 4, 6, 3), bottleneck=True),
  'preact_resnet_small': functools.partial(PreactResNet, stages=(1, 1, 1), features=16, small_images=True),
}


def check_name(name: str) -> None:
  """Raises ValueError unless this is a key of MODELS, or 'package.module:factory' that can be imported."""
  if name in MODELS:
    return
  if not isinstance(name, str) or ':' not in name:
    raise ValueError(f'model.name: got {name!r}, expected one of {", ".join(MODELS)}, or package.module:factory')
  foreign.find(name)


def create(
  name: str,
  *,
  num_classes: int,
  width: float = 1.0,
  zero_init_last_gamma: bool = False,
  dtype: str = 'float32',
  axis_name: str | None = None,
  conv: Callable[..., nn.Module] | None = None,
  **options: Any,
) -> nn.Module:
  """Returns the network of this name; attributes of ours are described at ResNet, PreactResNet and MobileNetV2.

  A factory of yours, 'package.module:factory', is called with those of these keywords that its signature takes; one
  that it does not take must have its default.

  Args:
    name: a key of MODELS, or 'package.module:factory'.
    num_classes: length of the logits.
    width: multiplies the channels of every layer.
    zero_init_last_gamma: residual blocks start as the identity.
    dtype: of the computation, 'float32' or 'bfloat16'.
    axis_name: the named axis over which BatchNorm normalises in training.
    conv: every convolution but the first, as `quantised.conv_of` has it; None: `flax.linen.Conv`.
    **options: other attributes of this network, as `stages` of a ResNet.

  Raises:
    ValueError: one of them is not what the network takes; names it.
  """
  check_name(name)
  if not isinstance(num_classes, int) or num_classes < 1:
    raise ValueError(f'model.num_classes: expected a positive integer, got {num_classes!r}')
  if not width > 0:
    raise ValueError(f'model.width: expected a positive number, got {width!r}')
  if dtype not in ('float32', 'bfloat16'):
    raise ValueError(f"model.dtype: expected 'float32' or 'bfloat16', got {dtype!r}")
  given = {'width': width, 'zero_init_last_gamma': zero_init_last_gamma, 'dtype': dtype, 'axis_name': axis_name}
  given['conv'] = conv
  if name not in MODELS:
    return foreign.create(name, num_classes=num_classes, given=given, options=options)
  known = set(inspect.signature(MODELS[name]).parameters) - {'parent', 'name'}
  for option in options:
    if option not in known:
      expected = ', '.join(sorted(known))
      raise ValueError(f'model.{option}: {name} has no such option, expected one of {expected}')
  for option in sorted(given.keys() - known):
    if given[option] != foreign.DEFAULTS[option]:
      raise ValueError(f'model.{option}: got {given[option]!r}, and {name} has no such option')
  return MODELS[name](num_classes=num_classes, **{k: v for k, v in given.items() if k in known}, **options)


def from_config(config: ConfigDict, axis_name: str | None = None) -> nn.Module:
  """Returns the network that `config.model` describes.

  Args:
    config: As in configs/default.py; reads `model`, and `resolutions` to check a network that is not ours.
    axis_name: As in `create`.

  Raises:
    ValueError: A field is not what the network takes, or the network is not one that can be trained; names it.
  """
  fields = config.model
  model = create(
    fields.name,
    num_classes=fields.num_classes,
    width=fields.width,
    zero_init_last_gamma=fields.zero_init_last_gamma,
    dtype=fields.dtype,
    axis_name=axis_name,
    conv=quantised.conv_of(bits_of(fields), axis_name),
    **({'inner': inner} if (inner := inner_of(fields)) else {}),
  )
  if fields.name not in MODELS:
    resolutions = tuple(config.resolutions)
    foreign.check(model, fields.name, num_classes=fields.num_classes, resolutions=resolutions, axis_name=axis_name)
  return model


def bits_of(fields: ConfigDict) -> quantised.Bits:
  """Returns the bits of a network's weights and activations.

  Args:
    fields: `config.model`; reads `name` and `quantise`.

  Raises:
    ValueError: They are none, or of activations that may be below 0.
  """
  bits = quantised.parse(fields.quantise)
  if fields.name == 'mobilenetv2' and bits.activations != quantised.FLOAT:
    raise ValueError(
      f"model.quantise: got {fields.quantise!r} with model.name='mobilenetv2', expected activations of "
      f'{quantised.FLOAT} bits: some of them are below 0'
    )
  return bits


def inner_of(fields: ConfigDict) -> tuple[tuple[int, ...], ...]:
  """Returns the channels inside of each block; (): as the architecture has them.

  Args:
    fields: `config.model`; reads `inner`.

  Raises:
    ValueError: They are none.
  """
  found = tuple(tuple(each) if isinstance(each, tuple | list) else (None,) for each in fields.inner)
  if not all(type(n) is int and 0 < n <= _MOST_CHANNELS for each in found for n in each):
    raise ValueError(
      f'model.inner: got {shown(fields.inner)}, expected channels, 1 to {_MOST_CHANNELS:,}, for each block, such as '
      '((8,), (16,), (32,))'
    )
  return found


def check_mask(model: nn.Module, name: str) -> None:
  """Raises ValueError unless a network can count some images alone, as DRNet asks while it trains the network."""
  if not foreign.takes(model, 'mask'):
    raise ValueError(
      f"model.name: {name} takes no mask, expected model(images, *, train, mask=None) with method='drnet', "
      'or drnet.frozen=True'
    )
