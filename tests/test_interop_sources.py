"""Where weights come from: folders as timm keeps them, the hub's cache, and what each says of the images."""

import importlib.util
import json
import time

import numpy as np
import pytest
import safetensors.numpy

from resjax import interop, preprocess
from resjax.interop import importing, sources
from resjax.interop import torch as torch_layout
from resjax.recipes import default

torch = pytest.importorskip('torch')

import torch_models  # noqa: E402
from twins import arrays, randomised  # noqa: E402

# As timm writes it, shortened.
CONFIG = {
  'architecture': 'mobilenetv2_035',
  'num_classes': 3,
  'pretrained_cfg': {
    'input_size': [3, 224, 224],
    'test_input_size': [3, 288, 288],
    'interpolation': 'bicubic',
    'crop_pct': 0.95,
    'test_crop_pct': 1.0,
    'crop_mode': 'center',
    'mean': [0.5, 0.4, 0.3],
    'std': [0.2, 0.2, 0.2],
    'license': 'cc-by-nc-4.0',
  },
  'label_names': ['n1', 'n2', 'n3'],
  'label_descriptions': {'n1': 'one', 'n3': 'three'},
}


@pytest.fixture(scope='module')
def state():
  return arrays(randomised(torch_models.MobileNetV2(3, 0.35)).state_dict())


def folder(path, state, config=CONFIG, **changes):
  path.mkdir(parents=True, exist_ok=True)
  config = config | {'pretrained_cfg': config['pretrained_cfg'] | changes}
  (path / 'config.json').write_text(json.dumps(config))
  safetensors.numpy.save_file(state, path / 'model.safetensors')
  return path


def test_a_folder_says_what_the_network_is_and_how_images_are_prepared(tmp_path, state):
  found = interop.read(folder(tmp_path, state), resolutions=(64, 32))
  network = found.network
  assert found.config.model.name == 'mobilenetv2' and found.config.model.width == 0.35
  assert network.class_names == ('one', 'n2', 'three') and found.notes == ()
  assert network.preprocessing.normalize == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
  assert network.preprocessing.interpolation == 'bicubic' and network.preprocessing.crop_fraction == 0.95
  assert found.source.license == 'cc-by-nc-4.0'
  back = torch_layout.state_dict(network, 32)
  for name, value in state.items():
    np.testing.assert_array_equal(back[name], value)


def test_options_come_before_what_the_source_says(tmp_path, state):
  options = dict(mean=(0, 0, 0), std=(1, 1, 1), crop_fraction=0.8, interpolation='bilinear', class_names='abc')
  found = interop.read(folder(tmp_path, state), resolutions=(32,), **options).network
  assert found.preprocessing == preprocess.Preprocessing('unit', 'bilinear', 0.8)
  assert found.class_names == ('a', 'b', 'c')


def test_the_size_of_the_test_has_its_own_crop_fraction(tmp_path, state):
  path = folder(tmp_path, state)
  assert sources.read(path, 288).crop_fraction == 1.0
  assert sources.read(path, 224).crop_fraction == 0.95


def test_older_configs_are_flat_and_a_card_may_have_the_license(tmp_path, state):
  flat = CONFIG | CONFIG['pretrained_cfg'] | {'license': None}
  flat.pop('pretrained_cfg')
  path = folder(tmp_path, state)
  (path / 'config.json').write_text(json.dumps(flat))
  assert sources.read(path, 224).license is None
  (path / 'README.md').write_text('---\ntags:\n- timm\nlicense: apache-2.0\n---\n# Card\nlicense: other\n')
  found = sources.read(path, 224)
  assert found.license == 'apache-2.0' and found.interpolation == 'bicubic' and found.mean == (0.5, 0.4, 0.3)


@pytest.mark.parametrize(
  ('architecture', 'reason'),
  [
    ('resnetblur50', 'smooths before each stride, also where its keys are the same'),
    ('resnetaa50', 'smooths before each stride, also where its keys are the same'),
    ('seresnet50', 'has squeeze-excite'),
    ('resnetrs50', 'has squeeze-excite'),
    ('ecaresnet50t', 'has channel attention'),
    ('resnet50_gn', 'has other normalisers than BatchNorm'),
    ('resnet50d', 'has a deep stem and average-pool shortcuts'),
    ('resnext50d_32x4d', 'has a deep stem and average-pool shortcuts'),
    ('resnet101s', 'has a deep stem'),
    ('resnetv2_50', 'normalises before its convolutions'),
    ('mobilenetv2_120d', 'is a network that is not ours'),
    ('res2net50_26w_6s', 'is a network that is not ours'),
  ],
)
def test_another_function_is_refused_by_its_name(tmp_path, state, architecture, reason):
  path = folder(tmp_path, state, CONFIG | {'architecture': architecture})
  with pytest.raises(ValueError, match=rf': is a {architecture}, which {reason}; expected one of resnet18, '):
    interop.read(path, 'mobilenetv2')


def test_the_same_keys_of_another_function_are_refused_by_the_files_name(tmp_path, state):
  for name in ('resnetblur50-84f4748f.pth', 'resnetaa50_a1h-4cf422b3.pth'):
    torch.save({name: torch.from_numpy(value) for name, value in state.items()}, tmp_path / name)
    with pytest.raises(ValueError, match=r'is a resnet(blur|aa)50, which smooths before each stride, also where its k'):
      interop.read(tmp_path / name, 'resnet50')


@pytest.mark.parametrize('name', ['mobilenetv2_035.a_tag', 'tv_mobilenetv2_035', 'parallel_mobilenetv2_035'])
def test_what_timm_called_a_network_once_is_known(tmp_path, state, name):
  assert interop.read(folder(tmp_path, state, CONFIG | {'architecture': name})).config.model.width == 0.35


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'mean': [0.5, 0.4]}, r'config\.json: mean: got \[0\.5, 0\.4\], expected three numbers$'),
    ({'std': 'unit'}, r"config\.json: std: got 'unit', expected three numbers$"),
    ({'std': [1, 1, float('nan')]}, r'config\.json: std: got \[1, 1, nan\], expected three numbers$'),
    ({'crop_pct': '1'}, r"config\.json: crop_pct: got '1', expected a number$"),
    ({'crop_pct': 2}, r'config\.eval\.crop_fraction: got 2\.0, expected more than 0, at most 1$'),
    ({'crop_mode': 'squash'}, r"config\.json: crop_mode: got 'squash', expected 'center'$"),
    ({'global_pool': 'max'}, r"config\.json: global_pool: got 'max', expected 'avg'$"),
    ({'model_args': {'global_pool': 'max'}}, r"config\.json: model_args: global_pool: got 'max', expected 'avg'$"),
    ({'model_args': {'output_stride': 16}}, r"config\.json: model_args: got 'output_stride', expected none of those"),
    ({'model_args': [3]}, r'config\.json: model_args: got \[3\], expected an object$'),
    ({'crop_pct': 10**400}, r'config\.json: crop_pct: got 1000000.*00, expected a number$'),
    ({'interpolation': 'lanczos'}, r"config\.eval\.interpolation: got 'lanczos', expected one of bilinear, bicubic$"),
  ],
  ids=str,
)
def test_facts_that_do_not_fit_are_named(tmp_path, state, changes, message):
  with pytest.raises(ValueError, match=message):
    interop.read(folder(tmp_path, state, **changes))


def test_a_folder_that_is_not_one_is_told(tmp_path, state):
  with pytest.raises(
    FileNotFoundError, match=r': expected a folder with config\.json and model\.safetensors or pytorch'
  ):
    interop.read(tmp_path)
  path = folder(tmp_path, state)
  for text in ('{', '[]', '1', '[' * 100_000):
    (path / 'config.json').write_text(text)
    with pytest.raises(ValueError, match=r'config\.json: .*expected (JSON|a JSON object)') as error:
      interop.read(path)
    assert '\n' not in str(error.value)


def test_torchvisions_second_weights_are_cropped_from_232_pixels(tmp_path, state):
  twin = {name: torch.from_numpy(value) for name, value in state.items()}
  torch.save(twin, tmp_path / 'mobilenet_v2-7ebf99e0.pth')
  found = sources.read(tmp_path / 'mobilenet_v2-7ebf99e0.pth', 224)
  assert int(224 / found.crop_fraction) == 232
  torch.save(twin, tmp_path / 'mobilenet_v2-b0353104.pth')
  assert sources.read(tmp_path / 'mobilenet_v2-b0353104.pth', 224).crop_fraction is None


def test_what_the_source_does_not_say_is_as_torchvision_does_it(tmp_path, state):
  found = sources.Source('here', state)
  config = default.get_config()
  for layout, expected in (('torchvision', 'imagenet'), ('rsnets', 'unit')):
    importing._preprocessing(config, found, layout, None, None, None, None)
    assert preprocess.Preprocessing.of_config(config) == preprocess.Preprocessing(expected, 'bilinear', 0.875)
  names, note = importing._class_names(found, None, 1000)
  assert names == importing.imagenet_classes() and "are taken for ImageNet's" in note
  names, note = importing._class_names(found, None, 3)
  assert names == () and 'called by their numbers' in note
  names, note = importing._class_names(found._replace(class_names=('a', 'b')), None, 1000)
  assert names == () and note == 'classes: the source names 2, and there are 1000, called by their numbers'


def test_names_by_number_are_the_classes_too(tmp_path, state):
  config = {name: value for name, value in CONFIG.items() if not name.startswith('label')}
  path = folder(tmp_path, state, config | {'id2label': {'1': 'b', '0': 'a', '2': 'c'}})
  assert interop.read(path).network.class_names == ('a', 'b', 'c')
  path = folder(tmp_path, state, config, label_names=['x', 'y', 'z\x1b[31m'])
  assert interop.read(path).network.class_names == ('x', 'y', r'z\x1b[31m')


@pytest.mark.parametrize(
  ('head', 'expected'),
  [
    ('license: MIT', 'MIT'),
    ("license: 'mit'", 'mit'),
    ('license:\n- mit\n- apache-2.0', 'mit, apache-2.0'),
    ('license: [mit, bsd]', 'mit, bsd'),
    ('license: other\nlicense_name: own-1.0\nlicense_link: LICENSE', 'own-1.0'),
    ('license: other', 'other'),
    ('license:\ntags:\n- x', None),
  ],
)
def test_a_cards_license_is_read_however_it_is_written(tmp_path, state, head, expected):
  path = folder(tmp_path, state, license=None)
  (path / 'README.md').write_text(f'---\ntags:\n- timm\n{head}\n---\n# Card\nlicense: wrong\n')
  assert sources.read(path, 224).license == expected


def test_a_card_that_says_another_license_is_heard(tmp_path, state):
  path = folder(tmp_path, state, license='apache-2.0')
  (path / 'README.md').write_text('---\nlicense: cc-by-nc-4.0\n---\n')
  assert sources.read(path, 224).license == 'apache-2.0; its model card says cc-by-nc-4.0'
  (path / 'README.md').write_text('---\nlicense: Apache-2.0\n---\n')
  assert sources.read(path, 224).license == 'apache-2.0'


@pytest.mark.parametrize(
  ('name', 'way'),
  [
    ('https://a.org/b.pth', r'a file of this machine: download it first \(curl -LO https://a\.org/b\.pth\)'),
    ('timm/resnet18.a1_in1k', r'a file, a folder, or hf-hub:timm/resnet18\.a1_in1k'),
    ('/no/such.pth', r'a file, a folder, or hf-hub:OWNER/NAME'),
  ],
)
def test_what_is_not_there_is_said_with_what_to_type(name, way):
  with pytest.raises(FileNotFoundError, match=f'^{name}: not there, expected {way}$'):
    sources.read(name, 224)


# --- the hub ---


def test_the_hub_needs_its_client(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r"^hf-hub:a/b: needs huggingface_hub: pip install 'resjax\[hub\]'$"):
    sources.read('hf-hub:a/b', 224)


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """The hub's cache of this test alone, with no way to the hub."""
  constants = pytest.importorskip('huggingface_hub.constants')
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
  return tmp_path / 'hub'


def test_the_hub_serves_from_its_cache(cache, state):
  root = cache / 'models--owner--name'
  (root / 'refs').mkdir(parents=True)
  commit = 40 * 'a'
  (root / 'refs' / 'main').write_text(commit)
  folder(root / 'snapshots' / commit, state)
  found = interop.read('hf-hub:owner/name', resolutions=(32,))
  assert found.config.model.width == 0.35 and found.source.license == 'cc-by-nc-4.0'
  assert found.network.class_names == ('one', 'n2', 'three')
  assert interop.read(f'hf-hub:owner/name@{commit}', resolutions=(32,)).source.name == f'hf-hub:owner/name@{commit}'


def test_where_the_hub_is_out_of_reach_its_cache_serves_at_once(cache, state, monkeypatch, capfd):
  import huggingface_hub

  monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', False)
  monkeypatch.setattr(huggingface_hub.constants, 'ENDPOINT', 'http://127.0.0.1:9')  # nobody listens there
  root = cache / 'models--owner--name'
  (root / 'refs').mkdir(parents=True)
  (root / 'refs' / 'main').write_text('a')
  folder(root / 'snapshots' / 'a', state)
  assert sources.read('hf-hub:owner/name', 224).architecture == 'mobilenetv2_035'
  begin = time.monotonic()
  with pytest.raises(
    ValueError,
    match=r'^hf-hub:owner/other: the hub can not be reached \(.*refused.*; expected a repository that the hub, or',
  ):
    sources.read('hf-hub:owner/other', 224)
  assert time.monotonic() - begin < 15 and capfd.readouterr() == ('', '')  # the client's own way: 23 s, and 12 lines


@pytest.mark.parametrize('name', ['owner/other', 'no such name', 'a/b/c', '', 'owner/other@v1'])
def test_what_the_hub_does_not_have_is_told_in_one_line(cache, name):
  with pytest.raises(ValueError, match=r'^hf-hub:.*; expected a repository that the hub, or its c') as error:
    sources.read(f'hf-hub:{name}', 224)
  assert '\n' not in str(error.value)
