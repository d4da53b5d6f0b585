"""Plain torch twins of the networks, with torchvision's names, and the way of their weights to ours."""

import re

import jax
import numpy as np
import torch
from torch import nn

# --- ResNet ---


def conv(inputs, outputs, kernel, stride=1, groups=1):
  return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class Block(nn.Module):
  """Basic (kernels 3, 3) or bottleneck (kernels 1, 3, 1) block; channels of every convolution given."""

  def __init__(self, inputs, channels, kernels, stride, groups):
    super().__init__()
    self.depth = len(kernels)
    previous = inputs
    for i, (outputs, kernel) in enumerate(zip(channels, kernels), 1):
      strided = i == self.depth - 1  # the first 3x3 of either kind
      grouped = groups if kernel == 3 else 1
      self.add_module(f'conv{i}', conv(previous, outputs, kernel, stride if strided else 1, grouped))
      self.add_module(f'bn{i}', nn.BatchNorm2d(outputs))
      previous = outputs
    self.downsample = None
    if stride != 1 or inputs != previous:
      self.downsample = nn.Sequential(conv(inputs, previous, 1, stride), nn.BatchNorm2d(previous))

  def forward(self, x):
    y = x
    for i in range(1, self.depth + 1):
      y = getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(y))
      y = torch.relu(y) if i < self.depth else y
    return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
  def __init__(self, stages, bottleneck, classes, features=64, groups=1, base=64, small=False):
    super().__init__()
    self.conv1 = conv(3, features, 3) if small else conv(3, features, 7, 2)
    self.bn1 = nn.BatchNorm2d(features)
    self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
    inputs, self.stages = features, len(stages)
    for s, blocks in enumerate(stages):
      planes = features * 2**s
      inner = int(planes * (base / 64)) * groups
      channels = (inner, inner, planes * 4) if bottleneck else (planes, planes)
      layer = nn.Sequential()
      for b in range(blocks):
        stride = 2 if s and not b else 1
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        layer.append(Block(inputs, channels, kernels, stride, groups))
        inputs = channels[-1]
      self.add_module(f'layer{s + 1}', layer)
    self.fc = nn.Linear(inputs, classes)

  def forward(self, x):
    x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
    for s in range(self.stages):
      x = getattr(self, f'layer{s + 1}')(x)
    return self.fc(x.mean((2, 3)))


# --- MobileNetV2 ---


def divisible(value, divisor=8):
  rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
  return rounded + divisor if rounded < 0.9 * value else rounded


def conv_relu6(inputs, outputs, kernel, stride=1, groups=1):
  return nn.Sequential(conv(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs), nn.ReLU6())


class Inverted(nn.Module):
  def __init__(self, inputs, outputs, stride, expansion):
    super().__init__()
    hidden = inputs * expansion
    self.residual = stride == 1 and inputs == outputs
    widen = [conv_relu6(inputs, hidden, 1)] if expansion != 1 else []
    self.conv = nn.Sequential(
      *widen,
      conv_relu6(hidden, hidden, 3, stride, hidden),
      conv(hidden, outputs, 1),
      nn.BatchNorm2d(outputs),
    )

  def forward(self, x):
    return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
  def __init__(self, classes, width=1.0):
    super().__init__()
    table = '1 16 1 1, 6 24 2 2, 6 32 3 2, 6 64 4 2, 6 96 3 1, 6 160 3 2, 6 320 1 1'
    inputs = divisible(32 * width)
    layers = [conv_relu6(3, inputs, 3, 2)]
    for row in table.split(', '):
      expansion, channels, blocks, stride = map(int, row.split())
      for b in range(blocks):
        outputs = divisible(channels * width)
        layers.append(Inverted(inputs, outputs, stride if b == 0 else 1, expansion))
        inputs = outputs
    last = divisible(1280 * max(1.0, width))
    self.features = nn.Sequential(*layers, conv_relu6(inputs, last, 1))
    self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(last, classes))

  def forward(self, x):
    return self.classifier(self.features(x).mean((2, 3)))


def create(name, classes):
  """The twin of `resjax.models.create(name, num_classes=classes)`."""
  depths = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
  depths |= {101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
  if name == 'mobilenetv2':
    return MobileNetV2(classes)
  if name == 'resnet_small':
    return ResNet((1, 1, 1), False, classes, features=16, small=True)
  if name == 'resnext50_32x4d':
    return ResNet((3, 4, 6, 3), True, classes, groups=32, base=4)
  depth = int(name.removeprefix('resnet'))
  return ResNet(depths[depth], depth >= 50, classes)


# --- the way of the weights ---

LEAVES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}
BLOCKS = (1, 2, 3, 4, 3, 3, 1)  # of MobileNetV2's stages


def torch_name(path, mobile):
  """The torch name of one of our variables, given its path without the collection."""
  *modules, leaf = path
  block = re.fullmatch(r'stage(\d+)_block(\d+)', modules[0])
  module = modules[-1]
  if mobile and block:
    stage, index = map(int, block.groups())
    first = 0 if stage == 1 else 1  # the first stage does not widen
    names = {'expand_conv': '0.0', 'expand_bn': '0.1'}
    names |= {'depthwise_conv': f'{first}.0', 'depthwise_bn': f'{first}.1'}
    names |= {'project_conv': f'{first + 1}', 'project_bn': f'{first + 2}'}
    module = f'features.{sum(BLOCKS[: stage - 1]) + index}.conv.{names[module]}'
  elif mobile:
    names = {'conv1': 'features.0.0', 'bn1': 'features.0.1', 'head': 'classifier.1'}
    names |= {'final_conv': 'features.18.0', 'final_bn': 'features.18.1'}
    module = names[module]
  else:
    names = {'downsample_conv': 'downsample.0', 'downsample_bn': 'downsample.1', 'head': 'fc'}
    module = names.get(module, module)
    if block:
      module = f'layer{block[1]}.{int(block[2]) - 1}.{module}'
  return f'{module}.{LEAVES[leaf]}'


def from_torch(tensors, like):
  """Our tree in the shape of `like`, filled from a dict of torch names; every tensor must find its place."""
  tensors = {k: v for k, v in tensors.items() if not k.endswith('num_batches_tracked')}
  mobile = any(name.startswith('features.') for name in tensors)

  def leaf(path, shape):
    value = tensors.pop(torch_name([key.key for key in path], mobile)).detach().numpy()
    if path[-1].key == 'kernel':
      value = value.transpose((2, 3, 1, 0) if value.ndim == 4 else (1, 0))
    assert value.shape == shape.shape, (path, value.shape, shape.shape)
    return np.array(value)

  filled = {name: jax.tree.map_with_path(leaf, like[name]) for name in like}
  assert not tensors, f'without a place: {sorted(tensors)}'
  return filled
