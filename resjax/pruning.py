"""Filters taken out of a trained network: a smaller plain one of its architecture, with fewer channels in its blocks.

Pruned are the channels inside residual blocks, which no other layer sees: those between the convolutions of a ResNet's
block, and those that MobileNetV2's block widens to. What blocks give to each other keeps its channels, as in Li et al.,
"Pruning Filters for Efficient ConvNets", ICLR 2017. Private normalisers lose the same channels at every resolution.
"""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from resjax import widths
from resjax.models import MobileNetV2, ResNet
from resjax.network import Network
from resjax.resolution import width_of
from resjax.telling import shown

CRITERIA = ('l1', 'scale')

_BLOCK = re.compile(r'stage(\d+)_block(\d+)')


class Group(NamedTuple):
  """Channels that go together: of what makes them, what they pass, and what reads them."""

  block: str
  makes: str
  passes: tuple[str, ...]  # the normaliser first
  reads: str


def groups_of(shared: dict[str, Any]) -> list[list[Group]]:
  """Returns what can be pruned in each block of a network, in their order; of a block that has nothing, an empty list.

  Args:
    shared: The parameters that its resolutions share.
  """
  blocks = sorted((name for name in shared if _BLOCK.fullmatch(name)), key=lambda name: _numbers(name))
  return [_groups(block, shared[block]) for block in blocks]


def _numbers(block: str) -> tuple[int, ...]:
  """The stage and the place of a block."""
  return tuple(map(int, re.findall(r'\d+', block)))


def _groups(block: str, layers: dict[str, Any]) -> list[Group]:
  """What can be pruned in a block, by the names of its layers."""
  if 'depthwise_conv' in layers:
    passes = ('expand_bn', 'depthwise_conv', 'depthwise_bn')
    return [Group(block, 'expand_conv', passes, 'project_conv')] if 'expand_conv' in layers else []
  pairs = [(i, i + 1) for i in (1, 2) if f'conv{i + 1}' in layers]
  return [Group(block, f'conv{i}', (f'bn{i}',), f'conv{j}') for i, j in pairs]


def pruned(network: Network, ratio: float, criterion: str = 'l1') -> Network:
  """Returns the network without a share of the channels inside its blocks; its `model.inner` says how many are left.

  'l1' leaves in each layer the filters of the largest sum of absolute weights (Li et al.). 'scale' leaves in the whole
  network the channels of the largest absolute scale of BatchNorm, on average over the resolutions, and one in each
  layer at least (Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017). Channels
  stay in their order; with a ratio of 0 the network is the same, bit for bit.

  Args:
    network: A ResNet or MobileNetV2 of ours, without a predictor, of one width, not quantised.
    ratio: The share of channels that go, 0 or more and below 1.
    criterion: One of `CRITERIA`.

  Raises:
    ValueError: One of these is not that.
  """
  check(network, ratio, criterion)
  params, statistics = network.variables['params'], network.variables['batch_stats']
  blocks = groups_of(params['shared'])
  kept = _kept(params, [group for block in blocks for group in block], ratio, criterion)
  makes = {(group.block, layer): p for group, p in kept.items() for layer in (group.makes, *group.passes)}
  reads = {(group.block, group.reads): places for group, places in kept.items()}

  def smaller(tree: Any) -> Any:
    flat = {}
    for path, leaf in flatten_dict(tree).items():
      layer = path[-3:-1]
      leaf = jnp.take(leaf, reads[layer], axis=-2) if layer in reads else leaf
      flat[path] = jnp.take(leaf, makes[layer], axis=-1) if layer in makes else leaf
    return unflatten_dict(flat)

  inner = tuple(tuple(len(kept[group]) for group in block) for block in blocks)
  variables = network.variables | {'params': smaller(params), 'batch_stats': smaller(statistics)}
  return network.replace(model=network.model.clone(inner=inner), variables=variables)  # type: ignore[union-attr]


def inner_of(model: Any, ratio: float) -> tuple[tuple[int, ...], ...]:
  """Returns the `model.inner` that `pruned` gives by 'l1', which needs no weights to say."""
  _check_model(model)
  shapes = widths.shapes_of(model, 1.0, (32, 32, 3))['params']
  blocks = groups_of(shapes)
  return tuple(tuple(_left(shapes[g.block][g.makes]['kernel'].shape[-1], ratio) for g in block) for block in blocks)


def _left(channels: int, ratio: float) -> int:
  """How many of a layer's channels stay."""
  return max(1, round((1 - ratio) * channels))


def check(network: Network, ratio: float, criterion: str) -> None:
  """Raises ValueError unless `pruned` takes these."""
  model = network.model
  if not 0 <= ratio < 1:
    raise ValueError(f'ratio: got {shown(ratio)}, expected 0 or more, and less than 1')
  if criterion not in CRITERIA:
    raise ValueError(f'criterion: got {shown(criterion)}, expected one of {", ".join(CRITERIA)}')
  _check_model(model)
  if network.predictor is not None:
    raise ValueError('network: it has a predictor, expected an RS-Net, on which DRNet is trained afterwards')
  narrow = [resolution for resolution in network.resolutions if width_of(resolution) < 1]
  if narrow:
    raise ValueError(f'network: it has widths, {narrow[0]}, expected one of all channels')
  shared = network.variables['params']['shared']
  for group in (group for block in groups_of(shared) for group in block):
    made, read = (shared[group.block][layer]['kernel'].shape for layer in (group.makes, group.reads))
    if made[-1] != read[-2]:
      raise ValueError('model: got one whose convolutions have groups, expected none, as in ResNet and MobileNetV2')


def _check_model(model: Any) -> None:
  """Raises ValueError unless it is one of those that can be pruned."""
  if not isinstance(model, ResNet | MobileNetV2) or model.conv is not None:
    kind = type(model).__name__
    raise ValueError(f'model: got {kind}, expected a ResNet or MobileNetV2 of resjax, not quantised')


def _kept(params: Any, groups: list[Group], ratio: float, criterion: str) -> dict[Group, np.ndarray]:
  """The places of the channels that stay, of each group."""
  scores = {group: _scores(params, group, criterion) for group in groups}
  if criterion == 'l1':
    return {group: _largest(each, _left(len(each), ratio)) for group, each in scores.items()}
  everything = np.concatenate([*scores.values(), np.zeros(0)])
  stays = np.zeros(len(everything), bool)
  stays[_largest(everything, round((1 - ratio) * len(everything)))] = True
  parts = np.split(stays, np.cumsum([len(each) for each in scores.values()]))
  return {group: _largest(each, int(part.sum())) for (group, each), part in zip(scores.items(), parts)}


def _scores(params: Any, group: Group, criterion: str) -> np.ndarray:
  """What each channel is worth, float64 `[C]`."""
  if criterion == 'l1':
    kernel = np.asarray(params['shared'][group.block][group.makes]['kernel'], np.float64)
    return np.abs(kernel).sum(tuple(range(kernel.ndim - 1)))
  scales = [np.abs(np.asarray(own[group.block][group.passes[0]]['scale'], np.float64)) for own in _sets(params)]
  return np.mean(scales, axis=0)


def _sets(params: Any) -> list[Any]:
  """The private parameters of each resolution."""
  return jax.tree.leaves(params['private'], is_leaf=lambda tree: any(map(_BLOCK.fullmatch, tree)))


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
  """The places of the largest, at least one, in ascending order; of equal ones the first."""
  return np.sort(np.argsort(-scores, kind='stable')[: max(1, count)])
