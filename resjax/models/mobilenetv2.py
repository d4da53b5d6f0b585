"""MobileNetV2 (Sandler et al., 2018) in torchvision's layout, without dropout, as in RS-Net."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax

from resjax.models import layers

# Expansion, channels, blocks and stride of the first block of each stage (table 2 of the paper).
STAGES = (
  (1, 16, 1, 1),
  (6, 24, 2, 2),
  (6, 32, 3, 2),
  (6, 64, 4, 2),
  (6, 96, 3, 1),
  (6, 160, 3, 2),
  (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
  """A widening 1x1, a depthwise 3x3 and a linear 1x1 convolution.

  A shortcut goes around them where the shape stays.

  Attributes:
    features: output channels.
    stride: of the depthwise convolution.
    expansion: the depthwise convolution's channels over the input's; 1: no widening convolution.
    layer: `layers.conv_norm` with the network's dtype and axis name.
    zero_init_last_gamma: a block with a shortcut starts as the identity.
    inner: the depthwise convolution's channels, (n,); (): as `expansion` says.
  """

  features: int
  stride: int
  expansion: int
  layer: Callable
  zero_init_last_gamma: bool
  inner: tuple[int, ...] = ()

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
    """Returns [B, ceil(H / stride), ceil(W / stride), features] for x [B, H, W, C]."""
    layer = functools.partial(self.layer, train=train, mask=mask)
    residual = self.stride == 1 and x.shape[-1] == self.features
    usual = (x.shape[-1] * self.expansion,) if self.expansion != 1 else ()
    (inner,) = layers.inside(self.inner, usual) or x.shape[-1:]
    y = x
    if self.expansion != 1:
      y = nn.relu6(layer(y, inner, 1, names=('expand_conv', 'expand_bn')))
    names = ('depthwise_conv', 'depthwise_bn')
    y = nn.relu6(layer(y, inner, 3, self.stride, groups=inner, names=names))
    zero = self.zero_init_last_gamma and residual
    scale_init = nn.initializers.zeros if zero else nn.initializers.ones
    y = layer(y, self.features, 1, names=('project_conv', 'project_bn'), scale_init=scale_init)
    return x + y if residual else y


class MobileNetV2(nn.Module):
  """MobileNetV2; the numbers and initialisers are those of torchvision.

  Attributes:
    num_classes: length of the logits.
    width: multiplies the channels of every layer, rounded to multiples of 8; the last convolution
      has at least 1280.
    zero_init_last_gamma: blocks with a shortcut start as the identity: their last norm's scale
      is 0.
    dtype: of the computation, 'float32' or 'bfloat16'; parameters, statistics and logits are
      float32.
    axis_name: the named axis over which BatchNorm normalises in training; None: this device's
      part of the batch.
    conv: of every convolution but the first, see `layers.conv_norm`.
    inner: of each block in their order its channels inside, as of a pruned network, where it widens; (): as the
      architecture has them.
    stages: as `STAGES` has them.
  """

  num_classes: int
  width: float = 1.0
  zero_init_last_gamma: bool = False
  dtype: str = 'float32'
  axis_name: str | None = None
  conv: Callable[..., nn.Module] | None = None
  inner: tuple[tuple[int, ...], ...] = ()
  stages: tuple[tuple[int, int, int, int], ...] = STAGES

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
    """Returns the logits, float32 [B, num_classes].

    Args:
      images: float [B, H, W, 3], normalised.
      train: BatchNorm takes the statistics of this batch and updates the running ones.
      mask: [B], nonzero where a sample counts in these statistics; None: all do.

    Raises:
      ValueError: images or mask have another shape or type, or an attribute is not what it must be.
    """
    layers.check_inputs(images, mask)
    if not all(isinstance(stage, tuple) and len(stage) == 4 for stage in self.stages):
      raise ValueError(f'stages: got {self.stages!r}, expected of each (expansion, channels, blocks, stride)')
    inner = layers.inner_of(self.inner, sum(blocks for _, _, blocks, _ in self.stages))
    layer = functools.partial(layers.conv_norm, dtype=self.dtype, axis_name=self.axis_name)
    stem = functools.partial(layer, train=train, mask=mask)
    x = nn.relu6(stem(images, _divisible(32 * self.width), 3, 2, names=('conv1', 'bn1')))
    layer = functools.partial(layer, conv=self.conv)
    for stage, (expansion, features, blocks, stride) in enumerate(self.stages):
      for index in range(blocks):
        x = InvertedResidual(
          features=_divisible(features * self.width),
          stride=stride if index == 0 else 1,
          expansion=expansion,
          layer=layer,
          zero_init_last_gamma=self.zero_init_last_gamma,
          name=f'stage{stage + 1}_block{index + 1}',
          inner=next(inner),
        )(x, train, mask)
    last = _divisible(1280 * max(1.0, self.width))
    x = nn.relu6(layer(x, last, 1, names=('final_conv', 'final_bn'), train=train, mask=mask))
    normal = nn.initializers.normal(0.01)
    return nn.Dense(self.num_classes, kernel_init=normal, name='head')(layers.mean_pool(x))


def _divisible(channels):
  """The multiple of 8 nearest to channels that is not more than 10 % below it, at least 8."""
  rounded = max(8, int(channels + 4) // 8 * 8)
  return rounded if rounded >= 0.9 * channels else rounded + 8
