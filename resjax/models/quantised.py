"""A convolution whose weights, and the activations that it is given, take few values: what a network calls as `conv`.

The bases stand in a collection of their own, `bases`, beside the parameters: they are no parameters, follow in training
what they are given, and belong to the weights, not to an input size.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from resjax import quantisation
from resjax.quantisation import BASES

FLOAT = 32  # bits of what is not quantised
_MOST = 4


class Bits(NamedTuple):
  """How many bits weights and activations have; FLOAT: they are not quantised."""

  weights: int = FLOAT
  activations: int = FLOAT


def parse(text: str) -> Bits:
  """Returns the bits of 'weights/activations', such as '2/32'; '' is '32/32'.

  Raises:
    ValueError: It is none of these.
  """
  if text == '':
    return Bits()
  found = re.fullmatch(r'([1-9]\d?)/([1-9]\d?)', text)
  bits = Bits(*map(int, found.groups())) if found else Bits()
  if bits == Bits() or not all(b <= _MOST or b == FLOAT for b in bits):
    raise ValueError(
      f'model.quantise: got {text!r}, expected bits of weights and activations, each 1 to {_MOST} or {FLOAT}, such as '
      "'2/32', or ''"
    )
  return bits


def conv_of(bits: Bits, axis_name: str | None = None) -> Callable[..., nn.Module] | None:
  """Returns what a network calls as `conv`; None where nothing is quantised.

  Args:
    bits: Of weights and activations.
    axis_name: The named axis whose devices fit their activations' bases together; None: each for itself.
  """
  if bits == Bits():
    return None
  return functools.partial(Conv, weights=bits.weights, activations=bits.activations, axis_name=axis_name)


def text_of(conv: Any) -> str:
  """Returns the bits of what `conv_of` gave, as `parse` takes them."""
  return f'{conv.keywords["weights"]}/{conv.keywords["activations"]}'


class Conv(nn.Module):
  """A convolution of quantised weights, or activations, or both (LQ-Nets); parameters are those of `flax.linen.Conv`.

  Attributes:
    features: output channels.
    kernel_size: height and width.
    strides: in both directions.
    padding: zeros on every side.
    feature_group_count: groups of channels that are convolved apart.
    use_bias: False.
    dtype: of the computation; kernel and bases are float32.
    kernel_init: initialiser of the kernel.
    conv_general_dilated: what convolves.
    weights: bits of the kernel; FLOAT: it is as it is.
    activations: bits of the input, none of which is below 0; FLOAT: it is as it is.
    axis_name: see `conv_of`.
  """

  features: int
  kernel_size: Sequence[int]
  strides: int = 1
  padding: int = 0
  feature_group_count: int = 1
  use_bias: bool = False
  dtype: Any = jnp.float32
  kernel_init: Callable = nn.initializers.lecun_normal()
  conv_general_dilated: Callable = jax.lax.conv_general_dilated
  weights: int = FLOAT
  activations: int = FLOAT
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
    """Returns x [B, H, W, C] convolved, [B, ..., features].

    Args:
      x: [B, H, W, C].
      train: the bases follow; what is computed is by those of before.
      mask: [B], nonzero where a sample counts for the activations' basis; None: all do.
    """
    shape = (*self.kernel_size, x.shape[-1] // self.feature_group_count, self.features)
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    if self.weights < FLOAT:
      fan_out = self.features * self.kernel_size[0] * self.kernel_size[1]
      start = functools.partial(quantisation.first_weights, self.weights, fan_out, self.features)
      kernel = self._quantised('weights', kernel, start, train, signed=True)
    if self.activations < FLOAT:
      start = functools.partial(quantisation.first_activations, self.activations)
      wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
      x = self._quantised('activations', wide, start, train, signed=False, mask=mask, axis_name=self.axis_name)
    return self.conv_general_dilated(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      (self.strides, self.strides),
      [(self.padding, self.padding)] * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=self.feature_group_count,
    )

  def _quantised(self, what, x, start, train, *, signed, **counted):
    """What x becomes by its basis, which follows it in training."""
    basis = self.variable(BASES, what, start)
    left = self.variable(BASES, f'{what}_left', jnp.ones, (), jnp.float32)
    y = quantisation.quantise(x, basis.value.astype(x.dtype), signed)
    if train and not self.is_initializing():
      new, count = quantisation.fit(x, basis.value, signed, **counted)
      followed = quantisation.follow(basis.value, left.value, new)
      for variable, value in zip((basis, left), followed):
        variable.value = jnp.where(count > 0, value, variable.value)
    return y


def fixed(conv: Any, params: Any, bases: Any) -> tuple[Callable[..., nn.Module] | None, Any]:
  """Returns what a network calls as `conv` to run with weights that are quantised already, and those.

  It computes the same, without quantising the same weights at every call.

  Args:
    conv: As of `conv_of`.
    params: A plain network's, or the part of them with its convolutions.
    bases: The collection; may lack modules, which stay as they are.
  """

  def walk(params: Any, bases: Any) -> Any:
    found = {name: walk(value, bases.get(name, {})) for name, value in params.items() if isinstance(value, dict)}
    found = params | found
    if 'weights' in bases and not isinstance(bases['weights'], dict):
      found['kernel'] = quantisation.quantise(params['kernel'], bases['weights'], True)
    return found

  bits = Bits(FLOAT, conv.keywords['activations'])
  return conv_of(bits, conv.keywords['axis_name']), walk(params, bases)
