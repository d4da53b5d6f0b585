"""ResNet (He et al., 2015) in torchvision's layout.

Version 1.5: a bottleneck's stride is on its 3x3 convolution. One class serves ResNet-18 to 152,
ResNeXt (Xie et al., 2016) and the small-image networks.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from resjax.models import cpu, layers


class BasicBlock(nn.Module):
  """Two 3x3 convolutions around a shortcut.

  Attributes:
    features: channels of the stage.
    stride: of the first convolution.
    layer: `layers.conv_norm` with the network's dtype and axis name.
    last_scale_init: initialiser of the last norm's scale.
    inner: channels of the first convolution, (n,); (): as many as `features`.
  """

  features: int
  stride: int
  layer: Callable
  last_scale_init: Callable
  inner: tuple[int, ...] = ()

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
    """Returns [B, ceil(H / stride), ceil(W / stride), features] for x [B, H, W, C]."""
    layer = functools.partial(self.layer, train=train, mask=mask)
    (inner,) = layers.inside(self.inner, (self.features,))
    y = nn.relu(layer(x, inner, 3, self.stride, names=('conv1', 'bn1')))
    y = layer(y, self.features, 3, names=('conv2', 'bn2'), scale_init=self.last_scale_init)
    return nn.relu(y + _shortcut(layer, x, self.features, self.stride))


class Bottleneck(nn.Module):
  """A 1x1, a 3x3 (grouped in ResNeXt) and a widening 1x1 convolution around a shortcut.

  Attributes:
    features: channels of the stage; the output has four times as many.
    stride: of the 3x3 convolution.
    layer: `layers.conv_norm` with the network's dtype and axis name.
    last_scale_init: initialiser of the last norm's scale.
    groups: of the 3x3 convolution.
    group_width: channels of a group where features is 64.
    inner: channels of the first two convolutions, (n, m); (): as many as these say.
  """

  features: int
  stride: int
  layer: Callable
  last_scale_init: Callable
  groups: int = 1
  group_width: int = 64
  inner: tuple[int, ...] = ()

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
    """Returns [B, ceil(H / stride), ceil(W / stride), 4 * features] for x [B, H, W, C]."""
    layer = functools.partial(self.layer, train=train, mask=mask)
    usual = max(1, self.features * self.group_width // 64) * self.groups
    first, second = layers.inside(self.inner, (usual, usual))
    y = nn.relu(layer(x, first, 1, names=('conv1', 'bn1')))
    y = nn.relu(layer(y, second, 3, self.stride, groups=self.groups, names=('conv2', 'bn2')))
    y = layer(y, 4 * self.features, 1, names=('conv3', 'bn3'), scale_init=self.last_scale_init)
    return nn.relu(y + _shortcut(layer, x, 4 * self.features, self.stride))


def _shortcut(layer, x, features, stride):
  """The block's input, projected where the block changes its shape."""
  if stride == 1 and x.shape[-1] == features:
    return x
  return layer(x, features, 1, stride, names=('downsample_conv', 'downsample_bn'))


class ResNet(nn.Module):
  """A residual network; the numbers and initialisers are those of torchvision.

  Attributes:
    num_classes: length of the logits.
    stages: blocks in each stage; every stage but the first halves the resolution and doubles the
      channels.
    block: BasicBlock or Bottleneck, or a partial of it.
    features: channels of the first stage.
    width: multiplies the channels of every layer.
    small_images: a 3x3 stem without stride or max-pool, for inputs of 8 to 64 px.
    zero_init_last_gamma: residual blocks start as the identity: their last norm's scale is 0.
    dtype: of the computation, 'float32' or 'bfloat16'; parameters, statistics and logits are
      float32.
    axis_name: the named axis over which BatchNorm normalises in training; None: this device's
      part of the batch.
    conv: of every convolution but the first, see `layers.conv_norm`.
    inner: of each block in their order its channels inside, as of a pruned network; (): as the architecture has them.
  """

  num_classes: int
  stages: tuple[int, ...] = (2, 2, 2, 2)
  block: Callable[..., nn.Module] = BasicBlock
  features: int = 64
  width: float = 1.0
  small_images: bool = False
  zero_init_last_gamma: bool = False
  dtype: str = 'float32'
  axis_name: str | None = None
  conv: Callable[..., nn.Module] | None = None
  inner: tuple[tuple[int, ...], ...] = ()

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
    """Returns the logits, float32 [B, num_classes].

    Args:
      images: float [B, H, W, 3], normalised.
      train: BatchNorm takes the statistics of this batch and updates the running ones.
      mask: [B], nonzero where a sample counts in these statistics; None: all do.

    Raises:
      ValueError: images or mask have another shape or type.
    """
    layers.check_inputs(images, mask)
    inner = layers.inner_of(self.inner, sum(self.stages))
    layer = functools.partial(layers.conv_norm, dtype=self.dtype, axis_name=self.axis_name)
    initializers = nn.initializers
    last_scale_init = initializers.zeros if self.zero_init_last_gamma else initializers.ones
    features = max(1, round(self.features * self.width))

    kernel_size, stride = (3, 1) if self.small_images else (7, 2)
    stem = functools.partial(layer, names=('conv1', 'bn1'), train=train, mask=mask)
    x = nn.relu(stem(images, features, kernel_size, stride))
    if not self.small_images:
      x = cpu.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))  # pads with -inf
    for stage, blocks in enumerate(self.stages):
      for index in range(blocks):
        x = self.block(
          features=features * 2**stage,
          stride=2 if stage > 0 and index == 0 else 1,
          layer=functools.partial(layer, conv=self.conv),
          last_scale_init=last_scale_init,
          name=f'stage{stage + 1}_block{index + 1}',
          **({'inner': own} if (own := next(inner)) else {}),
        )(x, train, mask)
    x = layers.mean_pool(x)
    init = uniform(x.shape[-1])
    return nn.Dense(self.num_classes, kernel_init=init, bias_init=init, name='head')(x)


def uniform(fan_in):
  """Returns torch's initialiser of a linear layer, matrix and bias: uniform in +-1 / sqrt(fan_in)."""

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -(fan_in**-0.5), fan_in**-0.5)

  return init
