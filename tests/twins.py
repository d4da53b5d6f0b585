"""Torch twins with weights that show every mistake, and what is said of them: for the tests of importing."""

import jax
import numpy as np
import torch
import torch_models

CLASSES = 7
# Largest difference of float32 logits over the largest logit: some 50 layers of sums in another order; found: 1e-5.
TOLERANCE = 1e-4


def narrow_mobilenet(folder):
  """Returns the file of a narrow MobileNetV2, written into a folder, and its module in torch."""
  twin = randomised(torch_models.MobileNetV2(CLASSES, 0.35))
  torch.save({'state_dict': twin.state_dict(), 'arch': 'mobilenetv2_035'}, folder / 'a.pth')
  return folder / 'a.pth', twin


def randomised(twin, seed=0):
  """The twin with BatchNorms far from the identity: no mistake hides there."""
  torch.manual_seed(seed)
  for module in twin.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      torch.nn.init.uniform_(module.weight, 0.5, 1.5)
      torch.nn.init.uniform_(module.bias, -0.5, 0.5)
      torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
      torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
  return twin.eval()


def arrays(state):
  return {name: value.numpy() for name, value in state.items()}


def assert_same_logits(model, plain, twin, size):
  images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
  with torch.no_grad():
    expected = twin(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))).numpy()
  got = jax.jit(lambda v, x: model.apply(v, x, train=False))(plain, images)
  assert np.abs(got - expected).max() <= TOLERANCE * np.abs(expected).max()


def assert_same_dict(found, expected):
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    assert found[name].dtype == value.dtype and found[name].flags.writeable, name
    np.testing.assert_array_equal(found[name], value, err_msg=name)


def in_order(state, names):
  """A state dict with the modules called otherwise, in their order."""
  modules = list(dict.fromkeys(name.rpartition('.')[0] for name in state))
  called = dict(zip(modules, names, strict=True))
  return {f'{called[name.rpartition(".")[0]]}.{name.rpartition(".")[2]}': value for name, value in state.items()}


def rsnets(states, names=None):
  """Networks that share all but BatchNorm as RS-Net's authors keep them."""
  found = {'alpha': np.arange(len(states), dtype=np.float32)}
  for number, state in enumerate(states):
    state = state if names is None else in_order(state, names)
    norms = {name.removesuffix('.running_mean') for name in state if name.endswith('.running_mean')}
    for name, value in state.items():
      module, leaf = name.rsplit('.', 1)
      found[f'{module}.bn_{number}.{leaf}' if module in norms else f'{module}.module.{leaf}'] = value
  return found
