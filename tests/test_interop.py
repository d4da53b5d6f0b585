"""Networks of torch as ours: the same logits, every key in its place, and the way back bit for bit."""

import jax
import numpy as np
import pytest

import resjax
from resjax import interop, models
from resjax.interop import layouts
from resjax.interop import torch as ours
from resjax.network import Network

torch = pytest.importorskip('torch')

import torch_models  # noqa: E402
from twins import CLASSES, arrays, assert_same_dict, assert_same_logits, in_order, randomised, rsnets  # noqa: E402

SMALL = {
  'basic': ({'name': 'resnet18', 'stages': (1, 1)}, lambda: torch_models.ResNet((1, 1), False, CLASSES)),
  'bottleneck': (
    {'name': 'resnet50', 'stages': (2, 1), 'width': 0.5},
    lambda: torch_models.ResNet((2, 1), True, CLASSES, features=32),
  ),
  'grouped': (
    {'name': 'resnext50_32x4d', 'stages': (1, 1), 'width': 0.5},
    lambda: torch_models.ResNet((1, 1), True, CLASSES, features=32, groups=32, base=4),
  ),
  'inverted': ({'name': 'mobilenetv2', 'width': 0.25}, lambda: torch_models.MobileNetV2(CLASSES, 0.25)),
}


@pytest.mark.parametrize('kind', SMALL)
def test_a_network_of_torch_gives_the_same_logits_and_goes_back_bit_for_bit(kind):
  options, make = SMALL[kind]
  model, twin = models.create(**options, num_classes=CLASSES), randomised(make())
  state = arrays(twin.state_dict())
  variables = ours.variables_of(state, model, (64, 32))
  np.testing.assert_array_equal(variables['params']['alpha'], [1, 1])
  assert_same_logits(model, resjax.view(variables, 32), twin, 32)
  network = Network(model, variables, (64, 32))
  for resolution in (64, 32):
    assert_same_dict(ours.state_dict(network, resolution), state)
  twin.load_state_dict({name: torch.from_numpy(value) for name, value in ours.state_dict(network, 32).items()})


@pytest.mark.slow
@pytest.mark.parametrize('name', ['resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnext50_32x4d', 'mobilenetv2'])
def test_a_whole_network_gives_the_same_logits(tmp_path, name):
  twin = randomised(torch_models.create(name, 1000))
  torch.save(twin.state_dict(), tmp_path / 'a.pth')
  network = interop.load(tmp_path / 'a.pth', name, resolutions=(96, 64))
  assert_same_logits(network.model, network.view(64), twin, 64)
  assert_same_dict(ours.state_dict(network, 96), arrays(twin.state_dict()))


# --- other layouts, their names written down once more ---


def timm_names():
  yield from ('conv_stem', 'bn1')
  for stage, blocks in enumerate(torch_models.BLOCKS):
    for block in range(blocks):
      layers = 'conv_pw bn1 conv_dw bn2 conv_pwl bn3' if stage else 'conv_dw bn1 conv_pw bn2'
      yield from (f'blocks.{stage}.{block}.{layer}' for layer in layers.split())
  yield from ('conv_head', 'bn2', 'classifier')


def rsnets_mobile_names():
  yield from ('features.0.0', 'features.0.1')
  for block in range(1, 18):
    yield from (f'features.{block}.conv.{layer}' for layer in ((0, 1, 3, 4, 6, 7) if block > 1 else (0, 1, 3, 4)))
  yield from ('conv.0', 'conv.1', 'classifier')


def test_timms_mobilenet_is_the_same_network_by_other_names():
  options, make = SMALL['inverted']
  model, state = models.create(**options, num_classes=CLASSES), arrays(randomised(make()).state_dict())
  timms = in_order(state, timm_names())
  assert {'conv_stem.weight', 'blocks.6.0.bn3.running_var', 'blocks.0.0.conv_pw.weight'} <= timms.keys()
  variables = ours.variables_of(timms, model, (32,))
  jax.tree.map(np.testing.assert_array_equal, variables, ours.variables_of(state, model, (32,)))
  network = Network(model, variables, (32,))
  assert_same_dict(ours.state_dict(network, 32, 'timm'), timms)
  assert_same_dict(ours.state_dict(network, 32), state)
  with pytest.raises(ValueError, match=r"^layout: got 'keras', expected 'torchvision' or 'timm'$"):
    ours.state_dict(network, 32, 'keras')


@pytest.mark.parametrize(('kind', 'names'), [('basic', None), ('inverted', rsnets_mobile_names)])
def test_the_layout_of_rs_nets_authors_has_its_own_normalisers_in_the_order_of_sizes(kind, names):
  options, make = SMALL[kind]
  model = models.create(**options, num_classes=CLASSES)
  states = [arrays(randomised(make(), seed).state_dict()) for seed in range(3)]
  norms = {name for name in states[0] if name.rpartition('.')[0] + '.running_mean' in states[0]}
  states = [states[0]] + [states[0] | {name: state[name] for name in norms} for state in states[1:]]
  kept = rsnets(states, names and list(names()))
  variables = ours.variables_of(kept, model, (64, 48, 32))
  np.testing.assert_array_equal(variables['params']['alpha'], [0, 1, 2])
  for resolution, state in zip((64, 48, 32), states):
    twin = make().eval()
    twin.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    if resolution != 48:
      assert_same_logits(model, resjax.view(variables, resolution), twin, 32)
  assert_same_dict(ours.rsnets_state_dict(Network(model, variables, (64, 48, 32))), kept)
  with pytest.raises(ValueError, match=r'^resolutions: got \(64, 32\), expected 3, as many as here has BatchNorms$'):
    ours.variables_of(kept, model, (64, 32), 'here')


# --- what does not fit ---


@pytest.fixture(scope='module')
def basic():
  options, make = SMALL['basic']
  return models.create(**options, num_classes=CLASSES), arrays(randomised(make()).state_dict())


def test_every_key_that_does_not_fit_is_named_in_one_error(basic):
  model, state = basic
  changed = {name: value for name, value in state.items() if name not in ('bn1.bias', 'fc.weight')}
  changed |= {'extra': np.ones(3), 'layer9.weight': np.ones(3), 'bn1.weight': np.ones(3, np.float32)}
  changed |= {'conv1.weight': changed['conv1.weight'].astype(np.int64)}
  with pytest.raises(ValueError, match=r'^a\.pth: the keys are not those of this model; ') as error:
    ours.variables_of(changed, model, (32,), 'a.pth')
  assert str(error.value).partition('; ')[2] == (
    'missing: bn1.bias, fc.weight; too many: extra, layer9.weight; of another shape or type: bn1.weight: float32 (3,), '
    'expected floats (64,), conv1.weight: int64 (64, 3, 7, 7), expected floats (64, 3, 7, 7)'
  )


def test_numbers_that_are_none_are_told(basic):
  model, state = basic
  bad = {'bn1.weight': np.nan, 'layer1.0.bn2.running_var': -1, 'fc.bias': np.inf, 'bn1.bias': -1}
  changed = state | {name: np.full_like(state[name], value) for name, value in bad.items()}
  with pytest.raises(ValueError, match=r'below 0: bn1\.weight, fc\.bias, layer1\.0\.bn2\.running_var$'):
    ours.variables_of(changed, model, (32,))


def test_names_in_a_file_say_no_more_than_a_line(basic):
  model, state = basic
  with pytest.raises(ValueError, match=r'too many: \\x1b\[31mred\\n, other0, .* and 1,001 more$') as error:
    ours.variables_of(
      state | {'\x1b[31mred\n': np.ones(1)} | {f'other{i}': np.ones(1) for i in range(3000)}, model, (32,)
    )
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('key', 'shape', 'what'),
  [
    ('conv1.0.weight', (32, 3, 3, 3), r'a stem of several convolutions \(conv1\.0\.weight\)'),
    ('layer2.0.downsample.1.weight', (128, 64, 1, 1), r'an average-pool shortcut \(layer2'),
    ('layer1.0.se.fc1.weight', (8, 64, 1, 1), r'squeeze-excite, or attention \(layer1\.0\.se\.fc1\.weight\)'),
    ('layer1.0.norm1.weight', (64,), r'normalisers before the convolutions \(layer1\.0\.norm1'),
    ('resnet.embedder.embedder.convolution.weight', (64, 3, 7, 7), "transformers' layout"),
    ('stem.conv.weight', (64, 3, 7, 7), r'a stem that is not one convolution \(stem'),
  ],
)
def test_a_layout_that_is_not_ours_is_refused_with_what_differs(basic, key, shape, what):
  model, state = basic
  with pytest.raises(
    ValueError, match=rf'^a\.pth: has {what}.*, expected a ResNet, ResNeXt or MobileNetV2 in the layout'
  ):
    ours.variables_of(state | {key: np.ones(shape, np.float32)}, model, (32,), 'a.pth')


def test_group_norm_is_refused(basic):
  model, state = basic
  kept = {name: value for name, value in state.items() if 'running' not in name}
  with pytest.raises(ValueError, match=r'^tensors: has normalisers without running statistics .*GroupNorm, expected'):
    ours.variables_of(kept, model, (32,))


def test_another_kind_of_network_has_no_state_dict():
  import flax.linen as nn

  with pytest.raises(ValueError, match=r'^model: got Dense, expected a ResNet or MobileNetV2 of resjax$'):
    ours.shapes_of(nn.Dense(3))


@pytest.mark.parametrize('name', ['resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnext50_32x4d', 'mobilenetv2'])
def test_networks_are_told_by_their_keys(name):
  with torch.device('meta'):
    twin = torch_models.create(name, 5)
  shapes = {key: value for key, value in twin.state_dict().items()}
  assert layouts.guess(shapes) == (name, 1.0)
  norms = [key.removesuffix('.running_mean') for key in shapes if key.endswith('.running_mean')]
  if name != 'mobilenetv2':
    kept = rsnets([{key: value for key, value in shapes.items()}])
    assert len(norms) > 10 and layouts.guess(kept) == (name, 1.0)
  shapes.pop(next(key for key in shapes if 'conv2' in key or key.startswith('features.17.conv.2')))
  assert layouts.guess(shapes) is None


def test_layouts_are_told_by_their_keys():
  assert layouts.layout_of({'bn1.bn_0.weight': 1}) == layouts.layout_of({'bn_0.weight': 1}) == 'rsnets'
  assert layouts.layout_of({'conv_stem.weight': 1}) == 'timm' and layouts.layout_of({'fc.weight': 1}) == 'torchvision'
  assert layouts.head_of('mobilenetv2', 'rsnets') == 'classifier.module.weight'
  assert layouts.head_of('mobilenetv2', 'torchvision') == 'classifier.1.weight'
  assert layouts.head_of('resnet18', 'torchvision') == 'fc.weight'


def test_the_names_of_imagenets_classes():
  names = interop.importing.imagenet_classes()
  assert len(names) == len(set(names)) == 1000
  assert (
    names[0] == 'tench' and names[305] == 'dung beetle' and names[853] == 'thatch' and names[999] == 'toilet tissue'
  )
