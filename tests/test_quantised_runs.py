"""A quantised network from its config to its files: trained, resumed, loaded, exported, packed; started from."""

import functools
import json
import re

import jax
import numpy as np
import onnxruntime
import pytest
from interruptions import interrupted_after
from jax import export

from configs import default
from resjax import packing, report, switchable, trained
from resjax.commands import summary as command
from resjax.exporting import onnx, packed, stablehlo
from resjax.interop import torch as layout
from resjax.measuring import summary
from resjax.network import digest_of
from resjax.quantisation import BASES
from resjax.training import backbone, loop, run
from resjax.training.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures('built_once')

CASES = [('2/32', 'resnet_small'), ('2/2', 'preact_resnet_small')]


@pytest.fixture(scope='module', autouse=True)
def shallow():
  """One stage, as `conftest.shallow` has it, of both networks."""
  from resjax import models

  with pytest.MonkeyPatch.context() as patch:
    for name in ('resnet_small', 'preact_resnet_small'):
      patch.setitem(models.MODELS, name, functools.partial(models.MODELS[name], stages=(1,)))
    yield


def tiny(quantise, name):
  config = default.get_config()
  config.resolutions = (16, 8)
  config.model.name, config.model.quantise = name, quantise
  config.model.num_classes = 3
  config.model.width = 0.25
  config.data.source = 'fake'
  config.data.name = ''
  config.data.size = 70
  config.eval.batch_size = 32
  config.batch_size = 16
  config.epochs = 1.5
  config.checkpoint.every_epochs = 0.5
  return config


@pytest.fixture(scope='module', params=CASES, ids=lambda case: case[0])
def finished(request, built_once, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('runs') / 'whole'
  return request.param, workdir, loop.train_and_evaluate(tiny(*request.param), workdir)


def state_of(case, workdir):
  parts = run.build(tiny(*case))
  with Checkpoints(workdir) as checkpoints:
    return jax.device_get(checkpoints.restore(parts.state_shapes()))


def crops(count=6):
  return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)


def test_a_resumed_run_is_bit_identical_and_says_its_size(finished, tmp_path, monkeypatch, capsys):
  case, whole, results = finished
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    interrupted_after(3, patch)
    loop.train_and_evaluate(tiny(*case), tmp_path)
  resumed = loop.train_and_evaluate(tiny(*case), tmp_path)
  assert 'Going on from step 2 of 6' in capsys.readouterr().out
  state = state_of(case, whole)
  jax.tree.map(np.testing.assert_array_equal, state_of(case, tmp_path), state)
  assert resumed['resolutions'] == results['resolutions']
  assert all(leaf < 0.5 for leaf in jax.tree.leaves(state.batch_stats[BASES]['stage1_block1']['conv1']['weights_left']))

  size = results['size']
  kernels = 2 * 3 * 3 * 4 * 4
  assert (size['quantise'], size['bits'], size['weights']) == (case[0], 2, kernels)
  assert size['plain'] == sum(leaf.nbytes for leaf in jax.tree.leaves(state.variables))
  assert size['packed'] == size['plain'] - 4 * kernels + kernels // 4
  report.show(report.read(whole))
  assert f'{case[0]} bits: 0.00 MB packed' in capsys.readouterr().out.replace('\n', ' ')
  found = summary.of_config(tiny(*case))
  assert found['size'] == {key: size[key] for key in found['size']}
  assert f'{kernels:,} weights of 2 bits' in command.packed(found['size'])
  assert found['total']['macs']['16'] == results['resolutions']['16']['macs']


def test_answers_are_the_same_everywhere(finished, tmp_path):
  """In the training's evaluation, of the loaded network, as ONNX and StableHLO, and packed and unpacked."""
  case, workdir, _ = finished
  network, raw = trained.load(workdir), trained.read(workdir, fixed=False).network
  jax.tree.map(np.testing.assert_array_equal, raw.variables, state_of(case, workdir).variables)
  images = crops()

  def logits(network, resolution):
    return np.asarray(jax.jit(network.forward(resolution))(network.view(resolution), images))

  packed.write(network, tmp_path / 'small')
  again = network.replace(variables=packed.read(tmp_path / 'small'))
  assert digest_of(again.variables) == digest_of(network.variables)
  assert (tmp_path / 'small').stat().st_size > packing.size(network.variables).packed
  check_flips(tmp_path / 'small')
  every = jax.jit(export.deserialize(bytearray(stablehlo.of_network(network))).call)
  for place, resolution in enumerate(network.resolutions):
    expected = logits(network, resolution)
    np.testing.assert_array_equal(logits(raw, resolution), expected)
    np.testing.assert_array_equal(logits(again, resolution), expected)
    model = onnx.of_network(network, resolution).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
    for found in (session.run(None, {'crops': images})[0], np.asarray(every(np.int32(place), images))):
      np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_torch_gets_quantised_weights_or_a_reason(finished):
  case, workdir, _ = finished
  network = trained.load(workdir)
  if case[0] == '2/32':
    tensors = layout.state_dict(network, 16)
    kernel = tensors['layer1.0.conv1.weight']
    assert all(len(np.unique(filter_)) <= 4 for filter_ in kernel)
    network = trained.read(workdir, fixed=False).network
  expected = f'quantises {"2/32" if case[0] == "2/32" else "32/2"}|expected a ResNet'
  with pytest.raises(ValueError, match=expected):
    layout.state_dict(network, 16)


def check_flips(path, count=60):
  """No bit of a packed file is another one in silence, be it of its header or of its arrays."""
  content, rng = path.read_bytes(), np.random.default_rng(0)
  for place in [*rng.integers(0, 400, count), *rng.integers(0, len(content), count)]:
    damaged = bytearray(content)
    damaged[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=re.escape(str(path))):
      packed.read(path)


@pytest.mark.parametrize('bits', [1, 2, 3])
def test_packed_weights_are_the_quantised_ones_whatever_their_number(bits):
  rng = np.random.default_rng(bits)
  kernel = rng.normal(size=(3, 3, 5, 7)).astype(np.float32)  # 315 weights: the last byte is not full
  basis = np.abs(rng.normal(size=(7, bits))).astype(np.float32)
  norm = {'16': {'bn': {'mean': np.zeros(7, np.float32)}}}
  variables = {
    'params': {'shared': {'a': {'conv2': {'kernel': kernel}}, 'conv1': {'kernel': kernel}}, 'private': {'16': {}}},
    'batch_stats': norm | {BASES: {'a': {'conv2': {'weights': basis, 'weights_left': np.ones((), np.float32)}}}},
  }
  arrays, shapes = packing.pack(variables)
  assert arrays['params/shared/a/conv2/kernel'].nbytes == -(-315 * bits // 8)
  assert arrays['params/shared/conv1/kernel'].nbytes == 315 * 4
  assert packing.size(variables).packed == sum(array.nbytes for array in arrays.values())
  back = packing.unpack(arrays, shapes)
  from resjax import quantisation

  expected = jax.jit(quantisation.quantise, static_argnums=2)(kernel, basis, True)
  np.testing.assert_array_equal(back['params']['shared']['a']['conv2']['kernel'], expected)
  np.testing.assert_array_equal(back['params']['shared']['conv1']['kernel'], kernel)


def test_files_that_are_not_packed_weights(tmp_path):
  from safetensors import numpy

  (tmp_path / 'noise').write_bytes(b'1234567890')
  (tmp_path / 'other').write_bytes(numpy.save({'a': np.zeros(3, np.float32)}))
  facts = {'kind': packed.KIND, 'format': 1, 'shapes': {'params/shared/a/kernel': [1]}}
  (tmp_path / 'cut').write_bytes(numpy.save({'a': np.zeros(3, np.float32)}, {'resjax': json.dumps(facts)}))
  for name, message in (('noise', 'damaged'), ('other', 'holds something else'), ('cut', 'damaged')):
    with pytest.raises(ValueError, match=message) as error:
      packed.read(tmp_path / name)
    assert '\n' not in str(error.value) and 'expected a file of resjax export --format=packed' in str(error.value)


def test_runs_start_from_quantised_ones_and_from_float(finished, tmp_path, capsys):
  case, workdir, _ = finished
  began = state_of(case, workdir)
  for quantise, kept in ((case[0], True), ('', False), ('3/32', False)):
    config = tiny(quantise, case[1])
    config.init.checkpoint = str(workdir)
    config.epochs = 0.25
    config.optimizer.learning_rate = 1e-9
    if kept:
      loop.train_and_evaluate(config, tmp_path)
      found = trained.read(tmp_path, fixed=False).network.variables
    else:
      parts, method = run.build(config), run.METHODS[config.method]
      begin = method.backbone(config, tmp_path)
      found = backbone.start(parts.fresh_state, config, begin, parts.devices).variables
    said = capsys.readouterr().out
    assert (f'config.model.quantise is {quantise!r} here, and was {case[0]!r} there' in said) == (not kept)
    for mine, theirs in zip(jax.tree.leaves(found['params']['shared']), jax.tree.leaves(began.params['shared'])):
      np.testing.assert_allclose(mine, theirs, atol=1e-5)  # not the quantised ones
    left = found['batch_stats'].get(BASES, {}).get('stage1_block1', {}).get('conv1', {}).get('weights_left')
    assert left is None if not quantise else (float(left) < 0.5) == kept
  assert switchable.is_shared(found)
