"""The real MobileNetV2 as files: as many photographs right as in resjax, by each of them, without resjax and flax."""

import csv
import pathlib
import subprocess
import sys

import pytest
from blocked import SCRIPT

import resjax
from resjax import cli

ROOT = pathlib.Path(__file__).parents[1]
RIGHT = {224: 129, 192: 124, 160: 119, 128: 104, 96: 65}  # of 152


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  return tmp_path_factory.mktemp('runs') / 'mobilenet'


@pytest.fixture
def export(shared_data, workdir):
  """Writes the network as a file or folder of a name, once."""

  def command(name, *flags):
    if not workdir.exists():
      weights = shared_data / 'weights' / 'mobilenet_v2_imagenet.pth'
      cli.main(['import', str(weights), '--model=mobilenetv2', f'--workdir={workdir}'])
    if not (workdir / name).exists():
      cli.main(['export', f'--workdir={workdir}', f'--out={workdir / name}', *flags])
    return workdir / name

  return command


def counts(shared_data, blocked, *paths):
  """How many each of the models gets right, in their order."""
  labels, benchmark = shared_data / 'photos152' / 'labels.csv', ROOT / 'benchmarks' / 'exported.py'
  command = [sys.executable, '-c', SCRIPT, blocked, benchmark, labels, *paths]
  done = subprocess.run(command, capture_output=True, text=True, cwd=paths[0].parent)
  assert done.returncode == 0, done.stderr
  return [int(line.split(': ')[-1].removesuffix(' of 152')) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_bundle_by_onnx_runtime(shared_data, export):
  bundle = export('bundle', '--format=bundle', '--no-costs')
  assert counts(shared_data, 'resjax,flax,jax,jaxlib,onnx,torch', bundle) == list(RIGHT.values())


@pytest.mark.slow
def test_a_bundle_by_resjax(shared_data, export):
  classifier = resjax.Classifier.load(export('bundle', '--format=bundle', '--no-costs'))
  with (shared_data / 'photos152' / 'labels.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  files = [shared_data / 'photos152' / row['file'] for row in rows]
  for resolution, right in RIGHT.items():
    found = classifier.predict(files, resolution=resolution)
    assert sum(p.class_index == int(row['class_index_0_based']) for p, row in zip(found, rows)) == right


@pytest.mark.slow
@pytest.mark.parametrize(('kind', 'more'), [('onnx', 'jax,jaxlib'), ('stablehlo', 'optax,orbax')])
def test_a_file_for_each_resolution(shared_data, export, kind, more):
  files = [export(f'{size}.{kind}', f'--format={kind}', f'--resolution={size}') for size in RIGHT]
  assert counts(shared_data, f'resjax,flax,onnx,torch,{more}', *files) == list(RIGHT.values())
