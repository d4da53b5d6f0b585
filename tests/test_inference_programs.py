"""What is compiled, before any runtime is chosen: every program says what the plain network says of the same crops."""

import json
from collections.abc import Callable

import jax
import networks
import numpy as np
import pytest
from flax import linen as nn

from resjax import apply, preprocess, switchable
from resjax.inference import programs
from resjax.inference.engines import Engines
from resjax.network import Network
from resjax.preprocess import Preprocessing

# float32: other fusions, other rounding, of logits of order 1.
TOLERANCE = 1e-5


@pytest.fixture(scope='module')
def network():
  return networks.tiny('drnet')


def crops(count=3, shape=(16, 16)):
  return np.random.default_rng(0).integers(0, 256, (count, *shape, 3), np.uint8)


@pytest.mark.parametrize('preprocessing', [Preprocessing(), Preprocessing('signed', 'bicubic')])
def test_a_program_is_resize_normalise_and_network(network, preprocessing):
  network = network.replace(preprocessing=preprocessing)
  found = programs.of_network(network)
  assert [p.resolution for p in found] == [16, 8] and {p.shape for p in found} == {(16, 16, 3)}
  assert {(p.num_classes, p.dtype) for p in found} == {(5, 'float32')}
  for program in found:
    sizes, kind = (program.resolution,), preprocessing.interpolation
    (inputs,) = preprocess.prepare((crops(),), sizes, preprocessing.normalize, interpolation=kind)
    expected = network.model.apply(network.view(program.resolution), inputs, train=False)
    logits = jax.jit(program.forward)(program.variables, crops())
    assert logits.dtype == np.float32 and logits.shape == (3, 5)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)


def test_the_interpolation_is_the_networks(network):
  linear, cubic = (
    programs.of_network(network.replace(preprocessing=Preprocessing(interpolation=kind)))[1]
    for kind in ('bilinear', 'bicubic')
  )
  difference = np.abs(linear.forward(linear.variables, crops()) - cubic.forward(cubic.variables, crops()))
  assert difference.max() > 1e-3


def test_the_predictors_program_gives_its_scores(network):
  (program,) = programs.of_predictor(network)
  (inputs,) = preprocess.prepare((crops(),), (16,), 'imagenet')
  expected, _ = network.predictor.scores(network.predictor_variables, inputs, train=False)
  assert (program.resolution, program.shape, program.num_classes) == (8, (16, 16, 3), 2)
  np.testing.assert_allclose(program.forward(program.variables, crops()), expected, rtol=0, atol=TOLERANCE)


def test_a_network_without_a_predictor_has_no_such_program():
  with pytest.raises(ValueError, match='^network: it has no predictor, expected one$'):
    programs.of_predictor(networks.tiny())


def test_sizes_that_are_not_square_come_from_crops_of_the_first(network):
  wide, _ = network.at((8, 16))
  (program,) = programs.of_network(wide)
  assert (program.resolution, program.shape) == ((8, 16), (8, 16, 3))
  (inputs,) = preprocess.prepare((crops(shape=(8, 16)),), ((8, 16),), 'imagenet')
  expected = network.model.apply(wide.view((8, 16)), inputs, train=False)
  np.testing.assert_allclose(program.forward(program.variables, crops(shape=(8, 16))), expected, rtol=0, atol=TOLERANCE)


def test_programs_of_one_network_share_what_the_resolutions_share(network):
  high, low = (p.variables['params'] for p in programs.of_network(network))
  assert high['conv1']['kernel'] is low['conv1']['kernel'] and high['bn1']['scale'] is not low['bn1']['scale']


def test_the_digest_tells_programs_apart_that_give_other_logits(network):
  high, low = programs.of_network(network)
  again = programs.of_network(network.replace(variables=jax.tree.map(np.array, network.variables)))
  assert [p.digest for p in again] == [high.digest, low.digest]
  digests = {high.digest, low.digest, programs.of_predictor(network)[0].digest}
  assert len(digests) == 3
  changed = jax.tree.map(np.array, network.variables)
  changed['params']['private']['8']['bn1']['scale'][0] += 1e-6
  high_again, low_again = programs.of_network(network.replace(variables=changed))
  assert high_again.digest == high.digest and low_again.digest != low.digest
  others = {'normalize': 'signed', 'interpolation': 'bicubic'}
  for field, value in others.items():
    (_, other) = programs.of_network(network.replace(preprocessing=Preprocessing(**{field: value})))
    assert other.digest != low.digest, field
  (_, rounded) = programs.of_network(network.with_dtype('bfloat16'))
  assert rounded.digest != low.digest and rounded.dtype == 'bfloat16'


def test_the_digest_tells_resolutions_apart_that_share_all_their_variables(network):
  plain = switchable.extract(network.variables, 16)
  shared = switchable.share(plain, (16, 8), shared_batch_norm=True)
  high, low = programs.of_network(network.replace(variables=shared, predictor=None))
  jax.tree.map(np.testing.assert_array_equal, high.variables, low.variables)
  assert high.digest != low.digest


def test_a_description_tells_what_takes_other_time_and_not_which_weights(network):
  changed = network.replace(variables=jax.tree.map(lambda x: 2 * x, network.variables))
  first, other = programs.of_network(network)[0], programs.of_network(changed)[0]
  assert first.description == other.description and first.digest != other.digest
  assert programs.of_network(network.with_dtype('bfloat16'))[0].description != first.description


def function_of(network, factor=1.0):
  """A network whose model is a function, a new one at each call: in every process it has another address."""
  inner = apply.linen(network.model)

  def model(variables, images, train):
    logits, variables = inner(variables, images, train)
    return factor * logits, variables

  return network.replace(model=model, predictor=None)


def test_a_function_is_described_by_what_it_computes_the_same_in_every_process(network):
  first, again, other = (programs.of_network(function_of(network, factor)) for factor in (1.0, 1.0, 2.0))
  assert '0x' not in first[0].description and 'model' in first[0].description
  assert [p.description for p in first] == [p.description for p in again]
  assert [p.digest for p in first] == [p.digest for p in again] != [p.digest for p in other]
  halves = (Unnamed(lambda x: 0.5 * x), Unnamed(lambda x: x / 2), Unnamed(lambda x: 0.5 * x))
  found = [programs.of_network(Network(model, UNNAMED, (8,)))[0].description for model in halves]
  assert found[0] == found[2] != found[1]


class Unnamed(nn.Module):
  """One of whose attributes is a function without a name."""

  act: Callable

  @nn.compact
  def __call__(self, images, train):
    return nn.BatchNorm(use_running_average=not train)(self.act(images)).mean((1, 2))


UNNAMED = switchable.share(Unnamed(abs).init(jax.random.key(0), np.ones((1, 8, 8, 3)), train=False), (8,))


def test_the_cost_tables_of_a_function_are_measured_once(network, tmp_path):
  for _ in range(3):
    Engines(function_of(network), max_batch=1, costs_file=tmp_path / 'costs.json')
  assert len(json.loads((tmp_path / 'costs.json').read_text())['tables']) == 1
