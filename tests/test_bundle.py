"""Bundles: answers as from the network, files checked, budgets that they were set to; the example without resjax."""

import io
import json
import re
import shutil
import subprocess
import sys

import msgspec
import networks
import numpy as np
import pytest
from blocked import SCRIPT
from jax import export
from PIL import Image

import resjax
from resjax import checksums, telling
from resjax.exporting import bundle
from resjax.inference import Classifier, programs
from resjax.routing import Budget
from resjax.serving.classifying import Classifying
from resjax.serving.messages import Cut, Reply
from resjax.serving.settings import Settings

TOLERANCE = 1e-5  # of probabilities: float32 sums of a few hundred products in another order


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
  return folder_of(24, 0, tmp_path_factory)


@pytest.fixture(scope='module')
def others(tmp_path_factory):
  """Of a calibration: a knob is set between two of its images, which may round to either side."""
  return folder_of(50, 1, tmp_path_factory)


def folder_of(count, seed, tmp_path_factory):
  folder, rng = tmp_path_factory.mktemp('photographs'), np.random.default_rng(seed)
  for i in range(count):
    coarse = rng.integers(0, 256, (2, 3, 3), np.uint8)
    Image.fromarray(coarse).resize((24 + i, 30), Image.Resampling.BICUBIC).save(folder / f'{i:02}.png')
  return folder


@pytest.fixture(scope='module', params=['rsnet', 'drnet'])
def made(request, others, tmp_path_factory):
  """A network's calibrated classifier, and its bundle."""
  network = networks.tiny(request.param)
  classifier = Classifier(network, max_batch=4)
  classifier.calibrate(str(others))
  names = [name for name in classifier.engines.routers if name in ('predictor', 'cascade')]
  knobs = {(name, Budget.parse(b)): classifier.router(name, b).knob for name in names for b in ('0.6', '0.8')}
  folder = tmp_path_factory.mktemp('bundles') / 'bundle'
  bundle.write(network, folder, knobs=knobs, origin={'source': '/somewhere/weights.pth', 'license': 'BSD'})
  return classifier, folder


@pytest.fixture
def copy(made, tmp_path):
  shutil.copytree(made[1], tmp_path / 'copy')
  return tmp_path / 'copy'


def assert_same(found, expected):
  for p, q in zip(found, expected, strict=True):
    assert (p.image, p.label, p.resolution, p.macs) == (q.image, q.label, q.resolution, q.macs)
    assert p.probability == pytest.approx(q.probability, abs=TOLERANCE)


def test_a_bundle_answers_as_its_network_does(made, photographs):
  classifier, folder = made
  found = Classifier.load(folder, max_batch=4, strict=True)
  assert isinstance(found.network, bundle.Bundle) and found.engines.engine.runtime.identity.runtime.startswith('onnx')
  ways = [{'resolution': 16}, {'resolution': 8}, {}, {'budget': 0.6}, {'budget': '0.8', 'router': 'cascade'}]
  for way in ways:
    assert_same(found.predict(str(photographs), **way), classifier.predict(str(photographs), **way))
  assert found.notes == []


def test_what_a_bundle_has_no_files_for_is_refused(copy, photographs):
  found = Classifier.load(copy)
  for options, message in [
    ({'resolution': 12}, r'^resolution: got 12, expected one of those in the bundle: 16, 8$'),
    (
      {'budget': 0.7, 'router': 'cascade'},
      r"^budget: got 0\.7 for router 'cascade', expected .* set to, 0\.6, 0\.8",
    ),
    (
      {'budget': 0.6, 'router': 'detail'},
      r"^budget: got 0\.6 for router 'detail', expected .* was set to, none, or",
    ),
  ]:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
      found.predict(str(photographs), **options)
  with pytest.raises(ValueError, match=r'^.*copy: a bundle, whose network stays as it is; expected the workdir'):
    found.recalibrate(16, str(photographs))
  with pytest.raises(ValueError, match=r"^dtype: got 'bfloat16', expected float32 with this bundle$"):
    Classifier.load(copy, dtype='bfloat16')
  with pytest.raises(ValueError, match=r'^step: got 3 for .*copy, a bundle, expected none$'):
    Classifier.load(copy, step=3)
  with pytest.raises(ValueError, match=r'^runtime: got xla for .*16\.onnx, expected onnx'):
    Classifier.load(copy, runtime='xla').predict(str(photographs))


def test_a_bundle_that_is_calibrated_again_meets_any_budget(made, copy, photographs, others):
  found = Classifier.load(copy, max_batch=4)
  found.calibrate(str(others))
  again = Classifier.load(copy, max_batch=4)
  assert_same(again.predict(str(photographs), budget=0.7), made[0].predict(str(photographs), budget=0.7))


def test_a_cost_table_that_was_kept_in_the_bundle_is_not_measured_again(copy, monkeypatch):
  first = Classifier.load(copy, max_batch=4).engines.engine.costs
  monkeypatch.setattr(resjax.inference.timing, 'measure', None)
  np.testing.assert_array_equal(Classifier.load(copy, max_batch=4).engines.engine.costs.seconds, first.seconds)


def changed(**fields):
  def change(folder):
    path = folder / 'manifest.json'
    path.write_bytes(checksums.to_json(checksums.of_json(path.read_bytes()) | fields))

  return change


def flipped(folder):
  content = bytearray((folder / '8.onnx').read_bytes())
  content[1000] ^= 1
  (folder / '8.onnx').write_bytes(content)


def edited(folder):
  path = folder / 'manifest.json'
  path.write_text(path.read_text().replace('"crop_fraction": 0.875', '"crop_fraction": 0.775'))


DAMAGE = {
  r'manifest\.json: damaged \(ValueError: got checksum \w{8}, expected \w{8}\)': edited,
  r'8\.onnx: got sha256 \w{12}, expected \w{12}; copy the bundle again$': flipped,
  r'16\.onnx: missing, and manifest\.json lists it; copy the': lambda folder: (folder / '16.onnx').unlink(),
  r'manifest\.json: damaged \(JSONDecodeError': lambda folder: (folder / 'manifest.json').write_text('{"kind":'),
  r'manifest\.json: damaged \(TypeError': changed(macs=None),
  r'manifest\.json: damaged \(ValueError': changed(resolutions=[[16]]),
  r'manifest\.json: damaged, got format': changed(format='x'),
  r'manifest\.json: got format 99, expected at most': changed(format=99),
  r'manifest\.json: damaged \(ValueError: 12\.onnx is not among its files\)': changed(resolutions=[[16, 16], [12, 12]]),
  r'manifest\.json: damaged \(ValueError: weights\.bin is not among': changed(files={}, resolutions=[]),
  r"manifest\.json: got kind 'other', expected 'resjax bundle'$": changed(kind='other'),
}


@pytest.mark.parametrize('message', DAMAGE)
def test_damage_is_told_in_one_line(copy, message):
  DAMAGE[message](copy)
  with pytest.raises(ValueError, match=f'^.*{message}') as error:
    Classifier.load(copy)
  assert '\n' not in str(error.value)


def test_stablehlo_may_stand_beside_and_is_checked_too(made, tmp_path):
  network = made[0].network
  bundle.write(network, tmp_path / 'bundle', stablehlo=True)
  names = {'network.stablehlo'} | ({'predictor.stablehlo'} if network.predictor else set())
  assert {path.name for path in tmp_path.glob('bundle/*.stablehlo')} == names
  crops = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
  exported = export.deserialize(bytearray((tmp_path / 'bundle' / 'network.stablehlo').read_bytes()))
  for place, program in enumerate(programs.of_network(network)):
    expected = program.forward(program.variables, crops)
    np.testing.assert_allclose(exported.call(np.int32(place), crops), expected, rtol=0, atol=TOLERANCE)
  bundle.read(tmp_path / 'bundle')
  (tmp_path / 'bundle' / 'network.stablehlo').write_bytes(b'')
  with pytest.raises(ValueError, match=r'network\.stablehlo: got sha256'):
    bundle.read(tmp_path / 'bundle')


def test_the_manifest_says_what_the_bundle_is(made):
  manifest = json.loads((made[1] / 'manifest.json').read_text())
  assert manifest['origin'] == {'source': 'weights.pth', 'license': 'BSD'}
  assert manifest['classes'] == list('abcde') and manifest['models'] == ['16.onnx', '8.onnx']
  assert set(manifest['files']) == {path.name for path in made[1].iterdir()} - {'manifest.json', 'costs.json'}
  assert manifest['preprocessing']['in the models']['mean'] == [0.485, 0.456, 0.406]


def test_the_example_routes_without_resjax_and_jax(made, photographs):
  classifier, folder = made
  files = sorted(map(str, photographs.iterdir()))
  command = [sys.executable, '-c', SCRIPT, 'resjax,flax,jax,jaxlib,onnx,torch', folder / 'example.py']
  for budget, way in (('0.6', {'budget': 0.6, 'router': 'cascade'}), ('1', {'resolution': 16})):
    done = subprocess.run([*command, budget, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = classifier.predict(files, **way)
    lines = [f'{p.image}  {p.label}  {100 * p.probability:.1f} %  {p.resolution}.onnx' for p in expected]
    assert done.stdout.splitlines() == lines
  for arguments in (['0.65', files[0]], ['0.6'], []):
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    assert done.returncode == 1 and re.fullmatch(r'error: expected IMAGE after .* 0\.6, .*1\n', done.stderr), (
      done.stderr
    )


def test_class_names_that_are_no_utf8_travel_everywhere(tmp_path):
  names = ('=x', 'crêpe', 'e\u0301', 'caf\udce9', '\x1b')
  bundle.write(networks.tiny(class_names=names), tmp_path / 'bundle')
  assert bundle.read(tmp_path / 'bundle').class_names == names
  classifier = Classifier.load(tmp_path / 'bundle', max_batch=1)
  image = np.zeros((16, 16, 3), np.uint8)
  label = telling.utf8(classifier.predict(image)[0].label)
  (reply,) = Classifying(classifier, Settings('', top_k=5)).replies([Cut(image, 0.0, None)])
  found = msgspec.json.decode(msgspec.json.encode(reply), type=Reply).prediction
  assert found['label'] == label and {guess['label'] for guess in found['top']} == {
    telling.utf8(name) for name in names
  }
  encoded = io.BytesIO()
  Image.fromarray(image).save(encoded, 'PNG')
  row = resjax.BatchPredictor(tmp_path / 'bundle', max_batch=1)({'path': ['\udcff'], 'bytes': [encoded.getvalue()]})
  assert (row['name'].tolist(), row['path'].tolist()) == ([label], [r'\udcff']) and '\udce9' not in ''.join(row['name'])
