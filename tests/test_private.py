"""What is private to a resolution, where it is only a part of the normalisers, or where several have one size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import resjax
from resjax import models
from resjax.resolution import branches

RESOLUTIONS = (16, 12, 8)


@pytest.fixture(scope='module')
def images():
  return tuple(jax.random.normal(jax.random.key(r), (4, r, r, 3)) for r in RESOLUTIONS)


@pytest.fixture(scope='module')
def network():
  model = models.create('resnet_small', num_classes=3, width=0.25, stages=(1,))
  return model, jax.jit(model.init, static_argnames='train')(jax.random.key(0), jnp.ones((1, 16, 16, 3)), train=False)


def equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


@pytest.mark.parametrize('private', ['affine', 'statistics'])
def test_a_part_of_the_normalisers_alone_is_private(network, images, private):
  model, plain = network
  variables = resjax.share(plain, RESOLUTIONS, private=private)
  own, one = variables['params']['private'], variables['batch_stats']
  names = ['16', '12', '8'], ['all']
  assert (list(own), list(one)) == (names if private == 'affine' else names[::-1])
  for r in RESOLUTIONS:
    assert equal(resjax.view(variables, r), plain)
  logits, statistics = resjax.forward(model, variables, images, RESOLUTIONS, train=True)
  current = plain
  for i, (x, r) in enumerate(zip(images, RESOLUTIONS)):
    before = current if private == 'affine' else plain  # one set is updated by every resolution, one after another
    out, updates = model.apply(before, x, train=True, mutable=['batch_stats'])
    np.testing.assert_array_equal(logits[i], out)
    current = before | updates
    if private == 'statistics':
      assert equal(statistics[str(r)], current['batch_stats'])
  if private == 'affine':
    assert equal(statistics['all'], current['batch_stats'])
  key = '12' if private == 'affine' else 'all'
  own = own | {key: jax.tree.map(lambda x: x + 0.5, own[key])}
  changed = variables | {'params': variables['params'] | {'private': own}}
  moved = [not equal(resjax.view(changed, r), plain) for r in RESOLUTIONS]
  assert moved == ([False, True, False] if private == 'affine' else [True] * 3)


def test_words_for_what_is_private_are_as_of_old_and_else_refused(network):
  _, plain = network
  for given, keys in (({}, '16'), ({'private': 'all'}, '16'), ({'private': None}, '16'), ({'private': 'none'}, 'all')):
    made = resjax.share(plain, RESOLUTIONS, **given)
    assert next(iter(made['params']['private'])) == next(iter(made['batch_stats'])) == keys
  one = resjax.share(plain, RESOLUTIONS, shared_batch_norm=True)
  assert equal(resjax.share(plain, RESOLUTIONS, private='none'), one)
  with pytest.raises(ValueError, match="^private: got 'scale', expected a function, or one of all, affine, statistics"):
    resjax.share(plain, RESOLUTIONS, private='scale')
  with pytest.raises(ValueError, match="^shared_batch_norm: got True with private='affine', expected one of the two"):
    resjax.share(plain, RESOLUTIONS, private='affine', shared_batch_norm=True)


def test_branches_of_one_size_have_sets_of_their_own(network, images):
  model, plain = network
  found = branches((16, 16, 8))
  variables = resjax.share(plain, found)
  assert list(variables['batch_stats']) == ['16', '16_2', '8']
  changed = variables['params']['private']['16_2']
  variables['params']['private']['16_2'] = jax.tree.map(lambda x: x * 1.5 + 0.1, changed)
  logits, _ = resjax.forward(model, variables, [images[0], images[0], images[2]], found, train=False)
  np.testing.assert_array_equal(logits[0], model.apply(plain, images[0], train=False))
  np.testing.assert_array_equal(logits[1], model.apply(resjax.view(variables, found[1]), images[0], train=False))
  assert np.abs(logits[0] - logits[1]).max() > 1e-3
