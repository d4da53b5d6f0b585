"""The predictors of DRNet: networks that look at one small copy of an image and score every resolution.

Two are the paper's (Zhu et al., "Dynamic Resolution Network", NeurIPS 2021): one per backbone, and up to as dear as the
backbone. `small` is ours: one family for all, below a hundredth of the backbone's price.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from resjax import macs, resize
from resjax.models import layers
from resjax.models.resnet import BasicBlock, ResNet
from resjax.resolution import at_widths


class SmallPredictor(nn.Module):
  """Four 3x3 convolutions of stride 2, from 8 channels to 64: 1.1 M multiply-adds at 64 px, 69,312 at 16 px.

  Then the mean over all positions and a linear layer.

  Attributes:
    num_classes: How many resolutions are scored.
    width: Multiplies the channels.
    dtype: Of the computation, 'float32' or 'bfloat16'; parameters, statistics and scores are float32.
    axis_name: The named axis over which BatchNorm normalises in training; None: this device's part of the batch.
  """

  num_classes: int
  width: float = 1.0
  dtype: str = 'float32'
  axis_name: str | None = None

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
    """Returns the scores, float32 `[B, num_classes]`, of normalised images, float `[B, H, W, 3]`."""
    layer = functools.partial(layers.conv_norm, train=train, mask=None, dtype=self.dtype, axis_name=self.axis_name)
    x = images
    for number, features in enumerate((8, 16, 32, 64), 1):
      names = (f'conv{number}', f'bn{number}')
      x = nn.relu(layer(x, max(1, round(features * self.width)), 3, 2, names=names))
    return nn.Dense(self.num_classes, name='head')(layers.mean_pool(x))


# The convolutions of an inverted residual block.
_ROLES = ('expand', 'depthwise', 'project')


class MobilePredictor(nn.Module):
  """The paper's predictor for MobileNetV2: four inverted residual blocks of stride 2 behind a stem of stride 2.

  The paper gives the kind of block and the input of 64 px, not the widths: channels 64, 128, 256, 512 and expansion 1
  (the widening convolution kept) are a guess that fits, 271,747 parameters and 7.32 M multiply-adds.

  Attributes:
    num_classes: How many resolutions are scored.
    width: Multiplies the channels.
    dtype: Of the computation, 'float32' or 'bfloat16'; parameters, statistics and scores are float32.
    axis_name: The named axis over which BatchNorm normalises in training; None: this device's part of the batch.
  """

  num_classes: int
  width: float = 1.0
  dtype: str = 'float32'
  axis_name: str | None = None

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
    """Returns the scores, float32 `[B, num_classes]`, of normalised images, float `[B, H, W, 3]`."""
    layer = functools.partial(layers.conv_norm, train=train, mask=None, dtype=self.dtype, axis_name=self.axis_name)
    x = nn.relu6(layer(images, round(32 * self.width), 3, 2, names=('conv1', 'bn1')))
    for stage, features in enumerate((64, 128, 256, 512), 1):
      inner = x.shape[-1]
      names = {role: (f'stage{stage}_{role}_conv', f'stage{stage}_{role}_bn') for role in _ROLES}
      x = nn.relu6(layer(x, inner, 1, names=names['expand']))
      x = nn.relu6(layer(x, inner, 3, 2, groups=inner, names=names['depthwise']))
      x = layer(x, round(features * self.width), 1, names=names['project'])
    return nn.Dense(self.num_classes, name='head')(layers.mean_pool(x))


# By name: the network, and the input size in pixels that it was made for.
PREDICTORS: dict[str, tuple[Callable[..., nn.Module], int]] = {
  'small': (SmallPredictor, 64),
  'resnet10': (functools.partial(ResNet, block=BasicBlock, stages=(1, 1, 1, 1)), 128),
  'mobile': (MobilePredictor, 64),
}


def create_predictor(
  name: str,
  *,
  resolutions: int,
  width: float = 1.0,
  dtype: str = 'float32',
  axis_name: str | None = None,
) -> nn.Module:
  """Returns the predictor of this name, called as `predictor(images, train=...)`.

  Args:
    name: A key of PREDICTORS.
    resolutions: How many are scored.
    width: Multiplies the channels of every layer.
    dtype: Of the computation, 'float32' or 'bfloat16'.
    axis_name: The named axis over which BatchNorm normalises in training.

  Raises:
    ValueError: The name is unknown; lists the known ones.
  """
  if name not in PREDICTORS:
    raise ValueError(f'drnet.predictor.name: got {name!r}, expected one of {", ".join(PREDICTORS)}')
  return PREDICTORS[name][0](num_classes=resolutions, width=width, dtype=dtype, axis_name=axis_name)


@dataclasses.dataclass(frozen=True)
class Predictor:
  """A predictor and the size that it looks at images in.

  Attributes:
    model: Called as `model.apply(variables, images, train=...)`, gives a score for each resolution.
    size: Of its input in pixels.
  """

  model: nn.Module
  size: int

  @functools.cached_property
  def macs(self) -> int:
    """Multiply-adds of one image."""
    return macs.of_model(self.model, self.size)

  def init(self, key: jax.Array) -> Any:
    """Returns fresh variables."""
    return self.model.init(key, jnp.zeros((1, self.size, self.size, 3)), train=False)

  def outputs(self, variables: Any) -> int:
    """Returns how many resolutions it scores with these variables, its own."""
    image = jax.ShapeDtypeStruct((1, self.size, self.size, 3), jnp.float32)
    return jax.eval_shape(lambda v, x: self.model.apply(v, x, train=False), variables, image).shape[-1]

  def scores(self, variables: Any, images: jax.Array, *, train: bool) -> tuple[jax.Array, Any]:
    """Returns scores `[B, R]` and its new batch_stats.

    Args:
      variables: Its own.
      images: Normalised, float `[B, r, r, 3]`, of any size.
      train: Normalise by the batch and update the running statistics.
    """
    small = resize.resize(images, self.size)
    if not train:
      scores: Any = self.model.apply(variables, small, train=False)
      return scores, variables['batch_stats']
    scores, updates = self.model.apply(variables, small, train=True, mutable=['batch_stats'])
    return scores, updates['batch_stats']


def from_config(config: ConfigDict, axis_name: str | None = None) -> Predictor:
  """Returns the predictor of a config.

  Args:
    config: Reads `resolutions`, `widths`, `model.dtype` and `drnet.predictor`.
    axis_name: The named axis over which its BatchNorm normalises in training; None: each device by itself.
  """
  options = config.drnet.predictor
  model = create_predictor(
    options.name,
    resolutions=len(at_widths(config)),
    width=options.width,
    dtype=config.model.dtype,
    axis_name=axis_name,
  )
  return Predictor(model, options.size or PREDICTORS[options.name][1])
