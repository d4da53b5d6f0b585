"""The networks against torch: logits, BatchNorm statistics, gradients, initialisers, real weights.

In float64, where both agree to rounding and no mistake can pass as noise.
"""

import csv
import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip('torch')

import torch_models  # noqa: E402

from resjax import models  # noqa: E402
from resjax.models import layers  # noqa: E402

CLASSES = 10
TOLERANCE = 1e-10  # largest difference over the largest magnitude

slow = functools.partial(pytest.param, marks=pytest.mark.slow)


def randomised(twin):
  """The twin in double precision, with BatchNorms far from the identity: no mistake hides there."""
  torch.manual_seed(0)
  for module in twin.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      torch.nn.init.uniform_(module.weight, 0.5, 1.5)
      torch.nn.init.uniform_(module.bias, -0.5, 0.5)
      torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
      torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
  return twin.double()


def random_images(resolution, batch):
  """The same images for both: NHWC for us, NCHW for torch."""
  images = np.random.default_rng(0).normal(size=(batch, resolution, resolution, 3))
  return images, torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def variables_of(model, state):
  """A torch state dict as the variables of our model."""
  images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  like = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
  return torch_models.from_torch(state, like)


def assert_close(ours, theirs):
  ours, theirs = np.asarray(ours), np.asarray(theirs)
  assert ours.dtype == theirs.dtype == np.float64
  error = np.abs(ours - theirs).max() / np.abs(theirs).max()
  assert error <= TOLERANCE, f'relative error {error:.2e}'


def values_per_channel(twin):
  """Filled by the twin's next forward: BatchNorm's name -> values of a channel in its input."""
  counts = {}

  def hook(module, inputs, name):
    counts[name] = inputs[0].numel() // inputs[0].shape[1]

  for name, module in twin.named_modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      module.register_forward_pre_hook(functools.partial(hook, name=name))
  return counts


@pytest.mark.parametrize(
  ('name', 'resolution', 'batch'),
  [
    ('resnet18', 48, 2),
    ('resnet_small', 32, 2),
    ('mobilenetv2', 48, 2),
    slow('resnet18', 109, 2),
    slow('mobilenetv2', 109, 2),
    slow('resnet34', 96, 2),
    slow('resnet50', 96, 2),
    slow('resnet101', 96, 2),
    slow('resnet152', 96, 2),
    slow('resnext50_32x4d', 96, 2),
  ],
)
def test_logits_and_statistics(x64, name, resolution, batch):
  model = models.create(name, num_classes=CLASSES).clone(dtype='float64')
  twin = randomised(torch_models.create(name, CLASSES))
  variables = variables_of(model, twin.state_dict())
  ours, theirs = random_images(resolution, batch)

  logits = jax.jit(functools.partial(model.apply, train=False))(variables, ours)
  with torch.no_grad():
    assert_close(logits, twin.eval()(theirs))

  step = jax.jit(functools.partial(model.apply, train=True, mutable=['batch_stats']))
  logits, new = step(variables, ours)
  counts = values_per_channel(twin)
  with torch.no_grad():
    assert_close(logits, twin.train()(theirs))
  # Torch's running variance is unbiased, ours is not: n / (n - 1) on this batch's part of it.
  expected = variables_of(model, twin.state_dict())['batch_stats']
  for path, value in flax.traverse_util.flatten_dict(new['batch_stats']).items():
    if path[-1] == 'var':
      n = counts[torch_models.torch_name(path, name == 'mobilenetv2').removesuffix('.running_var')]
      old = 0.9 * functools.reduce(dict.get, path, variables['batch_stats'])
      value = old + (value - old) * n / (n - 1)
    assert_close(value, functools.reduce(dict.get, path, expected))


@pytest.mark.parametrize(
  ('options', 'twin'),
  [
    (
      {'name': 'resnet_small', 'stages': (1, 2), 'width': 0.5},
      lambda: torch_models.ResNet((1, 2), False, CLASSES, features=8, small=True),
    ),
    (
      {'name': 'resnext50_32x4d', 'stages': (1, 1), 'width': 0.5},
      lambda: torch_models.ResNet((1, 1), True, CLASSES, features=32, groups=32, base=4),
    ),
    slow({'name': 'mobilenetv2', 'width': 0.25}, lambda: torch_models.MobileNetV2(CLASSES, 0.25)),
  ],
  ids=['basic', 'grouped_bottleneck', 'inverted_residual'],
)
def test_gradients(x64, options, twin):
  model = models.create(**options, num_classes=CLASSES).clone(dtype='float64')
  twin = randomised(twin())
  variables = variables_of(model, twin.state_dict())
  ours, theirs = random_images(32, 4)
  weights = np.random.default_rng(1).normal(size=(4, CLASSES))

  @jax.jit
  @jax.grad
  def gradients(params):
    state = {**variables, 'params': params}
    logits, _ = model.apply(state, ours, train=True, mutable=['batch_stats'])
    return (logits * weights).sum()

  (twin.train()(theirs) * torch.from_numpy(weights)).sum().backward()
  grads = {name: parameter.grad for name, parameter in twin.named_parameters()}
  expected = torch_models.from_torch(grads, {'params': variables['params']})['params']
  ours = gradients(variables['params'])
  # A bias in front of another BatchNorm has a gradient of 0: measured by the largest of all.
  scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
  error = jax.tree.map(lambda a, b: np.abs(a - b).max() / scale, ours, expected)
  assert max(jax.tree.leaves(error)) <= TOLERANCE, error


@pytest.mark.parametrize(
  ('inputs', 'outputs', 'kernel', 'groups'),
  [(64, 128, 3, 1), (256, 256, 3, 32), (512, 512, 3, 512), (64, 256, 1, 1)],
  ids=['3x3', 'grouped', 'depthwise', '1x1'],
)
def test_convolution_initialiser(inputs, outputs, kernel, groups):
  torch.manual_seed(0)
  theirs = torch_models.conv(inputs, outputs, kernel, groups=groups).weight.detach()
  torch.nn.init.kaiming_normal_(theirs, mode='fan_out', nonlinearity='relu')
  shape = (kernel, kernel, inputs // groups, outputs)
  ours = layers.kaiming_normal(jax.random.key(0), shape, jnp.float32)
  assert ours.size == theirs.numel()
  error = 4 / (2 * ours.size) ** 0.5  # four standard errors of a standard deviation
  truth = (2 / (outputs * kernel**2)) ** 0.5
  assert float(ours.std()) == pytest.approx(truth, rel=error)
  assert float(theirs.std()) == pytest.approx(truth, rel=error)


@pytest.mark.slow
@pytest.mark.parametrize(('resolution', 'right'), [(224, 130), (128, 105)])
def test_imagenet_weights_on_photographs(shared_data, resolution, right):
  weights = shared_data / 'weights' / 'mobilenet_v2_imagenet.pth'
  model = models.create('mobilenetv2', num_classes=1000)
  variables = variables_of(model, torch.load(weights, weights_only=True))
  classify = jax.jit(lambda images: model.apply(variables, images, train=False).argmax(-1))
  mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])

  short = int(resolution / 0.875)
  left = round((short - resolution) / 2)
  images, labels = [], []
  with open(shared_data / 'photos152' / 'labels.csv', newline='') as file:
    for row in csv.DictReader(file):
      with Image.open(shared_data / 'photos152' / row['file']) as image:
        assert image.width == image.height
        image = image.convert('RGB').resize((short, short), Image.Resampling.BILINEAR)
      image = image.crop((left, left, left + resolution, left + resolution))
      images.append((np.float32(image) / 255 - mean.reshape(1, 1, 3)) / std.reshape(1, 1, 3))
      labels.append(int(row['class_index_0_based']))
  guesses = [classify(np.stack(images[i : i + 8])) for i in range(0, len(images), 8)]
  assert len(labels) == 152
  assert abs((np.concatenate(guesses) == labels).sum() - right) <= 1
