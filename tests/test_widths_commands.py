"""What is made for other programs of a network at several widths, and what it is called by commands."""

import json
import time

import jax
import numpy as np
import onnxruntime
import pytest
from PIL import Image
from safetensors.numpy import load_file

from configs import default
from resjax import cli, models, rsnet, switchable, trained
from resjax.commands import benchmark
from resjax.commands import options as shared
from resjax.inference import Classifier
from resjax.interop import torch as layout
from resjax.network import Network
from resjax.resolution import Branch, at_widths, plain
from resjax.serving.classifying import Classifying
from resjax.serving.messages import Cut
from resjax.serving.settings import Settings

pytestmark = pytest.mark.usefixtures('shallow')

HALF = Branch(16, width=0.5)


@pytest.fixture(scope='module')
def saved(shallow, tmp_path_factory):
  """A network of two sizes at two widths, and the workdir that holds it."""
  config = default.get_config()
  config.resolutions, config.widths = (16, 8), (1.0, 0.5)
  config.model.name, config.model.num_classes, config.model.width = 'resnet_small', 5, 0.25
  model = models.from_config(config)
  rng = np.random.default_rng(0)
  fresh = jax.jit(lambda key: rsnet.init(model, config, key))(jax.random.key(0))
  variables = jax.tree.map(lambda x: np.asarray(x) + rng.uniform(0, 0.3, x.shape).astype(np.float32), fresh)
  network = Network(model, variables, at_widths(config), class_names=tuple('abcde'))
  folder = tmp_path_factory.mktemp('runs') / 'run'
  trained.save(trained.Trained(network, config, 0, True), folder)
  return network, folder


def test_one_width_is_a_file_of_its_own_and_as_that_network_says(saved):
  network, folder = saved
  for kind in ('onnx', 'torch'):
    cli.main(['export', f'--workdir={folder}', '--resolution=16x0.5', f'--format={kind}'])
  narrow, _ = network.at(HALF)
  jax.tree.map(np.testing.assert_array_equal, load_file(folder / '16x0.5.safetensors'), layout.state_dict(narrow, 16))
  session = onnxruntime.InferenceSession(folder / '16x0.5.onnx')
  crops = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), np.uint8)
  (found,) = session.run(None, {session.get_inputs()[0].name: crops})
  expected = jax.jit(network.forward(HALF))(network.view(HALF), crops)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
  assert np.abs(found - jax.jit(network.forward(16))(network.view(16), crops)).max() > 1e-2


def test_a_bundle_has_all_of_them(saved, tmp_path, capsys):
  network, folder = saved
  cli.main(['export', f'--workdir={folder}', '--format=bundle', f'--out={tmp_path}/bundle', '--no-costs'])
  Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / 'a.png')
  for branch in network.resolutions:
    lines = []
    for place in (f'--workdir={folder}', f'--bundle={tmp_path}/bundle'):
      capsys.readouterr()
      cli.main(['predict', str(tmp_path / 'a.png'), place, f'--resolution={branch}', '--max-batch=1', '--runtime=onnx'])
      lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1] and f'  {branch} px  ' in lines[0]


def test_torch_has_no_layout_for_several_widths(saved, tmp_path):
  network, folder = saved
  refused = r'resolutions: got 16, 16x0\.5, 8, 8x0\.5, expected none at a width in the layout of .*--resolution=16x0\.5'
  for name in ('a.safetensors', 'a.pth'):
    with pytest.raises(SystemExit, match=refused):
      cli.main(['export', f'--workdir={folder}', '--format=torch', f'--out={tmp_path / name}'])
  assert not [*tmp_path.iterdir()]
  facts = json.loads(layout.metadata(network)[layout.FACTS])
  assert facts['resolutions'] == [16, '16x0.5', 8, '8x0.5']


def test_a_second_branch_at_a_width_is_exported_by_its_name(saved):
  from resjax.commands import export

  network, second = saved[0], Branch(16, 2, 0.5)
  both = switchable.share(switchable.view(network.variables, 16), (16, HALF, second), model=network.model)
  moved = jax.tree.map(lambda x: x + 1, both['batch_stats']['16x0.5_2'])
  network = network.replace(
    variables=both | {'batch_stats': both['batch_stats'] | {'16x0.5_2': moved}}, resolutions=(16, HALF, second)
  )
  alone = export.chosen(network, second, 'onnx')
  assert alone.resolutions == (16,) and export.named(alone, 'onnx', second) == '16x0.5_2.onnx'
  jax.tree.map(np.testing.assert_array_equal, alone.view(16), network.view(second))


def test_a_server_answers_at_one_width_and_its_dial_turns_over_them(saved):
  network, _ = saved
  classifier = Classifier(network, max_batch=2)
  image = np.random.default_rng(1).integers(0, 256, (20, 20, 3), np.uint8)
  served = Classifying(classifier, Settings('', resolution='16x0.5'))
  said = json.loads(json.dumps(served.described()))
  assert said['size'] == 16 and said['resolutions'] == [16, '16x0.5', 8, '8x0.5']
  (found,) = served.replies([Cut(classifier.crop(image, 16), time.monotonic(), None)])
  (expected,) = classifier.predict(image, resolution=HALF)
  assert found.prediction['resolution'] == '16x0.5' and found.prediction['macs'] == expected.macs
  assert found.prediction['probability'] == pytest.approx(expected.probability)
  dialled = Classifying(classifier, Settings('', p95=10.0, min_resolution='16x0.5'))
  assert [step for step, _ in json.loads(json.dumps(dialled.described()))['steps']] == ['16 px', '16x0.5 px']


@pytest.mark.parametrize('resolution', [16, (16, 8), HALF])
def test_a_benchmarks_table_names_each_of_them(resolution):
  entry = dict.fromkeys(('images_per_second', 'p50_ms', 'p95_ms', 'macs'), 1.0)
  row = benchmark.cells(
    entry | {'resolution': plain(resolution), 'batch': 4, 'images_per_second_quartiles': (1.0, 1.0)}
  )
  assert row[0] == f'{shared.pixels(resolution)} px'


def test_a_recipe_with_the_sandwich_rule_is_measured_too():
  """It is a rule of training: here the mix is what is refused."""
  recipe = ['--config=slimmable_quickstart', '--config.sandwich=1', '--config.widths=(1.0,0.75,0.5,0.25)']
  with pytest.raises(SystemExit, match=r'^error: --mix: got 1 shares, .* of \(32, 32x0\.75, 32x0\.5, 32x0\.25\)$'):
    cli.main(['benchmark', *recipe, '--mix=1'])
