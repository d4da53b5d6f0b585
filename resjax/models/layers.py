"""The layer the networks are made of: a convolution and a BatchNorm that can skip samples."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resjax.models import cpu

# Kaiming normal; fan_out = output channels x kernel area, as torch counts it in grouped layers too.
kaiming_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')

# So many counted samples are normalised by their own statistics alone.
ENOUGH = 8


def check_inputs(images: jax.Array, mask: jax.Array | None) -> None:
  """Raises ValueError unless images are float [B, H, W, 3] and mask, if any, is [B]."""
  if images.ndim != 4 or images.shape[-1] != 3 or not jnp.issubdtype(images.dtype, jnp.floating):
    raise ValueError(f'images: expected float [B, H, W, 3], got {images.dtype} {images.shape}')
  if mask is not None and mask.shape != images.shape[:1]:
    raise ValueError(f'mask: expected shape [{images.shape[0]}], got {mask.shape}')


def inner_of(inner: Sequence[tuple[int, ...]], blocks: int) -> Iterator[tuple[int, ...]]:
  """Returns for each block its channels inside, () where it has the usual ones.

  Args:
    inner: Of each block, or ().
    blocks: How many there are.

  Raises:
    ValueError: There are other numbers of them, or channels that are none.
  """
  if inner and (len(inner) != blocks or any(n < 1 for each in inner for n in each)):
    raise ValueError(f'model.inner: got {tuple(inner)}, expected channels, 1 or more, for each of the {blocks} blocks')
  return iter(inner or [()] * blocks)


def inside(inner: tuple[int, ...], usual: tuple[int, ...]) -> tuple[int, ...]:
  """Returns the channels inside of a block: `inner`, or the usual ones where it is ().

  Raises:
    ValueError: They are of another number than the usual ones.
  """
  if inner and len(inner) != len(usual):
    raise ValueError(f'model.inner: got {inner} for a block, expected {len(usual)} of its layers, or ()')
  return inner or usual


def at_least_float32(x: jax.Array) -> jax.Array:
  """Returns x in float32, or as it is where it is more precise."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Norm(nn.Module):
  """BatchNorm whose training statistics count only the samples of a mask.

  Variables, names and numbers are those of `flax.linen.BatchNorm`. It differs where a mask is
  given: every counted sample weighs the same, however they are spread over the devices. Where fewer
  than `ENOUGH` count, samples with the running statistics fill up: deep maps of one or two images
  hardly vary, and what does not count, yet is normalised too, would be divided by nearly nothing in
  layer after layer. Where none counts, the running statistics normalise and stay as they are, bit
  for bit (Flax has NaN).

  Attributes:
    dtype: of the result; parameters and statistics are float32.
    axis_name: the named axis whose devices share their statistics; None: each has its own.
    momentum: weight of the old running statistics (Flax's convention: 0.9 is torch's 0.1).
    epsilon: added to the variance.
    scale_init: initialiser of the scale.
  """

  dtype: str = 'float32'
  axis_name: str | None = None
  momentum: float = 0.9
  epsilon: float = 1e-5
  scale_init: Callable = nn.initializers.ones

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
    """Returns x [B, ..., C] normalised, in `dtype`.

    Args:
      x: [B, ..., C].
      train: normalise by the statistics of this batch and update the running ones.
      mask: [B], nonzero where a sample counts; None: all do.
    """
    channels = x.shape[-1:]
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, channels, jnp.float32)
    running_var = self.variable('batch_stats', 'var', jnp.ones, channels, jnp.float32)
    scale = self.param('scale', self.scale_init, channels, jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, channels, jnp.float32)

    mean, var = running_mean.value, running_var.value
    if train:
      axis_name = None if self.is_initializing() else self.axis_name
      batch_mean, batch_square, count = _moments(x, mask, axis_name)
      batch_var = jnp.maximum(batch_square - batch_mean**2, 0)
      if mask is not None:
        mean, var = jax.lax.stop_gradient((mean, var))  # where sizes share them, they come from another size
        share = jnp.minimum(count / ENOUGH, 1)
        batch_var = share * batch_var + (1 - share) * (var + share * (batch_mean - mean) ** 2)
        batch_mean = share * batch_mean + (1 - share) * mean
      if not self.is_initializing():
        for running, batch in (running_mean, batch_mean), (running_var, batch_var):
          new = self.momentum * running.value + (1 - self.momentum) * batch
          running.value = jnp.where(count > 0, new, running.value)
      mean, var = batch_mean, batch_var

    mean, scale, bias = (
      jnp.expand_dims(v, range(x.ndim - 1)) for v in (mean, scale * jax.lax.rsqrt(var + self.epsilon), bias)
    )
    return ((x - mean) * scale + bias).astype(self.dtype)


def _moments(x, mask, axis_name):
  """Mean [C] and mean square [C] of x [B, ..., C] over the samples that count; their number."""
  x = at_least_float32(x)
  axes = tuple(range(x.ndim - 1))
  if mask is None:
    count = x.shape[0]
    moments = jnp.stack([x.mean(axes), (x * x).mean(axes)])
    return *(jax.lax.pmean(moments, axis_name) if axis_name else moments), count
  mask = mask.astype(bool)
  x = jnp.where(jnp.expand_dims(mask, range(1, x.ndim)), x, 0)
  count = mask.sum(dtype=x.dtype)
  sums = jnp.stack([x.sum(axes), (x * x).sum(axes)])
  if axis_name:
    sums, count = jax.lax.psum((sums, count), axis_name)
  positions = x[0, ..., 0].size
  return *(sums / (jnp.maximum(count, 1) * positions)), count


def convolve(
  x: jax.Array,
  features: int,
  kernel_size: int,
  stride: int = 1,
  *,
  name: str,
  train: bool,
  mask: jax.Array | None,
  groups: int = 1,
  dtype: str = 'float32',
  conv: Callable | None = None,
) -> jax.Array:
  """Returns x convolved: [B, ceil(H / stride), ceil(W / stride), features]; arguments as of `conv_norm`."""
  make: Any = conv or nn.Conv
  layer = make(
    features=features,
    kernel_size=(kernel_size, kernel_size),
    strides=stride,
    padding=kernel_size // 2,
    feature_group_count=groups,
    use_bias=False,
    dtype=dtype,
    kernel_init=kaiming_normal,
    conv_general_dilated=cpu.conv_general_dilated,
    name=name,
  )
  return layer(x) if conv is None else layer(x, train=train, mask=mask)


def conv_norm(
  x: jax.Array,
  features: int,
  kernel_size: int,
  stride: int = 1,
  *,
  names: tuple[str, str],
  train: bool,
  mask: jax.Array | None,
  groups: int = 1,
  dtype: str = 'float32',
  axis_name: str | None = None,
  scale_init: Callable = nn.initializers.ones,
  conv: Callable | None = None,
) -> jax.Array:
  """Returns x convolved and normalised: [B, ceil(H / stride), ceil(W / stride), features].

  Padding is torch's: (kernel_size - 1) / 2 on every side (Flax's 'SAME' differs at stride 2). To be
  called inside a module's compact `__call__`: that module gets the two submodules.

  Args:
    x: [B, H, W, C].
    features: output channels.
    kernel_size: of a square kernel, odd.
    stride: in both directions.
    names: of the convolution and of its norm.
    train: see Norm.
    mask: see Norm.
    groups: groups of channels that are convolved apart.
    dtype: of the computation.
    axis_name: see Norm.
    scale_init: initialiser of the norm's scale.
    conv: the convolution, made as flax.linen.Conv is and called with train and mask too; None: that itself.
  """
  x = convolve(
    x, features, kernel_size, stride, name=names[0], train=train, mask=mask, groups=groups, dtype=dtype, conv=conv
  )
  norm = Norm(dtype=dtype, axis_name=axis_name, scale_init=scale_init, name=names[1])
  return norm(x, train=train, mask=mask)


def mean_pool(x: jax.Array) -> jax.Array:
  """Returns the mean over all positions of x [B, H, W, C]: float32 [B, C]."""
  return at_least_float32(x).mean((1, 2))
