"""Networks in int8: answers beside float32's, weights that resolutions have once, the command, and the benchmark."""

import argparse
import json

import networks
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from PIL import Image

import resjax
from resjax import checksums, cli, trained
from resjax.exporting import bundle
from resjax.exporting import onnx as writer
from resjax.exporting.onnx.graph import Weights
from resjax.exporting.onnx.int8 import Shared, quantised
from resjax.inference import Classifier

# Of the largest logit: three convolutions and a product, each to one part in 254 of its range.
NEAR = 0.03


@pytest.fixture(scope='module')
def network():
  return networks.tiny()


@pytest.fixture(scope='module')
def crops():
  return np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), np.uint8)


def answers(model, crops):
  return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {'crops': crops})[0]


def weights_of(model):
  return {proto.name: numpy_helper.to_array(proto) for proto in model.graph.initializer}


@pytest.mark.parametrize('resolution', [16, 8])
def test_logits_are_near_those_of_float32(network, crops, resolution):
  model = writer.of_network(network, resolution)
  found, expected = answers(quantised(model, crops), crops), answers(model, crops)
  apart = np.abs(found - expected).max() / np.abs(expected).max()
  assert 0 < apart < NEAR
  of_each_layer = answers(quantised(model, crops, per_channel=False), crops)
  assert np.abs(of_each_layer - expected).mean() > np.abs(found - expected).mean()


def test_ranges_are_of_the_images(network, crops):
  model = writer.of_network(network, 16)
  dark = quantised(model, crops // 64)  # bright ones are cut off then
  apart = [np.abs(answers(q, crops) - answers(model, crops)).max() for q in (dark, quantised(model, crops))]
  assert apart[0] > 3 * apart[1]
  with pytest.raises(ValueError, match=r'^images: got none that could be read, expected some to set the ranges'):
    quantised(model, crops[:0])


def test_weights_that_are_scaled_otherwise_are_there_once():
  rng = np.random.default_rng(0)
  codes = rng.integers(-127, 128, (64, 64), np.int8)
  rounded = codes.copy()
  rounded[3, 4] += 1 if codes[3, 4] < 127 else -1
  other = codes.copy()
  other[:8] += np.where(codes[:8] < 127, 1, -1).astype(np.int8)  # an eighth of them: other weights
  small = rng.integers(-127, 128, (4, 4), np.int8)

  def model(array):
    tensors = [numpy_helper.from_array(array, 'w'), numpy_helper.from_array(small, 's')]
    return onnx.helper.make_model(onnx.helper.make_graph([], 'g', [], [], tensors))

  weights = Weights('weights.bin')
  takes = Shared(weights)
  models = [takes.take(model(array)) for array in (codes, rounded, other)]
  places = [{f.key: f.value for f in each.graph.initializer[0].external_data}['offset'] for each in models]
  assert places == ['0', '0', '4096'] and weights.to_bytes() == codes.tobytes() + other.tobytes()
  assert all(numpy_helper.to_array(each.graph.initializer[1]).tolist() == small.tolist() for each in models)


def test_a_predictor_stays_in_float32_and_a_bundle_says_what_is_what(crops, tmp_path):
  bundle.write(networks.tiny('drnet'), tmp_path / 'bundle', ranges=crops)
  kinds = {
    file.stem: any(node.op_type == 'QuantizeLinear' for node in onnx.load(file, load_external_data=False).graph.node)
    for file in (tmp_path / 'bundle').glob('*.onnx')
  }
  assert kinds == {'16': True, '8': True, 'predictor': False}
  found = bundle.read(tmp_path / 'bundle')
  assert (found.function(8).dtype, found.scoring().dtype, found.at(8)[0].dtype) == ('int8', 'float32', 'int8')
  manifest = tmp_path / 'bundle' / 'manifest.json'
  said = checksums.of_json(manifest.read_bytes())
  checksums.write(manifest, checksums.to_json({**said, 'dtype': 'int4'}))
  with pytest.raises(ValueError, match=r"damaged \(ValueError: dtype is 'int4'\)"):
    bundle.read(tmp_path / 'bundle')


@pytest.fixture(scope='module')
def photographs(tmp_path_factory, crops):
  folder = tmp_path_factory.mktemp('photographs')
  for number, crop in enumerate(crops):
    Image.fromarray(crop).resize((20, 20)).save(folder / f'{number:02}.png')
  (folder / 'bad.png').write_bytes(b'no image')
  return folder


@pytest.fixture(scope='module')
def workdir(tmp_path_factory, network):
  """An imported network's."""
  folder = tmp_path_factory.mktemp('runs') / 'run'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(trained, 'of_config', lambda *_: network)
    networks.save_imported(network, folder)
  return folder


@pytest.fixture
def run(workdir, network, monkeypatch):
  monkeypatch.setattr(trained, 'of_config', lambda *_: network)
  return lambda *flags: cli.main(['export', f'--workdir={workdir}', *map(str, flags)])


def test_a_bundle_in_int8_is_run_as_it_is(run, workdir, photographs, tmp_path, capsys):
  out = tmp_path / 'bundle'
  run(photographs, '--format=bundle', '--dtype=int8', f'--out={out}', '--no-costs')
  said = capsys.readouterr().err
  assert 'bad.png: not an image' in said and 'ranges of int8 set on 32 images' in said
  assert json.loads((out / 'manifest.json').read_text())['dtype'] == 'int8'
  assert onnx.TensorProto.INT8 in {p.data_type for p in onnx.load(out / '8.onnx').graph.initializer}
  found, plain = Classifier.load(out, max_batch=4, dtype='int8'), Classifier.load(workdir, max_batch=4)
  assert found.engines.engine.runtime.identity.dtype == 'int8'
  for resolution in (16, 8):
    whole = [c.predict(str(photographs), resolution=resolution) for c in (found, plain)]
    pairs = [(a.probability, b.probability) for a, b in zip(*whole) if a.class_index == b.class_index is not None]
    assert len(pairs) > 24 and np.abs(np.diff(pairs)).max() < 0.1  # a twentieth of a logit of 5
  with pytest.raises(ValueError, match=r"^dtype: got 'float32', expected int8 with this bundle$"):
    Classifier.load(out, dtype='float32')


def test_one_file_in_int8(run, photographs, tmp_path):
  run(photographs, '--format=onnx', '--dtype=int8', '--resolution=8', '--softmax', f'--out={tmp_path}/8.onnx')
  model = onnx.load(tmp_path / '8.onnx')
  assert model.producer_name == 'resjax' and any(node.op_type == 'QuantizeLinear' for node in model.graph.node)
  total = answers(model, np.zeros((3, 8, 8, 3), np.uint8)).sum(1)
  np.testing.assert_allclose(total, 1, atol=1e-5)


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--format=torch', '--dtype=int8'], r'^error: --dtype: got it with --format=torch, expected onnx or bundle$'),
    (['a.png', '--format=onnx'], r"^error: IMAGE: got 'a\.png' without --dtype=int8, expected none$"),
    (['--format=onnx', '--dtype=int8'], r'^error: IMAGE: none given, and .*run holds an imported network; expected fi'),
    (
      ['a.png', '--format=bundle', '--dtype=int8', '--with=stablehlo'],
      r'^error: --with: got stablehlo with --dtype=int',
    ),
  ],
)
def test_what_is_refused(run, tmp_path, flags, message):
  with pytest.raises(SystemExit, match=message):
    run(*flags, f'--out={tmp_path}/out')
  assert not list(tmp_path.iterdir())


def test_a_network_that_is_no_bundle_says_where_int8_is_from(network):
  expected = r"^dtype: got 'int8', expected 'float32' or 'bfloat16'; resjax export --format=bundle --dtype=int8 writes"
  with pytest.raises(ValueError, match=expected):
    resjax.Classifier(network, dtype='int8')


def test_the_benchmark_measures_both(network, crops, monkeypatch):
  monkeypatch.syspath_prepend('benchmarks')
  import cpu_tables
  import int8

  options = argparse.Namespace(batches='1,4', ways='int8,first and last in float32', rounds=2, threads=1)
  rows = int8.measure(network, 8, crops[:, ::2, ::2], crops[:16, ::2, ::2], np.zeros(16, int), options)
  assert [row['way'] for row in rows] == ['float32', 'int8', 'first and last in float32']
  assert rows[0]['agree'] == 16 and rows[1]['agree'] > 12 and rows[1]['gain']['4']['median'] > 0
  run = {'command': 'c', 'machine': 'm', 'versions': {}, 'rows': rows}
  assert cpu_tables.int8([run])[4].startswith('| input | what | right | as float32 says | MB | 1: ms an image')
