"""Plain image networks: `model.apply(variables, images, train=..., mask=...)` gives logits."""

import functools
import inspect
from collections.abc import Callable

import flax.linen as nn
from ml_collections import ConfigDict

from resjax.models.mobilenetv2 import MobileNetV2
from resjax.models.resnet import BasicBlock, Bottleneck, ResNet

__all__ = ['MODELS', 'BasicBlock', 'Bottleneck', 'MobileNetV2', 'ResNet', 'create', 'from_config']

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
}


def create(
  name: str,
  *,
  num_classes: int,
  width: float = 1.0,
  zero_init_last_gamma: bool = False,
  dtype: str = 'float32',
  axis_name: str | None = None,
  **options,
) -> nn.Module:
  """Returns the network of this name; its attributes are described at ResNet and MobileNetV2.

  Args:
    name: a key of MODELS.
    num_classes: length of the logits.
    width: multiplies the channels of every layer.
    zero_init_last_gamma: residual blocks start as the identity.
    dtype: of the computation, 'float32' or 'bfloat16'.
    axis_name: the named axis over which BatchNorm normalises in training.
    **options: other attributes of this network, as `stages` of a ResNet.

  Raises:
    ValueError: one of them is not what the network takes; names it.
  """
  if name not in MODELS:
    raise ValueError(f'model.name: unknown model {name!r}, expected one of {", ".join(MODELS)}')
  if not isinstance(num_classes, int) or num_classes < 1:
    raise ValueError(f'model.num_classes: expected a positive integer, got {num_classes!r}')
  if not width > 0:
    raise ValueError(f'model.width: expected a positive number, got {width!r}')
  if dtype not in ('float32', 'bfloat16'):
    raise ValueError(f"model.dtype: expected 'float32' or 'bfloat16', got {dtype!r}")
  known = set(inspect.signature(MODELS[name]).parameters) - {'parent', 'name'}
  for option in options:
    if option not in known:
      expected = ', '.join(sorted(known))
      raise ValueError(f'model.{option}: {name} has no such option, expected one of {expected}')
  return MODELS[name](
    num_classes=num_classes,
    width=width,
    zero_init_last_gamma=zero_init_last_gamma,
    dtype=dtype,
    axis_name=axis_name,
    **options,
  )


def from_config(config: ConfigDict, axis_name: str | None = None) -> nn.Module:
  """Returns the network that `config.model` describes.

  Args:
    config: As in configs/default.py; only `model` is read.
    axis_name: As in `create`.

  Raises:
    ValueError: A field is not what the network takes; names it.
  """
  fields = config.model
  return create(
    fields.name,
    num_classes=fields.num_classes,
    width=fields.width,
    zero_init_last_gamma=fields.zero_init_last_gamma,
    dtype=fields.dtype,
    axis_name=axis_name,
  )
