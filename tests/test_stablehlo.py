"""Networks as StableHLO: run by JAX alone, at every resolution, for any number of images, on every platform."""

import pathlib
import re
import subprocess
import sys

import jax
import networks
import numpy as np
import pytest
from jax import export

from resjax.exporting import stablehlo
from resjax.inference import programs

ROOT = pathlib.Path(__file__).parents[1]
TOLERANCE = 1e-5  # the same float32 sums, fused otherwise

# The snippet of docs/export.md, where nothing of resjax or flax can be imported.
ALONE = """
import sys

class Blocker:
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in ('resjax', 'flax', 'optax', 'orbax', 'ml_collections', 'onnx', 'torch'):
      raise ImportError(f'{name} is not here')

sys.meta_path.insert(0, Blocker())
import numpy as np
crops = np.load('crops.npy')
place = 1
{snippet}
np.save('logits.npy', np.asarray(logits))
"""


@pytest.fixture(scope='module')
def network():
  return networks.tiny('drnet')


@pytest.fixture(scope='module')
def crops():
  return np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)


def test_all_resolutions_are_in_one_file_for_every_platform(network, crops):
  exported = export.deserialize(bytearray(stablehlo.of_network(network)))
  assert exported.platforms == ('cpu', 'cuda', 'tpu')
  for place, program in enumerate(programs.of_network(network)):
    for count in (3, 1):
      got = exported.call(np.int32(place), crops[:count])
      expected = program.forward(program.variables, crops[:count])
      assert got.dtype == np.float32
      np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)


def test_one_resolution_takes_crops_of_its_own_and_gives_probabilities(network, crops):
  at, _ = network.at(8)
  exported = export.deserialize(bytearray(stablehlo.of_network(at, softmax=True)))
  (program,) = programs.of_network(at)
  expected = jax.nn.softmax(program.forward(program.variables, crops[:, :8, :8]))
  np.testing.assert_allclose(exported.call(crops[:, :8, :8]), expected, rtol=0, atol=TOLERANCE)


def test_the_weights_are_there_once(network):
  size = len(stablehlo.of_network(network))
  one = sum(leaf.nbytes for leaf in jax.tree.leaves(network.view(16)))
  assert size < 1.5 * one + 60_000  # the text of a network this small counts


def test_a_network_with_a_predictor_is_two_files(network, crops, tmp_path):
  stablehlo.write(network, tmp_path / 'out')
  assert {path.name for path in (tmp_path / 'out').iterdir()} == {'network.stablehlo', 'predictor.stablehlo'}
  exported = export.deserialize(bytearray((tmp_path / 'out' / 'predictor.stablehlo').read_bytes()))
  (program,) = programs.of_predictor(network)
  np.testing.assert_allclose(exported.call(crops), program.forward(program.variables, crops), rtol=0, atol=TOLERANCE)


def test_the_snippet_of_the_documentation_runs_where_neither_resjax_nor_flax_is(network, crops, tmp_path):
  (snippet,) = re.findall(
    r'```python\n(.*?export\.deserialize.*?)```', (ROOT / 'docs/export.md').read_text(), re.DOTALL
  )
  (tmp_path / 'network.stablehlo').write_bytes(stablehlo.of_network(network))
  np.save(tmp_path / 'crops.npy', crops)
  subprocess.run([sys.executable, '-c', ALONE.replace('{snippet}', snippet)], cwd=tmp_path, check=True)
  program = programs.of_network(network)[1]
  expected = program.forward(program.variables, crops)
  np.testing.assert_allclose(np.load(tmp_path / 'logits.npy'), expected, rtol=0, atol=TOLERANCE)
