"""Torch's state dicts and our variables: each in place of the other, bit for bit, without torch."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from resjax import preprocess, switchable, widths
from resjax.interop import layouts
from resjax.interop.files import FACTS
from resjax.models import MobileNetV2, ResNet, quantised
from resjax.network import Network
from resjax.resolution import Resolution, width_of
from resjax.resolution import name as key_of
from resjax.resolution import plain as plain_of
from resjax.switchable import Variables
from resjax.telling import printable

__all__ = ['metadata', 'rsnets_state_dict', 'state_dict', 'variables_of']

# What state dicts have besides weights: counters of batches, which nothing reads.
_COUNTER = 'num_batches_tracked'

# Messages name no more keys than this: ResNet-152 has 777.
_MOST_NAMES = 2000

# By the name and the axes of a tensor: what a network has that ours has not.
_FOREIGN: tuple[tuple[Callable[[str, int], bool], str], ...] = (
  (
    lambda name, axes: name.startswith(('resnet.embedder.', 'mobilenet_v2.', 'model.embedder.')),
    "transformers' layout",
  ),
  (lambda name, axes: bool(re.search(r'(^|\.)(se|se_module|attn)\.', name)), 'squeeze-excite, or attention'),
  (lambda name, axes: '.norm1.' in name and axes == 1, 'normalisers before the convolutions'),
  (lambda name, axes: name.startswith('stem.'), 'a stem that is not one convolution'),
  (lambda name, axes: name.startswith(('conv1.0.', 'conv1.1.')), 'a stem of several convolutions'),
  (lambda name, axes: name.endswith('.downsample.1.weight') and axes == 4, 'an average-pool shortcut'),
)


def variables_of(
  tensors: Mapping[str, np.ndarray], model: nn.Module, resolutions: Sequence[int], where: str = 'tensors'
) -> Variables:
  """Returns the variables of a switchable network: `params`, `params['alpha']` `[R]`, and `batch_stats`.

  A state dict of one network gives every resolution the same normalisers, and alpha of ones; the layout of RS-Net's
  authors has its own for each size, in the order of the sizes.

  Args:
    tensors: By torch's names, in one of `layouts.LAYOUTS`.
    model: A ResNet or MobileNetV2 of resjax.
    resolutions: Input sizes in pixels, highest first.
    where: What messages call the tensors.

  Raises:
    ValueError: Keys are missing, too many or of another shape or type: all are named. Or the layout is not ours.
  """
  check_layout(tensors, where)
  layout = layouts.layout_of(tensors)
  sets = len(resolutions) if layout == 'rsnets' else 1
  sizes = layouts.sizes_in(tensors)
  if layout == 'rsnets' and sizes != sets:
    raise ValueError(f'resolutions: got {tuple(resolutions)}, expected {sizes}, as many as {where} has BatchNorms')
  shapes = shapes_of(model)
  placed = [list(layouts.places(model, shapes, layout, number)) for number in range(sets)]
  flat = flatten_dict(shapes)
  wanted = {place.name: _in_torch(flat[place.path], place.axes) for one in placed for place in one}
  if layout == 'rsnets':
    wanted['alpha'] = (len(resolutions),)
  _check_keys(tensors, wanted, where)
  plains = [_plain(tensors, one) for one in placed]
  shared = switchable.share(plains[0], resolutions)
  if layout == 'rsnets':
    each = [switchable.share(plain, [resolution]) for plain, resolution in zip(plains, resolutions)]
    private = {key: value for one in each for key, value in one['params']['private'].items()}
    statistics = {key: value for one in each for key, value in one['batch_stats'].items()}
    shared = {'params': shared['params'] | {'private': private}, 'batch_stats': statistics}
  alpha = jnp.asarray(tensors['alpha'], jnp.float32) if layout == 'rsnets' else jnp.ones(len(resolutions))
  return shared | {'params': shared['params'] | {'alpha': alpha}}


def state_dict(network: Network, resolution: Resolution, layout: str = 'torchvision') -> dict[str, np.ndarray]:
  """Returns a network at one resolution as a state dict: what torchvision's, or timm's, module of this name takes.

  In torch: `module.load_state_dict({k: torch.from_numpy(v) for k, v in state_dict(network, 224).items()})`.

  Args:
    network: A ResNet or MobileNetV2 of resjax.
    resolution: One of its own.
    layout: 'torchvision' or 'timm'.

  Raises:
    ValueError: It is another network, or has no such resolution.
  """
  if layout not in ('torchvision', 'timm'):
    raise ValueError(f"layout: got {layout!r}, expected 'torchvision' or 'timm'")
  return _named(network, resolution, layout)


def rsnets_state_dict(network: Network) -> dict[str, np.ndarray]:
  """Returns a network at all its resolutions as a state dict in the layout of RS-Net's authors, alpha included.

  Args:
    network: A ResNet or MobileNetV2 of resjax.

  Raises:
    ValueError: It is another network, or has several widths, for which that layout has no place.
  """
  if narrow := [resolution for resolution in network.resolutions if width_of(resolution) < 1]:
    raise ValueError(
      f'resolutions: got {", ".join(map(key_of, network.resolutions))}, expected none at a width in the layout of '
      f"RS-Net's authors, or one alone (--resolution={narrow[0]})"
    )
  found: dict[str, np.ndarray] = {}
  for number, resolution in enumerate(network.resolutions):
    found |= _named(network, resolution, 'rsnets', number)
  alpha = network.variables['params'].get('alpha', np.ones(len(network.resolutions)))
  return found | {'alpha': np.array(alpha, np.float32)}


def metadata(network: Network, license: str | None = None) -> dict[str, str]:
  """Returns what a safetensors file of a network's weights says of its images, sizes and classes; importing reads it.

  Args:
    network: Any.
    license: Of the weights, where they came with one.
  """
  mean, std = preprocess.mean_and_std(network.preprocessing.normalize)
  facts = {
    'mean': list(mean),
    'std': list(std),
    'crop_pct': network.preprocessing.crop_fraction,
    'interpolation': network.preprocessing.interpolation,
    'label_names': list(network.class_names),
    'license': license,
    'resolutions': [*map(plain_of, network.resolutions)],
  }
  return {FACTS: json.dumps(facts)}


def check_layout(tensors: Mapping[str, np.ndarray], where: str) -> None:
  """Raises ValueError, saying what differs, where the keys are of a kind of network that is not ours."""
  names = [name for name in tensors if not name.endswith(_COUNTER)]
  expected = 'expected a ResNet, ResNeXt or MobileNetV2 in the layout of torchvision, timm or RS-Nets'
  for is_foreign, what in _FOREIGN:
    name = next((name for name in names if is_foreign(name, tensors[name].ndim)), None)
    if name is not None:
      raise ValueError(f'{where}: has {what} ({printable(name[:100])}), {expected}')
  if 'bn1.weight' in tensors and not any(name.endswith('.running_mean') for name in names):
    raise ValueError(f'{where}: has normalisers without running statistics (bn1.weight), such as GroupNorm, {expected}')


def shapes_of(model: nn.Module) -> Variables:
  """Returns the variables of a plain network as shapes."""
  if not isinstance(model, ResNet | MobileNetV2):
    raise ValueError(f'model: got {type(model).__name__}, expected a ResNet or MobileNetV2 of resjax')
  return widths.shapes_of(model, 1.0, (64, 64, 3))


def _in_torch(shape: Any, axes: tuple[int, ...]) -> tuple[int, ...]:
  """The shape that torch has for one of ours."""
  return tuple(shape.shape[axes.index(i)] for i in range(len(axes)))


def _check_keys(tensors: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], where: str) -> None:
  """Raises one ValueError that names every key that is missing, too many, or of another shape or type."""
  given = {name for name in tensors if not name.endswith(_COUNTER)}
  fits = sorted(name for name in given & wanted.keys() if tensors[name].shape == wanted[name])
  wrong = [
    f'{name}: {tensors[name].dtype} {tensors[name].shape}, expected floats {wanted[name]}'
    for name in sorted(given & wanted.keys())
    if name not in fits or not jnp.issubdtype(tensors[name].dtype, jnp.floating)
  ]
  parts = [
    ('missing: ', sorted(wanted.keys() - given)),
    ('too many: ', [printable(name[:200]) for name in sorted(given - wanted.keys())]),
    ('of another shape or type: ', wrong),
    ('not finite, or variances below 0: ', [] if wrong else [name for name in fits if not _sound(name, tensors[name])]),
  ]
  found = '; '.join(title + _listed(names) for title, names in parts if names)
  if found:
    raise ValueError(f'{where}: the keys are not those of this model; {found}')


def _listed(names: Sequence[str]) -> str:
  """Names, all of them; of very many, such as no network has, the first ones and how many more."""
  more = len(names) - _MOST_NAMES
  return ', '.join(names[:_MOST_NAMES]) + (f' and {more:,} more' if more > 0 else '')


def _sound(name: str, tensor: np.ndarray) -> bool:
  """Whether numbers are finite, and variances not below 0."""
  values = tensor.astype(np.float32)
  return bool(np.isfinite(values).all()) and not (name.endswith('.running_var') and (values < 0).any())


def _plain(tensors: Mapping[str, np.ndarray], placed: Sequence[layouts.Place]) -> Variables:
  """A plain network's variables."""
  flat = {place.path: jnp.asarray(tensors[place.name].transpose(place.axes), jnp.float32) for place in placed}
  return unflatten_dict(flat)


def _named(network: Network, resolution: Resolution, layout: str, number: int = 0) -> dict[str, np.ndarray]:
  """A plain network at one resolution by torch's names, with the counters that torch expects."""
  shapes_of(network.model)  # type: ignore[arg-type]  # refuses what is no network of ours
  if (conv := getattr(network.model, 'conv', None)) is not None:
    raise ValueError(
      f'model: quantises {quantised.text_of(conv)} in its layers, which those of torch do not; expected weights alone, '
      'quantised already, as resjax.trained.load has them'
    )
  network.check_finite()
  plain = {kind: network.view(resolution)[kind] for kind in ('params', 'batch_stats')}
  flat = flatten_dict(plain)
  found: dict[str, np.ndarray] = {}
  for place in layouts.places(network.model, plain, layout, number):  # type: ignore[arg-type]
    back = tuple(place.axes.index(i) for i in range(len(place.axes)))
    found[place.name] = np.array(np.asarray(flat[place.path]).transpose(back), order='C')
    if place.name.endswith('.running_var'):
      found[place.name.removesuffix('running_var') + _COUNTER] = np.zeros((), np.int64)
  return found
