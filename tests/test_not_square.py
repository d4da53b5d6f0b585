"""A network whose own sizes are not square: shared, run, routed, and served at sizes between."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import resjax
from resjax import unseen

SIZES = ((16, 24), (16, 12), (6, 8))


class Net(nn.Module):
  @nn.compact
  def __call__(self, images, train):
    x = nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3))(images))
    return nn.Dense(3)(nn.relu(x).mean((1, 2)))


@pytest.fixture(scope='module', params=['batch norm', 'private'])
def variables(request):
  """Each size's own differ, by its place."""
  plain = Net().init(jax.random.key(0), jnp.ones((1, 8, 8, 3)), train=False)
  rule = None if request.param == 'batch norm' else lambda path, leaf: 'BatchNorm' in path
  tree = resjax.share(plain, SIZES, private=rule)
  sets = tree['batch_stats'] if rule is None else tree['private']
  for place, key in enumerate(('16x24', '16x12', '6x8')):
    sets[key] = jax.tree.map(lambda leaf, place=place: leaf + place, sets[key])
  return tree


def test_every_size_has_its_own(variables):
  images = tuple(jax.random.normal(jax.random.key(0), (2, *size, 3)) for size in SIZES)
  logits, _ = resjax.forward(Net(), variables, images, SIZES, train=False)
  for size, image, row in zip(SIZES, images, logits):
    np.testing.assert_allclose(Net().apply(resjax.view(variables, size), image, train=False), row, atol=1e-6)
    assert resjax.view(variables, size)['batch_stats']['BatchNorm_0']['mean'][0] == SIZES.index(size)
  with pytest.raises(ValueError, match=r'^resolution: got 16, expected one of 16x24, 16x12, 6x8$'):
    resjax.view(variables, 16)


def test_a_size_between_is_interpolated_by_its_area(variables):
  """Of 2 x 48 pixels, which is halfway between the sides of the squares of 192 and 48."""
  found, line = unseen.add(variables, (9, 12))
  assert resjax.view(found, (9, 12))['batch_stats']['BatchNorm_0']['mean'][0] == pytest.approx(1.5, abs=1e-6)
  assert line == '9x12 px (in area 10x10): BatchNorm interpolated between 6x8 and 16x12 px'
  found, line = unseen.add(variables, 100)
  assert resjax.view(found, 100)['batch_stats']['BatchNorm_0']['mean'][0] == 0 and line.endswith('of 16x24 px')


def test_among_squares_a_size_that_was_added_does_not_count_as_trained():
  """The other one has as many pixels as one of the squares."""
  plain = Net().init(jax.random.key(0), jnp.ones((1, 8, 8, 3)), train=False)
  tree, _ = unseen.add(resjax.share(plain, (16, 12, 8)), (9, 16))
  assert unseen.add(tree, 13)[1] == '13 px: BatchNorm interpolated between 12 and 16 px'
  assert unseen.add(tree, (8, 18))[1] == '8x18 px (in area 12x12): BatchNorm of 12 px'


def test_a_square_is_the_same_size_under_either_name():
  plain = Net().init(jax.random.key(0), jnp.ones((1, 8, 8, 3)), train=False)
  assert set(resjax.share(plain, ((8, 8), 6))['batch_stats']) == {'8', '6'}
  for wrong in (((8, 8), 8), ((16, 24), (16, 24)), ((16, 0),), ('8x8',), ((1, 2, 3),)):
    with pytest.raises(ValueError, match='^resolutions: got ') as error:
      resjax.share(plain, wrong)
    assert '\n' not in str(error.value)


def test_it_is_calibrated_and_classifies(variables):
  classifier = resjax.Classifier(resjax.Network(Net(), variables, SIZES), max_batch=4, threads=2)
  images = np.random.default_rng(0).integers(0, 256, (12, 30, 30, 3), np.uint8)
  classifier.calibrate(images)
  assert {p.resolution for p in classifier.predict(images)} == {(16, 24)}
  routed = classifier.predict(images, budget=0.6, router='random')
  assert {p.resolution for p in routed} <= set(SIZES) and len({p.resolution for p in routed}) > 1
