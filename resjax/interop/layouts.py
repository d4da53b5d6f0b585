"""What torch calls the layers of our networks: torchvision's names, timm's, and those of RS-Net's authors."""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from flax import linen as nn
from flax.traverse_util import flatten_dict

from resjax.models import MobileNetV2
from resjax.models.mobilenetv2 import STAGES
from resjax.switchable import Variables

LAYOUTS = ('torchvision', 'timm', 'rsnets')

_RESNET = {'downsample_conv': 'downsample.0', 'downsample_bn': 'downsample.1', 'head': 'fc'}
_MOBILE = {
  'torchvision': {
    'conv1': 'features.0.0',
    'bn1': 'features.0.1',
    'final_conv': 'features.18.0',
    'final_bn': 'features.18.1',
    'head': 'classifier.1',
  },
  'timm': {'conv1': 'conv_stem', 'bn1': 'bn1', 'final_conv': 'conv_head', 'final_bn': 'bn2', 'head': 'classifier'},
  'rsnets': {
    'conv1': 'features.0.0',
    'bn1': 'features.0.1',
    'final_conv': 'conv.0',
    'final_bn': 'conv.1',
    'head': 'classifier',
  },
}
# The convolutions and BatchNorms of an inverted residual block, in their order: without a widening layer, and with it.
_BLOCKS = {
  'torchvision': (('0.0', '0.1', '1', '2'), ('0.0', '0.1', '1.0', '1.1', '2', '3')),
  'timm': (('conv_dw', 'bn1', 'conv_pw', 'bn2'), ('conv_pw', 'bn1', 'conv_dw', 'bn2', 'conv_pwl', 'bn3')),
  'rsnets': (('0', '1', '3', '4'), ('0', '1', '3', '4', '6', '7')),
}
_INNER = ('expand_conv', 'expand_bn', 'depthwise_conv', 'depthwise_bn', 'project_conv', 'project_bn')
# The number of blocks before each stage.
_BEFORE = tuple(itertools.accumulate((blocks for _, _, blocks, _ in STAGES), initial=0))

# ResNets by the last convolution of a block, the inner one's channels in a group, and the blocks of each stage.
_RESNETS: dict[tuple[str, int, tuple[int, ...]], str] = {
  ('conv2', 64, (2, 2, 2, 2)): 'resnet18',
  ('conv2', 64, (3, 4, 6, 3)): 'resnet34',
  ('conv3', 64, (3, 4, 6, 3)): 'resnet50',
  ('conv3', 64, (3, 4, 23, 3)): 'resnet101',
  ('conv3', 64, (3, 8, 36, 3)): 'resnet152',
  ('conv3', 4, (3, 4, 6, 3)): 'resnext50_32x4d',
}

_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}


class Place(NamedTuple):
  """Where one of our arrays stands, and how torch has it."""

  name: str  # torch's
  path: tuple[str, ...]  # ours, in a plain network's variables: the collection, modules, and the leaf
  axes: tuple[int, ...]  # torch's axes in the order of ours
  private: bool  # whether BatchNorm's


def layout_of(tensors: Mapping[str, Any]) -> str:
  """Returns which of `LAYOUTS` the names are of, as far as can be told from them."""
  if any('.bn_0.' in f'.{name}' for name in tensors):
    return 'rsnets'
  return 'timm' if 'conv_stem.weight' in tensors else 'torchvision'


def sizes_in(tensors: Mapping[str, Any]) -> int:
  """Returns for how many sizes the layout 'rsnets' has BatchNorms."""
  return len({found[1] for name in tensors if (found := re.search(r'(?:^|\.)bn_(\d+)\.', name))})


def places(model: nn.Module, plain: Variables, layout: str, number: int = 0) -> Iterator[Place]:
  """Yields the place of every array of a plain network.

  Args:
    model: A ResNet or MobileNetV2.
    plain: Its variables, or their shapes.
    layout: One of `LAYOUTS`.
    number: Of the BatchNorm, in the layout 'rsnets': that of its size among all, from the first.
  """
  module_of = _mobile if isinstance(model, MobileNetV2) else _resnet
  flat = flatten_dict(plain)
  norms = {path[1:-1] for path in flat if path[0] == 'batch_stats'}
  for path, value in flat.items():
    modules, leaf = path[1:-1], path[-1]
    private = modules in norms
    name = module_of(modules, layout)
    if layout == 'rsnets':
      name += f'.bn_{number}' if private else '.module'
    axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(len(value.shape), (0,))
    yield Place(f'{name}.{_LEAVES[leaf]}', path, axes, private)


def head_of(model: str, layout: str) -> str:
  """Returns torch's name of a model's classifier matrix, whose first axis is the number of classes."""
  name = _MOBILE[layout]['head'] if model == 'mobilenetv2' else _RESNET['head']
  return f'{name}.module.weight' if layout == 'rsnets' else f'{name}.weight'


def guess(tensors: Mapping[str, Any]) -> tuple[str, float] | None:
  """Returns which of our models has such keys and shapes, and its width; None: none of them.

  Another function may have the same keys.

  Args:
    tensors: By torch's names, in one of `LAYOUTS`.
  """
  layout = layout_of(tensors)
  end = '.module.weight' if layout == 'rsnets' else '.weight'
  narrow = tensors.get(f'{_mobile(("stage7_block1", "project_conv"), layout)}{end}')
  if narrow is not None and narrow.ndim == 4:
    return 'mobilenetv2', round(narrow.shape[0] / STAGES[-1][1], 4)
  blocks = tuple(len({name.split('.')[1] for name in tensors if name.startswith(f'layer{i}.')}) for i in range(1, 5))
  inner = tensors.get(f'layer1.0.conv2{end}')
  if inner is None or inner.ndim != 4:
    return None
  last = 'conv3' if f'layer1.0.conv3{end}' in tensors else 'conv2'
  name = _RESNETS.get((last, inner.shape[1], blocks))
  return None if name is None else (name, 1.0)


def _resnet(modules: tuple[str, ...], layout: str) -> str:
  """The name of a ResNet's layer, the same in all layouts."""
  name = _RESNET.get(modules[-1], modules[-1])
  block = _block(modules[0])
  return f'layer{block[0]}.{block[1] - 1}.{name}' if block else name


def _mobile(modules: tuple[str, ...], layout: str) -> str:
  """The name of a MobileNetV2's layer."""
  block = _block(modules[0])
  if not block:
    return _MOBILE[layout][modules[-1]]
  stage, index = block
  widens = STAGES[stage - 1][0] != 1
  name = _BLOCKS[layout][widens][_INNER.index(modules[-1]) - (0 if widens else 2)]
  if layout == 'timm':
    return f'blocks.{stage - 1}.{index - 1}.{name}'
  return f'features.{_BEFORE[stage - 1] + index}.conv.{name}'


def _block(module: str) -> tuple[int, int] | None:
  """Stage and block of a module, both from 1; None: it is in none."""
  found = re.fullmatch(r'stage(\d+)_block(\d+)', module)
  return (int(found[1]), int(found[2])) if found else None
