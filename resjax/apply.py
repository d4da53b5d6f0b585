"""A plain network as a function of its variables: what switching asks of it, whatever library it is written in."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
from flax import linen as nn
from jax import Array

from resjax import widths


class Apply(Protocol):
  """A network as a function: `apply(variables, images, train) -> (logits, variables)`.

  `variables` is the plain tree that `switchable.share` was given. The returned one has the same structure. It holds
  what the network changed, such as running statistics, and all else as it came. Where `switchable.forward` is given a
  mask, the function is called with `mask=` `[B]` as well; at a width with `width=`, a number below 1, and variables of
  which those that are shared may be the wide network's.
  """

  def __call__(self, variables: Any, images: Array, train: bool, /) -> tuple[Array, Any]:
    """Returns the logits `[B, K]` of images `[B, H, W, C]`, and the variables."""


@dataclasses.dataclass(frozen=True)
class Branched:
  """A network that is a function of its own at each branch; where it is called as it is, by one who knows of none.

  Attributes:
    at: Returns it, by the branch, a `resolution.Resolution`; None: it is not known.
  """

  at: Callable[[Any], Apply]

  def __call__(self, variables: Any, images: Array, train: bool, /, **options: Any) -> tuple[Array, Any]:
    """As of `Apply`."""
    return self.at(None)(variables, images, train, **options)


def at(model: nn.Module | Apply, branch: Any) -> nn.Module | Apply:
  """Returns a network as it is at a branch, a `resolution.Resolution`."""
  return model.at(branch) if isinstance(model, Branched) else model


def linen(model: nn.Module) -> Apply:
  """Returns the function of a Flax (linen) module that is called as `model(images, train=...)`, with `mask=` if given.

  In training every collection but `params` may change. At a width it is the narrow module that is called, with the
  leading channels, see `resjax.widths`.
  """

  def apply(variables: Any, images: Array, train: bool, width: float = 1.0, **options: Any) -> tuple[Any, Any]:
    if width != 1:
      shapes = widths.shapes_of(model, width, images.shape[1:])
      narrow = linen(widths.narrowed(model, width))
      return narrow(widths.leading(variables, shapes), images, train, **options)
    if not train:
      return model.apply(variables, images, train=False, **options), variables
    changing = [collection for collection in variables if collection != 'params']
    logits, updates = model.apply(variables, images, train=True, **options, mutable=changing)
    return logits, variables | updates

  return apply


# What `checkpoint_name` calls the output of a convolution that is no operation of its own: it may differ by platform.
CONVOLUTION = 'convolution'

# What a network's forward pass keeps for its backward pass: outputs of these operations and of this name, or nothing
# but its inputs.
KEPT: dict[str, tuple[str, ...]] = {'convolutions': ('conv_general_dilated', 'dot_general', CONVOLUTION), 'all': ()}
REMAT = ('none', *KEPT)


def rematerialised(model: nn.Module | Apply, what: str) -> nn.Module | Apply:
  """Returns a network that in training computes anew on its way back what it does not keep: the same numbers.

  Args:
    model: A linen module, or a function.
    what: 'none': the model itself; 'convolutions': all but the outputs of convolutions and matrix products is computed
      anew; 'all': they too.
  """
  if what == 'none':
    return model
  if isinstance(model, Branched):
    return Branched(lambda resolution: rematerialised(model.at(resolution), what))
  whole: Any = linen(model) if hasattr(model, 'apply') else model  # type: ignore[arg-type]

  def apply(variables: Any, images: Array, train: bool, **options: Any) -> tuple[Any, Any]:
    masks = {'mask': options.pop('mask')} if 'mask' in options else {}
    if not train:
      return whole(variables, images, train, **masks, **options)

    def forward(variables: Any, images: Array, masks: dict[str, Any]) -> tuple[Any, Any]:
      return whole(variables, images, True, **masks, **options)

    def keeps(operation: Any, *_: Any, **params: Any) -> bool:
      return (params['name'] if operation.name == 'name' else operation.name) in KEPT[what]

    kept = jax.checkpoint(forward, policy=keeps)
    return kept(variables, images, masks)

  return apply


def run(
  model: nn.Module | Apply,
  variables: Any,
  images: Array,
  train: bool,
  mask: Array | None = None,
  width: float = 1.0,
) -> tuple[Array, Any]:
  """Returns the logits `[B, K]` of a plain network, and its variables afterwards.

  Args:
    model: A linen module (what has an `apply` is taken for one), or a function, see `Apply`.
    variables: The plain network's.
    images: `[B, H, W, C]`.
    train: See `switchable.forward`.
    mask: `[B]`, see `switchable.forward`; None: it is not passed.
    width: The share of the network's channels that are run; 1: it is not passed.

  Raises:
    ValueError: The function does not return what `Apply` says.
  """
  apply: Any = linen(model) if hasattr(model, 'apply') else model  # type: ignore[arg-type]
  options: dict[str, Any] = ({} if mask is None else {'mask': mask}) | ({} if width == 1 else {'width': width})
  got: Any = apply(variables, images, train, **options)
  structure: Any = jax.tree.structure(variables)
  if not isinstance(got, tuple) or len(got) != 2 or structure != jax.tree.structure(got[1]):
    raise ValueError('model: returned something else, expected (logits, variables), these structured as those it got')
  return got
