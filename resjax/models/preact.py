"""Pre-activation ResNet (He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016).

BatchNorm and ReLU stand in front of each convolution, so every convolution but the first is given what a ReLU let
through, and what goes around a block is never cut. A shortcut that changes shape is a convolution alone, of what the
block's first one is given; the stem is normalised and activated, and the first block takes it as it comes.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax

from resjax.models import cpu, layers
from resjax.models.resnet import uniform


class PreactBlock(nn.Module):
  """Two 3x3 convolutions, or a 1x1, a 3x3 and a widening 1x1 one, around a shortcut.

  Attributes:
    features: channels of the stage; the output of a bottleneck has four times as many.
    stride: of the first 3x3 convolution.
    norm: `layers.Norm` with the network's dtype and axis name.
    conv: `layers.convolve` with the network's dtype.
    bottleneck: whether there are three convolutions.
    activated: whether the input is normalised and activated already.
  """

  features: int
  stride: int
  norm: Callable
  conv: Callable
  bottleneck: bool
  activated: bool

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
    """Returns [B, ceil(H / stride), ceil(W / stride), features or 4 * features] for x [B, H, W, C]."""
    conv = functools.partial(self.conv, train=train, mask=mask)
    widths, sizes = [self.features] * 2, [3, 3]
    if self.bottleneck:
      widths, sizes = [self.features, self.features, 4 * self.features], [1, 3, 1]
    shortcut, y = x, x
    for number, (width, size) in enumerate(zip(widths, sizes), 1):
      if number > 1 or not self.activated:
        y = nn.relu(self.norm(name=f'bn{number}')(y, train=train, mask=mask))
      if number == 1 and (self.stride != 1 or x.shape[-1] != widths[-1]):
        shortcut = conv(y, widths[-1], 1, self.stride, name='downsample_conv')
      y = conv(y, width, size, self.stride if number == sizes.index(3) + 1 else 1, name=f'conv{number}')
    return y + shortcut


class PreactResNet(nn.Module):
  """A pre-activation residual network; initialisers are those of `resnet.ResNet`.

  Attributes:
    num_classes: length of the logits.
    stages: blocks in each stage; every stage but the first halves the resolution and doubles the
      channels.
    bottleneck: whether a block has three convolutions.
    features: channels of the first stage.
    width: multiplies the channels of every layer.
    small_images: a 3x3 stem without stride or max-pool, for inputs of 8 to 64 px.
    dtype: of the computation, 'float32' or 'bfloat16'; parameters, statistics and logits are
      float32.
    axis_name: the named axis over which BatchNorm normalises in training; None: this device's
      part of the batch.
    conv: of every convolution but the first, see `layers.conv_norm`.
  """

  num_classes: int
  stages: tuple[int, ...] = (2, 2, 2, 2)
  bottleneck: bool = False
  features: int = 64
  width: float = 1.0
  small_images: bool = False
  dtype: str = 'float32'
  axis_name: str | None = None
  conv: Callable[..., nn.Module] | None = None

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
    norm = functools.partial(layers.Norm, dtype=self.dtype, axis_name=self.axis_name)
    features = max(1, round(self.features * self.width))

    kernel_size, stride = (3, 1) if self.small_images else (7, 2)
    stem = functools.partial(layers.conv_norm, dtype=self.dtype, axis_name=self.axis_name, train=train, mask=mask)
    x = nn.relu(stem(images, features, kernel_size, stride, names=('conv1', 'bn1')))
    if not self.small_images:
      x = cpu.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))  # pads with -inf
    for stage, blocks in enumerate(self.stages):
      for index in range(blocks):
        x = PreactBlock(
          features=features * 2**stage,
          stride=2 if stage > 0 and index == 0 else 1,
          norm=norm,
          conv=functools.partial(layers.convolve, dtype=self.dtype, conv=self.conv),
          bottleneck=self.bottleneck,
          activated=stage == index == 0,
          name=f'stage{stage + 1}_block{index + 1}',
        )(x, train, mask)
    x = layers.mean_pool(nn.relu(norm(name='final_bn')(x, train=train, mask=mask)))
    init = uniform(x.shape[-1])
    return nn.Dense(self.num_classes, kernel_init=init, bias_init=init, name='head')(x)
