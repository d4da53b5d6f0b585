"""Beside the options of `resjax import`: fields that contradict, and what resjax says in files of its own."""

import pytest
import safetensors.numpy

from resjax import interop
from resjax.interop import sources
from resjax.interop import torch as torch_layout
from resjax.recipes import default

torch = pytest.importorskip('torch')

from twins import narrow_mobilenet  # noqa: E402


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """The file of a narrow MobileNetV2."""
  return narrow_mobilenet(tmp_path_factory.mktemp('weights'))[0]


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (['data.normalize=signed'], r"config\.data\.normalize: got 'signed', expected 'imagenet', which the source or an"),
    (
      ['model.num_classes=9', 'model.width=0.5'],
      r'config\.model\.num_classes: got 9, expected 7; config\.model\.width: got 0\.5, expected 0\.35, which',
    ),
    (['eval.interpolation=bilinear', 'method=drnet'], r"config\.method: got 'drnet', expected 'rsnet', which"),
    (['shared_batch_norm=True'], r'config\.shared_batch_norm: got True, expected False, which'),
  ],
)
def test_fields_do_not_contradict_the_source_in_silence(weights, fields, message):
  with pytest.raises(ValueError, match='^' + message):
    interop.read(weights, resolutions=(80, 64), fields=[f'--config.{field}' for field in fields])


def test_fields_that_say_something_else_are_kept(weights):
  fields = ['--config.data.dir=photos', '--config.model.dtype=bfloat16', '--config.eval.crop_fraction=0.9']
  config = interop.read(weights, fields=[*fields, '--config.resolutions=(40,)', '--config.model.width=0.35']).config
  assert (config.data.dir, config.model.dtype, config.eval.crop_fraction) == ('photos', 'bfloat16', 0.9)
  assert config.resolutions == (40,)


def test_what_resjax_wrote_says_the_sizes_of_its_normalisers(tmp_path, weights):
  network = interop.load(weights, resolutions=(48, 32))
  file = tmp_path / 'a.safetensors'
  safetensors.numpy.save_file(torch_layout.rsnets_state_dict(network), file, torch_layout.metadata(network))
  for options in ({}, {'resolutions': (48, 32)}, {'fields': ['--config.resolutions=(48, 32)']}):
    found = interop.read(file, **options)
    assert found.network.resolutions == found.config.resolutions == (48, 32) and not found.notes[1:]
    assert found.network.preprocessing == network.preprocessing
  found = interop.read(file, resolutions=(64, 40))
  assert found.network.resolutions == (64, 40)
  assert (
    'resolutions: the source was trained at 48, 32 px, whose BatchNorms those given take, in their order' in found.notes
  )
  for damaged in ('48', [], [48, '32'], [0, -1], [1 << 40], [True]):
    assert sources._sizes({'resolutions': damaged}) is None
  safetensors.numpy.save_file(torch_layout.state_dict(network, 32), file, torch_layout.metadata(network))
  assert interop.read(file).network.resolutions == default.get_config().resolutions
