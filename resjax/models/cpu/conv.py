"""Convolutions as a network asks for them, each computed the way that its platform is fast at."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

from resjax.apply import CONVOLUTION
from resjax.models.cpu.depthwise import NHWC, depthwise
from resjax.models.cpu.pointwise import pointwise


def conv_general_dilated(lhs: Array, rhs: Array, window_strides: Sequence[int], padding: Any, **options: Any) -> Array:
  """Returns what `jax.lax.conv_general_dilated` does, faster on a CPU where the convolution is depthwise or of 1x1.

  To be given to a convolution of Flax: `nn.Conv(..., conv_general_dilated=cpu.conv_general_dilated)`. Both kinds have
  two dimensions, nothing dilated, and no precision of their own. Depthwise means as many groups as channels and
  outputs: such a convolution is differentiable in reverse mode, as often as you like, but not in forward mode
  (`jax.jvp`). One of 1x1 has one group and no padding; with strides, at numbers of positions that are known. To a
  policy of `jax.checkpoint` their outputs are no operation's, but have the name 'convolution'.

  Args:
    lhs: The images, `[B, H, W, C]`.
    rhs: The kernel, `[h, w, C / groups, features]`.
    window_strides: In both directions.
    padding: 'SAME', 'VALID' or pairs, one for each direction.
    **options: The other arguments of `jax.lax.conv_general_dilated`.
  """
  if _is_plain(lhs, rhs, window_strides, options):
    channels, groups = lhs.shape[-1], options.get('feature_group_count') or 1
    strides = (int(window_strides[0]), int(window_strides[1]))
    if channels > 1 and groups == channels and rhs.shape[2:] == (1, channels):
      if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
      rows, columns = ((int(low), int(high)) for low, high in padding)
      return checkpoint_name(depthwise(lhs, rhs, strides, (rows, columns)), CONVOLUTION)
    if groups == 1 and _is_product(lhs, rhs, strides, padding):
      return checkpoint_name(pointwise(lhs, rhs, strides), CONVOLUTION)
  return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)


def _is_product(lhs: Array, rhs: Array, strides: tuple[int, int], padding: Any) -> bool:
  """Whether a convolution of one group is one that `pointwise` computes: of 1x1, at positions that can be laid flat."""
  if rhs.shape[:3] != (1, 1, lhs.shape[-1]) or 0 in (lhs.shape[-1], rhs.shape[-1]) or min(strides) < 1:
    return False
  if strides != (1, 1) and not all(isinstance(n, int) for n in lhs.shape[1:3]):
    return False  # of unknown sizes JAX can't tell that a slice has as many positions as the convolution
  if any(jax.typeof(lhs).sharding.spec[1:3]):
    return False  # positions that an explicit mesh has in several places
  if isinstance(padding, str):
    return padding.upper() in ('SAME', 'SAME_LOWER', 'VALID')  # of 1x1 all mean none
  pairs = isinstance(padding, Sequence) and all(isinstance(pair, Sequence) for pair in padding)
  return pairs and [list(pair) for pair in padding] == [[0, 0], [0, 0]]


def _is_plain(lhs: Array, rhs: Array, strides: Sequence[int], options: dict[str, Any]) -> bool:
  """Whether a convolution is one of images, of one floating type, in which nothing is dilated."""
  numbers = options.get('dimension_numbers')
  if lhs.ndim != 4 or rhs.ndim != 4 or len(strides) != 2 or numbers is None:
    return False
  if lax.conv_dimension_numbers(lhs.shape, rhs.shape, numbers) != lax.conv_dimension_numbers(
    lhs.shape, rhs.shape, NHWC
  ):
    return False
  dilated = any(set(options.get(name) or (1,)) != {1} for name in ('lhs_dilation', 'rhs_dilation'))
  other = set(options) - {'dimension_numbers', 'lhs_dilation', 'rhs_dilation', 'feature_group_count'}
  return (
    lhs.dtype == rhs.dtype
    and jnp.issubdtype(lhs.dtype, jnp.floating)
    and not dilated
    and not any(options[name] is not None for name in other if not (name == 'batch_group_count' and options[name] == 1))
  )
