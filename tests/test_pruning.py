"""Pruned networks: nothing that is dead is missed, counts are exact, and at ratio 0 nothing changes."""

import functools

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from networks import INVERTED

from resjax import Network, macs, models, pruning, switchable

NETWORKS = {
  'basic': {'name': 'resnet_small', 'stages': (1, 1)},
  'bottleneck': {'name': 'resnet50', 'stages': (1, 1), 'width': 0.125},
  'mobile': {'name': 'mobilenetv2', 'width': 0.25, 'stages': INVERTED},
}


@functools.cache
def network(kind='basic'):
  """A network of two sizes, whose normalisers differ."""
  options = {'width': 0.5} | NETWORKS[kind]
  model = models.create(num_classes=5, **options)
  images = np.zeros((1, 16, 16, 3), np.float32)
  fresh = jax.jit(lambda key: switchable.share(model.init(key, images, train=False), (16, 8)))(jax.random.key(0))
  rng = np.random.default_rng(0)
  noisy = jax.tree.map(lambda x: np.asarray(x) + rng.uniform(0.05, 0.3, x.shape).astype(np.float32), fresh)
  return Network(model, noisy, (16, 8))


def with_dead(whole, share):
  """The network with the first channels of each group dead at every size: of zero weight, scale and bias."""
  dead = {}
  for group in (group for block in pruning.groups_of(whole.variables['params']['shared']) for group in block):
    count = whole.variables['params']['shared'][group.block][group.makes]['kernel'].shape[-1]
    dead |= {(group.block, layer): round(share * count) for layer in (group.makes, *group.passes)}

  def killed(tree):
    flat = {}
    for path, leaf in flatten_dict(tree).items():
      leaf = np.array(leaf)
      if path[-3:-1] in dead:
        leaf[..., : dead[path[-3:-1]]] = 0
      flat[path] = leaf
    return unflatten_dict(flat)

  return whole.replace(variables=whole.variables | {'params': killed(whole.variables['params'])})


@functools.cache
def with_what_it_says(kind):
  """A network half of whose inner channels are dead, and its logits at each size."""
  whole = with_dead(network(kind), 0.5)
  return whole, answers(whole)


def answers(network):
  """Logits of the same images by the BatchNorm of each size, in one program."""
  images = np.random.default_rng(1).normal(size=(3, 16, 16, 3)).astype(np.float32)
  apply = jax.jit(network.apply)
  return [apply(network.view(resolution), images) for resolution in (16, 8)]


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize('criterion', pruning.CRITERIA)
def test_what_goes_is_what_is_dead(kind, criterion):
  """Without its dead channels a network says the same, at every size, with half of the channels inside its blocks."""
  whole, said = with_what_it_says(kind)
  smaller = pruning.pruned(whole, 0.5, criterion)
  for logits, expected in zip(answers(smaller), said, strict=True):
    np.testing.assert_allclose(logits, expected, atol=2e-4, rtol=2e-4)
  assert all(b < a for a, b in zip(whole.macs, smaller.macs))
  built = whole.model.clone(inner=smaller.model.inner)
  assert smaller.macs == tuple(macs.of_model(built, resolution) for resolution in (16, 8))


def test_the_counts_are_exact():
  """A block of 8 and one of 16 channels, both with half of those inside."""
  whole, smaller = network(), pruning.pruned(network(), 0.5)
  assert smaller.model.inner == ((4,), (8,))
  first = 16 * 16 * 9 * (3 * 8 + 8 * 4 + 4 * 8)
  second = 8 * 8 * (9 * (8 * 8 + 8 * 16) + 8 * 16) + 16 * 5
  assert smaller.macs[0] == first + second
  gone = 9 * (8 * 4 + 4 * 8) + 9 * (8 * 8 + 8 * 16) + 2 * 2 * (4 + 8)  # kernels; scale and bias at two sizes
  sizes = [sum(leaf.size for leaf in jax.tree.leaves(each.variables['params'])) for each in (whole, smaller)]
  assert sizes[0] - sizes[1] == gone


@pytest.mark.parametrize('kind', NETWORKS)
def test_at_ratio_0_it_is_the_same_bit_for_bit(kind):
  whole = network(kind)
  same = pruning.pruned(whole, 0.0)
  assert jax.tree.structure(same.variables) == jax.tree.structure(whole.variables)
  assert jax.tree.all(jax.tree.map(np.array_equal, same.variables, whole.variables)) and same.macs == whole.macs


def test_the_largest_filters_stay_and_of_scales_those_of_all_layers():
  whole = network()
  kernel = np.asarray(whole.variables['params']['shared']['stage1_block1']['conv1']['kernel'])
  best = np.sort(np.argsort(-np.abs(kernel).sum((0, 1, 2)))[:4])
  smaller = pruning.pruned(whole, 0.5).variables['params']['shared']['stage1_block1']
  assert np.array_equal(smaller['conv1']['kernel'], kernel[..., best])
  params = jax.tree.map(np.array, whole.variables['params'])
  for own in params['private'].values():
    own['stage1_block1']['bn1']['scale'] = np.full(8, 1e-3, np.float32)
  uneven = whole.replace(variables=whole.variables | {'params': params})
  assert pruning.pruned(uneven, 1 / 3, 'scale').model.inner == ((1,), (16,))
  assert pruning.pruned(uneven, 1 / 3, 'l1').model.inner == ((5,), (11,))


def first_kernel(network):
  return np.asarray(network.variables['params']['shared']['stage1_block1']['conv1']['kernel'])


def test_of_equal_scales_the_first_stay_and_the_ratio_holds():
  """Scales are equal in a network that was never trained, and where they were held."""
  params = jax.tree.map(np.array, network().variables['params'])
  for own in params['private'].values():
    for block in ('stage1_block1', 'stage2_block1'):
      own[block]['bn1']['scale'] = np.ones_like(own[block]['bn1']['scale'])
  even = network().replace(variables=network().variables | {'params': params})
  assert pruning.pruned(even, 0.5, 'scale').model.inner == ((8,), (4,))
  assert pruning.pruned(even, 0.0, 'scale').model.inner == ((8,), (16,))
  # Of scales that differ between sizes the mean of their absolute values counts, 4, 3, 2.5, 2.5: not those of one size.
  kernel = first_kernel(even)
  for size, scale in (('16', [1, 2, 3, 4, 0, 0, 0, 0]), ('8', [-7, 4, -2, 1, 0, 0, 0, 0])):
    params['private'][size]['stage1_block1']['bn1']['scale'] = np.array(scale, np.float32)
  for own in params['private'].values():
    own['stage2_block1']['bn1']['scale'] = np.zeros(16, np.float32)
  smaller = pruning.pruned(even, 22 / 24, 'scale')
  assert smaller.model.inner == ((2,), (1,))  # one of each layer at least
  np.testing.assert_array_equal(first_kernel(smaller), kernel[..., :2])


def test_what_can_not_be_pruned_is_refused_in_one_line():
  with pytest.raises(ValueError, match=r'ratio: got 1\.0, expected 0 or more, and less than 1'):
    pruning.pruned(network(), 1.0)
  with pytest.raises(ValueError, match="criterion: got 'l2', expected one of l1, scale"):
    pruning.pruned(network(), 0.5, 'l2')
  with pytest.raises(ValueError, match=r'model\.inner: got \(\(4,\),\), expected channels, 1 or more, for each of'):
    network().model.clone(inner=((4,),)).init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32), train=False)
