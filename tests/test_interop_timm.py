"""Networks that timm and torchvision themselves make and keep, where both are installed; elsewhere ours stand in."""

import argparse
import warnings

import numpy as np
import pytest

from resjax import interop
from resjax.interop import torch as ours

torch = pytest.importorskip('torch')
timm = pytest.importorskip('timm')
torchvision = pytest.importorskip('torchvision')

from twins import CLASSES, arrays, assert_same_dict, assert_same_logits, randomised  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('name', ['resnet18', 'resnet50', 'resnext50_32x4d', 'mobilenetv2_100', 'mobilenetv2_050'])
@pytest.mark.parametrize('safe', [True, False])
def test_a_folder_of_timms_is_read(tmp_path, name, safe):
  twin = randomised(timm.create_model(name, num_classes=CLASSES))
  config = {'label_names': list('abcdefg')}
  timm.models.save_for_hf(twin, tmp_path, model_config=config, safe_serialization=safe)
  found = interop.read(tmp_path, resolutions=(64,))
  assert_same_logits(found.network.model, found.network.view(64), twin, 64)
  assert_same_dict(ours.state_dict(found.network, 64, 'timm'), arrays(twin.state_dict()))
  twins = twin.pretrained_cfg
  preprocessing = found.network.preprocessing
  assert preprocessing.interpolation == twins['interpolation'] and preprocessing.crop_fraction == twins['crop_pct']
  assert found.network.class_names == tuple('abcdefg')


def test_a_checkpoint_of_timms_training_is_read(tmp_path):
  twin = randomised(timm.create_model('mobilenetv2_035', num_classes=CLASSES))
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    average = timm.utils.ModelEmaV3(randomised(timm.create_model('mobilenetv2_035', num_classes=CLASSES), 1))
  optimizer = torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9)
  arguments = argparse.Namespace(model='mobilenetv2_035', lr=0.1)
  saver = timm.utils.CheckpointSaver(
    twin, optimizer, args=arguments, model_ema=average, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path)
  )
  saver.save_checkpoint(3, metric=0.5)
  for averaged, expected in ((False, twin), (True, average.module)):
    found = interop.read(tmp_path / 'last.pth.tar', resolutions=(32,), averaged=averaged)
    assert found.source.architecture == 'mobilenetv2_035'
    assert_same_dict(ours.state_dict(found.network, 32, 'timm'), arrays(expected.state_dict()))


@pytest.mark.parametrize('name', ['resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnext50_32x4d', 'mobilenet_v2'])
def test_a_state_dict_of_torchvisions_is_read(tmp_path, name):
  twin = randomised(getattr(torchvision.models, name)(num_classes=CLASSES))
  torch.save(twin.state_dict(), tmp_path / 'a.pth')
  found = interop.read(tmp_path / 'a.pth', resolutions=(64,))
  assert_same_logits(found.network.model, found.network.view(64), twin, 64)
  assert_same_dict(ours.state_dict(found.network, 64), arrays(twin.state_dict()))
  twin.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict(found.network, 64).items()})


def test_torchvisions_weights_are_evaluated_as_it_says():
  from resjax.interop import sources

  for name in ('ResNet50', 'ResNet101', 'ResNet152', 'ResNeXt50_32X4D', 'MobileNet_V2', 'ResNet18', 'ResNet34'):
    for weights in getattr(torchvision.models, f'{name}_Weights'):
      second = any(digest in weights.url for digest in sources._SECOND)
      facts = weights.transforms.keywords
      expected = 256 if 'resize_size' not in facts else facts['resize_size']
      assert int(224 / (sources._OF_232 if second else 0.875)) == expected, weights
      assert np.isclose(facts['crop_size'], 224)


def test_every_network_of_timms_that_is_like_ours_is_ours_or_refused_in_a_line(monkeypatch):
  from resjax.interop import importing, sources

  ours_by_name = set()
  for name in timm.list_models():
    if 'resne' not in name and 'mobilenet' not in name and 'efficientnet_lite' not in name:
      continue
    try:
      with torch.device('meta'):
        state = timm.create_model(name).state_dict()
    except (RuntimeError, NotImplementedError):  # a few don't build without memory
      continue
    shown = {k: np.broadcast_to(np.float32(1), tuple(v.shape)) for k, v in state.items()}
    monkeypatch.setattr(sources, 'read', lambda *_, name=name, shown=shown: sources.Source('here', shown, name))
    try:
      interop.read('here', resolutions=(64,))
      ours_by_name.add(name)
    except ValueError as error:
      assert str(error).startswith('here: ') and '\n' not in str(error), name
  assert ours_by_name == importing.ARCHITECTURES.keys() - {'resnext50', 'mobilenetv2', 'mobilenet_v2'}
