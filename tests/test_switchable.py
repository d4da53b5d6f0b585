"""Switching is a statement about a pytree: any Flax model with BatchNorm, no naming rule."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import resjax
from resjax import models
from resjax.apply import linen

RESOLUTIONS = (16, 12, 8)


class Foreign(nn.Module):
  """A network resjax does not ship: odd names, a nested normaliser without scale, one LayerNorm that is shared."""

  @nn.compact
  def __call__(self, images, *, train):
    x = nn.Conv(4, (3, 3), name='look')(images)
    x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name='calm')(x))
    x = Inner(name='deep')(x, train).mean((1, 2))
    return nn.Dense(3)(nn.LayerNorm(name='shared_norm')(x))


class Inner(nn.Module):
  @nn.compact
  def __call__(self, x, train):
    return nn.BatchNorm(use_running_average=not train, use_scale=False, name='bare')(nn.Conv(5, (1, 1))(x))


class Layered(nn.Module):
  """No statistics: LayerNorm, and one collection that is neither params nor batch_stats."""

  @nn.compact
  def __call__(self, images, *, train):
    x = nn.LayerNorm(name='calm')(nn.Dense(4, name='look')(images))
    seen = self.variable('seen', 'images', jnp.zeros, ())
    if train:
      seen.value += len(images)
    return nn.Dense(3, name='say')(x.mean((1, 2)) ** 2)


class Unnormalised(nn.Module):
  @nn.compact
  def __call__(self, images, *, train):
    return nn.Dense(2)(images.mean((1, 2)))


@pytest.fixture(scope='module')
def images():
  return tuple(jax.random.normal(jax.random.key(r), (4, r, r, 3)) for r in RESOLUTIONS)


@pytest.fixture(scope='module', params=['foreign', 'small'])
def network(request):
  """A plain network and its variables, with statistics and scales that differ between resolutions."""
  small = models.create('resnet_small', num_classes=3, width=0.25, stages=(1, 1))
  model = Foreign() if request.param == 'foreign' else small
  plain = jax.jit(model.init, static_argnames='train')(jax.random.key(0), jnp.ones((1, 16, 16, 3)), train=False)
  shared = resjax.share(plain, RESOLUTIONS)
  for i, r in enumerate(RESOLUTIONS):
    shared['batch_stats'][str(r)] = jax.tree.map(lambda x, i=i: x + 0.1 * i, shared['batch_stats'][str(r)])
    shared['params']['private'][str(r)] = jax.tree.map(lambda x, i=i: x + 0.2 * i, shared['params']['private'][str(r)])
  return model, plain, shared


def apply(model, variables, images):
  return jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)


def equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


def test_private_are_the_modules_with_statistics_whatever_their_name():
  plain = Foreign().init(jax.random.key(0), jnp.ones((1, 8, 8, 3)), train=False)
  variables = resjax.share(plain, RESOLUTIONS)
  assert set(variables['params']['shared']) == {'look', 'deep', 'shared_norm', 'Dense_0'}
  assert set(variables['params']['shared']['deep']) == {'Conv_0'}
  assert set(variables['params']['private']) == set(variables['batch_stats']) == {'16', '12', '8'}
  for r in RESOLUTIONS:
    private = variables['params']['private'][str(r)]
    assert {k: set(v) for k, v in private.items()} == {'calm': {'scale', 'bias'}, 'deep': {'bare'}}
    assert set(variables['batch_stats'][str(r)]['deep']['bare']) == {'mean', 'var'}


def test_a_view_is_the_plain_network(network):
  model, plain, _ = network
  fresh = resjax.share(plain, RESOLUTIONS)
  for r in RESOLUTIONS:
    assert equal(resjax.view(fresh, r), plain)


def test_forward_is_one_plain_network_per_resolution(network, images):
  model, _, variables = network
  logits, statistics = resjax.forward(model, variables, images, RESOLUTIONS, train=False)
  assert logits.shape == (3, 4, 3) and equal(statistics, variables['batch_stats'])
  for i, r in enumerate(RESOLUTIONS):
    alone = model.apply(resjax.view(variables, r), images[i], train=False)
    np.testing.assert_array_equal(logits[i], alone)


def test_the_order_of_resolutions_is_the_callers(network, images):
  """Under jit, dict keys are sorted as strings ('12' before '16' before '8'): it must not matter."""
  model, _, variables = network
  run = jax.jit(lambda v, x, r: resjax.forward(model, v, x, r, train=False)[0], static_argnums=2)
  together = run(variables, images, RESOLUTIONS)
  for i, r in enumerate(RESOLUTIONS):
    np.testing.assert_array_equal(together[i], run(variables, images[i : i + 1], (r,))[0])
  assert not np.allclose(together[0], together[1], atol=1e-3)


def test_a_set_of_normalisers_acts_on_its_resolution_alone(network, images):
  model, _, variables = network
  changed = jax.tree.map(jnp.array, variables)
  changed['params']['private']['12'] = jax.tree.map(lambda x: x * 1.5 + 0.1, changed['params']['private']['12'])
  changed['batch_stats']['12'] = jax.tree.map(lambda x: x * 2 + 0.1, changed['batch_stats']['12'])
  before, _ = resjax.forward(model, variables, images, RESOLUTIONS, train=False)
  after, _ = resjax.forward(model, changed, images, RESOLUTIONS, train=False)
  np.testing.assert_array_equal(before[0], after[0])
  np.testing.assert_array_equal(before[2], after[2])
  assert not np.allclose(before[1], after[1])


def test_training_at_one_resolution_leaves_the_others_statistics_bit_equal(network, images):
  model, _, variables = network
  _, statistics = resjax.forward(model, variables, images[:1], RESOLUTIONS[:1], train=True)
  assert equal(statistics['12'], variables['batch_stats']['12'])
  assert equal(statistics['8'], variables['batch_stats']['8'])
  assert not equal(statistics['16'], variables['batch_stats']['16'])


def test_shared_gradient_is_the_sum_over_resolutions(network, images):
  model, _, variables = network

  def loss(params, chosen):
    picked = [i for i, r in enumerate(RESOLUTIONS) if r in chosen]
    out, _ = resjax.forward(
      model, variables | {'params': params}, [images[i] for i in picked], [RESOLUTIONS[i] for i in picked], train=True
    )
    return (out**2).sum()

  gradient = jax.jit(jax.grad(loss), static_argnums=1)
  together = gradient(variables['params'], RESOLUTIONS)
  single = [gradient(variables['params'], (r,)) for r in RESOLUTIONS]
  summed = jax.tree.map(lambda *g: sum(g), *[g['shared'] for g in single])
  for a, b in zip(jax.tree.leaves(together['shared']), jax.tree.leaves(summed), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1.0, float(np.abs(b).max())))
  for r, g in zip(RESOLUTIONS, single, strict=True):
    others = [s for s in RESOLUTIONS if s != r]
    assert not any(leaf.any() for s in others for leaf in jax.tree.leaves(g['private'][str(s)]))
    for a, b in zip(jax.tree.leaves(together['private'][str(r)]), jax.tree.leaves(g['private'][str(r)]), strict=True):
      np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1.0, float(np.abs(b).max())))


def test_extract_is_a_copy_of_a_plain_network(network, images):
  model, plain, variables = network
  taken = resjax.extract(variables | {'params': variables['params'] | {'alpha': jnp.ones(3)}}, 12)
  assert jax.tree.structure(taken) == jax.tree.structure(plain)
  np.testing.assert_array_equal(apply(model, taken, images[1]), apply(model, resjax.view(variables, 12), images[1]))
  kept = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(variables)}
  assert not kept & {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(taken)}


def test_shared_batch_norm_is_one_set_updated_by_every_resolution(network, images):
  model, plain, _ = network
  variables = resjax.share(plain, RESOLUTIONS, shared_batch_norm=True)
  assert list(variables['batch_stats']) == ['all']
  _, statistics = resjax.forward(model, variables, images, RESOLUTIONS, train=True)
  current = plain
  for x in images:
    _, updates = model.apply(current, x, train=True, mutable=['batch_stats'])
    current = current | updates
  for a, b in zip(jax.tree.leaves(statistics['all']), jax.tree.leaves(current['batch_stats']), strict=True):
    np.testing.assert_array_equal(a, b)


def test_mask_chooses_the_samples_of_each_resolutions_statistics():
  images = [jax.random.normal(jax.random.key(r), (16, r, r, 3)) for r in RESOLUTIONS]
  model = models.create('resnet_small', num_classes=3, width=0.25, stages=(1, 1))
  plain = model.init(jax.random.key(0), images[0], train=False)
  variables = resjax.share(plain, RESOLUTIONS)
  mask = jnp.array([[1, 0], [0, 1], [0, 0]]).repeat(8, axis=1)
  _, got = resjax.forward(model, variables, images, RESOLUTIONS, train=True, mask=mask)
  _, expected = resjax.forward(model, variables, [images[0][:8], images[1][8:]], RESOLUTIONS[:2], train=True)
  for r in ('16', '12'):
    for a, b in zip(jax.tree.leaves(got[r]), jax.tree.leaves(expected[r]), strict=True):
      np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
  assert equal(got['8'], variables['batch_stats']['8'])


@pytest.fixture(scope='module')
def layered():
  """A network without statistics, plain and shared, its LayerNorm private and different at each resolution."""
  plain = Layered().init(jax.random.key(0), jnp.ones((1, 16, 16, 3)), train=False)
  shared = resjax.share(plain, RESOLUTIONS, private=lambda path, leaf: 'calm' in path.split('/'))
  for i, r in enumerate(RESOLUTIONS):
    shared['private'][str(r)] = jax.tree.map(lambda x, i=i: x + 0.2 * i, shared['private'][str(r)])
  return plain, shared


def test_a_predicate_shares_any_tree(layered):
  plain, shared = layered
  none = {'kernel': None, 'bias': None}
  assert set(shared) == {'shared', 'private'} and set(shared['private']) == {'16', '12', '8'}
  assert shared['shared']['params']['calm'] == {'scale': None, 'bias': None}
  for own in shared['private'].values():
    assert own['params']['look'] == own['params']['say'] == none and own['seen'] == {'images': None}
  seen = []
  resjax.share(plain, (8,), private=lambda path, leaf: seen.append((path, leaf.shape)) or True)
  assert ('params/calm/scale', (4,)) in seen and ('seen/images', ()) in seen and len(seen) == 7


@pytest.mark.parametrize('tree', ['dict', 'nested', 'nnx'])
def test_a_view_gives_back_every_tree_as_it_was(tree):
  trees = {
    'dict': {'shared': jnp.arange(2), 'private': {'kernel': jnp.ones(3)}, 'none': None},  # not a shared tree itself
    'nested': [jnp.ones(2), (jnp.zeros(()), {'a': jnp.arange(3), 'b': None}), []],
    'nnx': nnx.split(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))[1],
  }
  plain, places = trees[tree], iter(range(99))
  shared = resjax.share(plain, (16, 8), private=lambda path, leaf: next(places) % 2 == 0)
  assert equal(resjax.view(shared, 8), plain) and equal(resjax.extract(shared | {'alpha': jnp.ones(2)}, 16), plain)
  alone = resjax.share(plain, (16, 8), private=lambda path, leaf: True, shared_batch_norm=True)
  assert list(alone['private']) == ['all'] and equal(resjax.view(alone, 16), plain)


def test_forward_of_a_tree_gives_back_all_of_it(layered, images):
  _, shared = layered
  logits, same = resjax.forward(Layered(), shared, images, RESOLUTIONS, train=False)
  assert equal(same, shared)
  for i, r in enumerate(RESOLUTIONS):
    np.testing.assert_array_equal(logits[i], Layered().apply(resjax.view(shared, r), images[i], train=False))
  _, new = resjax.forward(Layered(), shared | {'alpha': jnp.ones(3)}, images, RESOLUTIONS, train=True)
  assert new['shared']['seen']['images'] == 12 and set(new) == {'shared', 'private', 'alpha'}  # each size's 4 images
  assert equal(new['private'], shared['private'])


def test_a_function_stands_where_a_module_does(network, images):
  model, _, variables = network
  ours, theirs = (resjax.forward(m, variables, images, RESOLUTIONS, train=True) for m in (model, linen(model)))
  assert equal(ours, theirs)
  masks = []

  def apply(variables, images, train, mask=None):
    masks.append(mask)
    return linen(model)(variables, images, train)

  resjax.forward(apply, variables, images[:1], RESOLUTIONS[:1], train=False, mask=[jnp.ones(4)])
  resjax.forward(apply, variables, images[:1], RESOLUTIONS[:1], train=False)
  assert masks[0].shape == (4,) and masks[1] is None
  for wrong in (lambda v, x, train: jnp.ones((2, 3)), lambda v, x, train: (jnp.ones((4, 3)), v['params'])):
    with pytest.raises(ValueError, match='^model: returned something else, expected .logits, variables., these struct'):
      resjax.forward(wrong, variables, images, RESOLUTIONS, train=True)


def test_trees_that_can_not_be_shared_or_viewed(layered, network):
  plain, shared = layered
  _, ordinary, variables = network
  for twice, options in ((variables, {}), (shared, {'private': lambda path, leaf: True})):
    with pytest.raises(ValueError, match="^variables: shared already, expected a plain network's"):
      resjax.share(twice, RESOLUTIONS, **options)
  for unshared in (plain, ordinary, [jnp.ones(2)]):
    with pytest.raises(ValueError, match="^variables: a plain network's, expected what resjax.share returns"):
      resjax.view(unshared, 16)
  with pytest.raises(ValueError, match='^private: true for no leaf, expected one or more'):
    resjax.share(plain, RESOLUTIONS, private=lambda path, leaf: False)
  with pytest.raises(ValueError, match='^variables: got the collections seen too, expected params and batch_stats'):
    resjax.share(ordinary | {'seen': plain['seen']}, RESOLUTIONS)


def test_an_order_that_is_not_highest_first_is_refused(network, images):
  model, _, variables = network
  for order in ((16, 8, 12), (8, 12, 16), (16, 16, 8)):
    with pytest.raises(ValueError, match=r'^resolutions: got .*, expected one or more, the highest first$'):
      resjax.forward(model, variables, images, order, train=False)
  with pytest.raises(ValueError, match=r'^images: got the sizes \[\(8, 8\), .*, expected \[\(16, 16\), '):
    resjax.forward(model, variables, images[::-1], RESOLUTIONS, train=False)
  with pytest.raises(ValueError, match='^mask: got 2 sizes, expected one for each of the resolutions'):
    resjax.forward(model, variables, images, RESOLUTIONS, train=False, mask=jnp.ones((2, 4)))


def test_bad_input_is_refused_in_one_line(images):
  model = Unnormalised()
  plain = model.init(jax.random.key(0), images[0], train=False)
  with pytest.raises(ValueError, match='variables: no batch_stats, expected a network with BatchNorm'):
    resjax.share(plain, RESOLUTIONS)
  good = Foreign().init(jax.random.key(0), images[0], train=False)
  for wrong in ((), (16, 16), (16, 0), (16.0,), (True,)):
    with pytest.raises(ValueError, match='^resolutions: got .* expected .*positive integer.* or .height, width.$'):
      resjax.share(good, wrong)
  variables = resjax.share(good, RESOLUTIONS)
  with pytest.raises(ValueError, match='resolution: got 10, expected one of 16, 12, 8'):
    resjax.view(variables, 10)
  with pytest.raises(ValueError, match='images: got 3 sizes, expected one for each of the resolutions'):
    resjax.forward(Foreign(), variables, images, (16, 8), train=False)
