"""What is compiled, before any runtime is chosen: every program says what the plain network says of the same crops."""

import jax
import networks
import numpy as np
import pytest

from resjax import preprocess, switchable
from resjax.inference import programs
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
