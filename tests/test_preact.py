"""The pre-activation networks against a twin in torch, in float64."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip('torch')

import torch_models  # noqa: E402
from torch import nn  # noqa: E402

from resjax import models  # noqa: E402

CLASSES = 5
TOLERANCE = 1e-10  # largest difference over the largest magnitude


class Block(nn.Module):
  """As in He et al. (2016): a block's input is activated first, but for the very first block's."""

  def __init__(self, inputs, channels, kernels, stride, activated):
    super().__init__()
    self.depth, self.activated = len(kernels), activated
    previous, first = inputs, True
    for i, (outputs, kernel) in enumerate(zip(channels, kernels), 1):
      if i > 1 or not activated:
        self.add_module(f'bn{i}', nn.BatchNorm2d(previous))
      strided = kernel == 3 and first
      first = first and kernel != 3
      self.add_module(f'conv{i}', torch_models.conv(previous, outputs, kernel, stride if strided else 1))
      previous = outputs
    changes = stride != 1 or inputs != previous
    self.downsample = nn.Sequential(torch_models.conv(inputs, previous, 1, stride)) if changes else None

  def forward(self, x):
    y = x if self.activated else torch.relu(self.bn1(x))
    shortcut = x if self.downsample is None else self.downsample(y)
    for i in range(1, self.depth + 1):
      y = torch.relu(getattr(self, f'bn{i}')(y)) if i > 1 else y
      y = getattr(self, f'conv{i}')(y)
    return y + shortcut


class Twin(nn.Module):
  def __init__(self, stages, bottleneck, features, small):
    super().__init__()
    conv = torch_models.conv
    self.conv1 = conv(3, features, 3) if small else conv(3, features, 7, 2)
    self.bn1, self.pool = nn.BatchNorm2d(features), nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
    inputs, self.stages = features, len(stages)
    for s, blocks in enumerate(stages):
      planes = features * 2**s
      channels, kernels = ((planes, planes, 4 * planes), (1, 3, 1)) if bottleneck else ((planes, planes), (3, 3))
      layer = nn.Sequential()
      for b in range(blocks):
        layer.append(Block(inputs, channels, kernels, 2 if s and not b else 1, s == b == 0))
        inputs = channels[-1]
      self.add_module(f'layer{s + 1}', layer)
    self.final_bn, self.fc = nn.BatchNorm2d(inputs), nn.Linear(inputs, CLASSES)

  def forward(self, x):
    x = self.pool(torch.relu(self.bn1(self.conv1(x))))
    for s in range(self.stages):
      x = getattr(self, f'layer{s + 1}')(x)
    return self.fc(torch.relu(self.final_bn(x)).mean((2, 3)))


def assert_close(ours, theirs):
  ours, theirs = np.asarray(ours), np.asarray(theirs)
  assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()


@pytest.mark.parametrize(
  ('name', 'options', 'twin'),
  [
    ('preact_resnet_small', {'stages': (2, 1), 'width': 0.5}, ((2, 1), False, 8, True)),
    ('preact_resnet50', {'stages': (1, 2), 'width': 0.125}, ((1, 2), True, 8, False)),
  ],
)
def test_logits_statistics_and_gradients(x64, name, options, twin):
  torch.manual_seed(0)
  twin = Twin(*twin).double()
  for module in twin.modules():
    if isinstance(module, nn.BatchNorm2d):
      for tensor, low in (('weight', 0.5), ('bias', -0.5), ('running_mean', -0.5), ('running_var', 0.5)):
        nn.init.uniform_(getattr(module, tensor), low, low + 1)
  model = models.create(name, num_classes=CLASSES, **options).clone(dtype='float64')
  like = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
  variables = torch_models.from_torch(twin.state_dict(), like)
  images = np.random.default_rng(0).normal(size=(2, 32, 32, 3))
  theirs = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
  with torch.no_grad():
    assert_close(jax.jit(functools.partial(model.apply, train=False))(variables, images), twin.eval()(theirs))

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(params):
    logits, new = model.apply(variables | {'params': params}, images, train=True, mutable=['batch_stats'])
    return (logits**2).sum(), new['batch_stats']

  (value, new), grads = loss(variables['params'])
  expected = (twin.train()(theirs) ** 2).sum()
  expected.backward()
  assert_close(value, expected.detach())
  wanted = torch_models.from_torch(
    {name: parameter.grad for name, parameter in twin.named_parameters()}, {'params': variables['params']}
  )['params']
  scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted))
  error = jax.tree.map(lambda a, b: np.abs(a - b).max() / scale, grads, wanted)
  assert max(jax.tree.leaves(error)) <= TOLERANCE, error
  after = torch_models.from_torch(twin.state_dict(), like)['batch_stats']
  for path, leaf in flax.traverse_util.flatten_dict(new).items():
    if path[-1] == 'mean':  # torch's variance is unbiased, as tests/test_models_torch.py says
      assert_close(leaf, flax.traverse_util.flatten_dict(after)[path])


@pytest.mark.parametrize(('name', 'count'), [('preact_resnet18', 11_687_720), ('preact_resnet50', 25_549_352)])
def test_counts(name, count):
  """ResNet's, without the BatchNorms of shortcuts, with those in front of blocks in place of those at their ends."""
  model = models.create(name, num_classes=1000)
  made = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))
  assert sum(leaf.size for leaf in jax.tree.leaves(made['params'])) == count
