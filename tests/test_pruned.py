"""A pruned network goes through what others do: scored, classified with, exported, trained on, and DRNet on it."""

import jax
import numpy as np
import onnxruntime
import pytest
from jax import export
from safetensors.numpy import save_file
from test_loop import tiny

from resjax import (
  Classifier,
  Network,
  checkpoint,
  cli,
  interop,
  models,
  pruning,
  recipes,
  report,
  rsnet,
  switchable,
  trained,
)
from resjax.interop import torch as layout
from resjax.training import loop

NAMES = ('ant', 'bee', 'cat')
INNER = '--config.model.inner=((2,),)'


@pytest.fixture(scope='module')
def workdir(shallow, tmp_path_factory):
  """Of a network whose every variable was moved, half of whose channels inside its block went."""
  folder, config = tmp_path_factory.mktemp('runs'), tiny()
  model, rng = models.from_config(config), np.random.default_rng(0)
  fresh = jax.jit(lambda key: rsnet.init(model, config, key))(jax.random.key(0))
  moved = jax.tree.map(lambda x: np.asarray(x) + rng.uniform(0, 0.3, x.shape).astype(np.float32), fresh)
  trained.save(trained.Trained(trained.of_config(config, moved, NAMES), config, 0, True), folder / 'whole')
  cli.main(['prune', f'--workdir={folder}/whole', '--ratio=0.5', f'--out={folder}/pruned'])
  return folder / 'pruned'


def config_of(*fields):
  """Of a run of two steps that trains the network on."""
  config = tiny()
  config.checkpoint.every_epochs = 1.0
  fields = (INNER, '--config.epochs=0.5', *fields)
  return recipes.with_fields(config, fields)


def test_the_command_says_what_is_left(workdir, tmp_path, capsys):
  cli.main(['prune', f'--workdir={workdir.parent}/whole', '--ratio=0.5', f'--out={tmp_path}/pruned'])
  said = capsys.readouterr().out
  found = trained.read(workdir)
  assert found.finished and found.config.model.inner == ((2,),) == found.network.model.inner
  assert f'16 px: {found.network.macs[0]:,} of ' in said and f"'{INNER}'" in said
  assert checkpoint.load_meta(workdir)['finished'] and found.network.class_names == NAMES
  for out, message in (('', 'holds a run already, expected a new folder'), ('/checkpoints/1', 'among the checkpoints')):
    with pytest.raises(SystemExit, match=f'^error: --out: .*/pruned{out},? {message}'):
      cli.main(['prune', f'--workdir={workdir.parent}/whole', '--ratio=0.5', f'--out={tmp_path}/pruned{out}'])


def test_answers_are_the_same_everywhere(workdir, tmp_path):
  """Of the workdir, of ONNX, of StableHLO, and of a bundle in its place."""
  network, crops = trained.load(workdir), np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
  for kind in ('onnx', 'stablehlo', 'bundle'):
    options = ['--no-costs'] if kind == 'bundle' else ['--resolution=16']
    cli.main(['export', f'--workdir={workdir}', f'--format={kind}', f'--out={tmp_path}/{kind}', *options])
  expected = np.asarray(jax.jit(network.forward(16))(network.view(16), crops))
  session = onnxruntime.InferenceSession(tmp_path / 'onnx', providers=['CPUExecutionProvider'])
  program = export.deserialize(bytearray((tmp_path / 'stablehlo').read_bytes()))
  for found in (session.run(None, {'crops': crops})[0], np.asarray(jax.jit(program.call)(crops))):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
  odds = jax.nn.softmax(expected)
  for classifier in (Classifier.load(place, max_batch=1) for place in (workdir, tmp_path / 'bundle')):
    predictions = classifier.predict_crops(crops, resolution=16)
    assert [p.label for p in predictions] == [NAMES[i] for i in odds.argmax(-1)]
    np.testing.assert_allclose([p.probability for p in predictions], odds.max(-1), rtol=1e-4)
    assert {p.macs for p in predictions} == {network.macs[0]}


def test_trained_on_it_stays_pruned(workdir, tmp_path):
  whole = config_of(f'--config.init.checkpoint={workdir}', '--config.model.inner=()')
  with pytest.raises(ValueError, match=r'config\.model\.inner: got \(\), expected \(\(2,\),\) as in '):
    loop.train_and_evaluate(whole, tmp_path)
  results = loop.train_and_evaluate(config_of(f'--config.init.checkpoint={workdir}'), tmp_path)
  assert results['resolutions']['16']['macs'] == trained.load(workdir).macs[0]


def test_drnet_on_it_is_trained_and_not_pruned_again(workdir, tmp_path):
  fields = ['method=drnet', 'drnet.start=checkpoint', f'drnet.checkpoint={workdir}', 'drnet.frozen=True']
  fields += ['drnet.budget=1e9', 'drnet.predictor.size=8']
  config = config_of(*(f'--config.{field}' for field in fields))
  assert 'routers' in loop.train_and_evaluate(config, tmp_path) and report.read(tmp_path)
  assert trained.load(tmp_path).macs == trained.load(workdir).macs
  with pytest.raises(SystemExit, match=r'^error: network: it has a predictor, expected an RS-Net, on which DRNet is'):
    cli.main(['prune', f'--workdir={tmp_path}', '--ratio=0.5', f'--out={tmp_path}/more'])


def test_what_torch_has_of_it_comes_in_again_where_its_channels_are_said(tmp_path):
  model = models.create('mobilenetv2', num_classes=3, width=0.35)
  shapes, rng = layout.shapes_of(model), np.random.default_rng(0)
  plain = jax.tree.map(lambda x: rng.uniform(0.5, 1, x.shape).astype(np.float32), shapes)
  found = pruning.pruned(Network(model, switchable.share(plain, (32,)), (32,)), 0.5)
  state = layout.state_dict(found, 32)
  save_file(state, tmp_path / 'a.safetensors')
  inner = str(found.model.inner).replace(' ', '')
  back = interop.read(tmp_path / 'a.safetensors', resolutions=(32,), fields=[f'--config.model.inner={inner}']).network
  assert back.macs == found.macs and back.model == found.model
  jax.tree.map(np.testing.assert_array_equal, layout.state_dict(back, 32), state)
  with pytest.raises(ValueError, match=r'a\.safetensors: the keys are not those .*, expected floats ') as error:
    interop.read(tmp_path / 'a.safetensors', resolutions=(32,))
  assert '\n' not in str(error.value)
