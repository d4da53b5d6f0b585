"""BatchNorm for sizes that were not trained: exact mixtures, exact moments, and nothing else touched."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import resjax
from resjax import macs, models, unseen

RESOLUTIONS = (160, 128, 96)
# A statistic is read out of its update, new = m * old + (1 - m) * batch, in float32: half a unit in the last place of m
# is 3e-8, which 1 - m magnifies to 3e-6 of the result at m = 0.99.
MOMENT = 1e-5


class Slow(nn.Module):
  """A network that resjax does not ship, with Flax's own BatchNorm and another momentum in each of two layers."""

  momentum: float = 0.99

  @nn.compact
  def __call__(self, images, *, train):
    x = nn.Conv(4, (3, 3), name='conv')(images)
    x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=self.momentum, name='first')(x))
    x = nn.BatchNorm(use_running_average=not train, momentum=0.5, use_scale=False, name='second')(x)
    return nn.Dense(3, name='head')(x.mean((1, 2)))


def switchable(model, resolutions=RESOLUTIONS, size=16):
  """Variables whose sets differ from each other in every entry."""
  plain = jax.jit(model.init, static_argnames='train')(jax.random.key(0), jnp.ones((1, size, size, 3)), train=False)
  variables = resjax.share(plain, resolutions)
  for i, key in enumerate(map(str, resolutions)):
    for sets in (variables['params']['private'], variables['batch_stats']):
      sets[key] = jax.tree.map(lambda x, i=i: x * (1 + 0.3 * i) + 0.1 * (i + 1), sets[key])
  variables['params'] |= {'alpha': jnp.arange(3.0), 'predictor': {'w': jnp.ones(2)}}
  variables['batch_stats'] |= {'predictor': {'mean': jnp.ones(2)}}
  return variables


@pytest.fixture(scope='module')
def variables():
  return switchable(Slow())


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def set_at(variables, key):
  return {'private': variables['params']['private'][key], 'batch_stats': variables['batch_stats'][key]}


def without(variables, *keys):
  """The variables, less some sets."""
  sets = {k: v for k, v in variables['batch_stats'].items() if k not in keys}
  private = {k: v for k, v in variables['params']['private'].items() if k not in keys}
  return {'params': variables['params'] | {'private': private}, 'batch_stats': sets}


def hand_made():
  """Two sets of one normaliser, easy to reckon with."""
  return {
    'params': {
      'shared': {},
      'private': {
        '64': {'bn': {'scale': jnp.array([1.0, 2.0]), 'bias': jnp.array([0.0, -1.0])}},
        '96': {'bn': {'scale': jnp.array([3.0, 4.0]), 'bias': jnp.array([4.0, 1.0])}},
      },
    },
    'batch_stats': {
      '64': {'bn': {'mean': jnp.array([10.0, 0.0]), 'var': jnp.array([1.0, 8.0])}},
      '96': {'bn': {'mean': jnp.array([18.0, -4.0]), 'var': jnp.array([5.0, 0.0])}},
    },
  }


# --- add ---


@pytest.mark.parametrize(
  ('resolution', 'scale', 'bias', 'mean', 'var'),
  [
    (72, [1.5, 2.5], [1, -0.5], [12, -1], [2, 6]),  # a quarter of the way
    (80, [2, 3], [2, 0], [14, -2], [3, 4]),
    (88, [2.5, 3.5], [3, 0.5], [16, -3], [4, 2]),
    ((40, 160), [2, 3], [2, 0], [14, -2], [3, 4]),  # as large as 80 x 80
    (63, [1, 2], [0, -1], [10, 0], [1, 8]),  # beyond: the last one, no negative variance
    (200, [3, 4], [4, 1], [18, -4], [5, 0]),
  ],
)
def test_interpolation_is_linear_between_neighbours(resolution, scale, bias, mean, var):
  new, _ = unseen.add(hand_made(), resolution)
  view = resjax.view(new, resolution)
  same(view['params']['bn'], {'scale': jnp.array(scale, jnp.float32), 'bias': jnp.array(bias, jnp.float32)})
  same(view['batch_stats']['bn'], {'mean': jnp.array(mean, jnp.float32), 'var': jnp.array(var, jnp.float32)})


def test_midpoints_are_means_of_the_neighbours_alone(variables):
  for middle, high, low in ((144, '160', '128'), (112, '128', '96')):
    new, _ = unseen.add(variables, middle)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, set_at(variables, high), set_at(variables, low))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), set_at(new, str(middle)), mean)


@pytest.mark.parametrize(
  ('resolution', 'source'),
  [(130, 128), (143, 128), (144, 160), (112, 128), (111, 96), (4, 96), (999, 160), ((96, 200), 128), ((100, 200), 128)],
)
def test_nearest_is_a_trained_set_and_the_larger_of_two(variables, resolution, source):
  new, line = unseen.add(variables, resolution, 'nearest')
  same(resjax.view(new, resolution), resjax.view(variables, source))
  assert line.endswith(f': BatchNorm of {source} px')


def test_sizes_that_are_added_are_no_neighbours_of_each_other():
  new, lines = unseen.add_all(hand_made(), (96, 64), (96, 85, 78, 64), 'nearest')
  same(resjax.view(new, 85), resjax.view(new, 96))
  same(resjax.view(new, 78), resjax.view(new, 64))  # 85 px would be nearer
  assert lines[2] == '78 px: BatchNorm of 64 px' and {*new['batch_stats']} == {'96', '85', '78', '64'}


@pytest.mark.parametrize('how', unseen.WAYS)
def test_a_trained_size_is_the_trained_set_bit_for_bit(variables, how):
  for r in RESOLUTIONS:
    new, line = unseen.add(variables, r, how)
    assert new is variables and line == f'{r} px: its own BatchNorm'
    assert unseen.add(variables, (r, r), how)[0] is variables
  new, _ = unseen.add(variables, (64, 256), how)  # as large as 128 x 128
  same(set_at(new, '64x256'), set_at(variables, '128'))


@pytest.mark.parametrize('how', unseen.WAYS)
@pytest.mark.parametrize(('resolution', 'key'), [(136, '136'), ((128, 144), '128x144'), (300, '300')])
def test_adding_touches_nothing_else(variables, how, resolution, key):
  before = jax.tree.map(np.array, variables)
  new, _ = unseen.add(variables, resolution, how)
  assert set(new['batch_stats']) == {'160', '128', '96', 'predictor', key}
  assert set(new['params']['private']) == {'160', '128', '96', key}
  same(without(new, key), before)
  same(variables, before)  # the caller's tree, too


def test_what_was_done_is_said(variables):
  lines = [unseen.add(variables, r)[1] for r in (136, (128, 144), 224, 128)]
  assert lines == [
    '136 px: BatchNorm interpolated between 128 and 160 px',
    '128x144 px (in area 136x136): BatchNorm interpolated between 128 and 160 px',
    '224 px: BatchNorm of 160 px',
    '128 px: its own BatchNorm',
  ]


def test_inputs_that_are_not_square_are_no_neighbours(variables):
  new, _ = unseen.add(variables, (100, 121))  # as large as 110 x 110
  same(set_at(unseen.add(new, 112)[0], '112'), set_at(unseen.add(variables, 112)[0], '112'))


def test_one_batch_norm_for_all_sizes_serves_every_size():
  plain = Slow().init(jax.random.key(0), jnp.ones((1, 8, 8, 3)), train=False)
  shared = resjax.share(plain, RESOLUTIONS, shared_batch_norm=True)
  new, line = unseen.add(shared, (100, 120))
  assert new is shared and line == '100x120 px: the BatchNorm of all sizes'
  same(resjax.view(new, (100, 120)), plain)


@pytest.mark.parametrize('private', ['affine', 'statistics'])
def test_what_alone_is_private_is_interpolated_and_the_rest_is_one_for_all(private):
  plain = Slow().init(jax.random.key(0), jnp.ones((1, 8, 8, 3)), train=False)
  shared = resjax.share(plain, RESOLUTIONS, private=private)
  own, one = (shared['params']['private'], shared['batch_stats'])[:: 1 if private == 'affine' else -1]
  own['128'] = jax.tree.map(lambda x: x + 1, own['128'])
  new, line = unseen.add(shared, 144)
  assert line == '144 px: BatchNorm interpolated between 128 and 160 px'
  added, kept = (new['params']['private'], new['batch_stats'])[:: 1 if private == 'affine' else -1]
  same(added['144'], jax.tree.map(lambda x: x - 0.5, own['128']))
  assert kept is one and list(kept) == ['all']
  resjax.view(new, 144)
  with pytest.raises(ValueError, match='^resolution: got 144, expected one of 160, 128, 96'):
    resjax.view(shared, 144)


@pytest.mark.parametrize('wrong', [0, -8, 12.5, '128', (8, 0), (8, 8, 8), None])
def test_wrong_resolutions(variables, wrong):
  with pytest.raises(ValueError, match=r'^resolution: got .*, expected a positive integer or \(height, width\)$'):
    unseen.add(variables, wrong)


def test_a_wrong_way_and_a_size_that_was_not_added(variables):
  with pytest.raises(ValueError, match="^how: got 'cubic', expected one of interpolate, nearest$"):
    unseen.add(variables, 136, 'cubic')
  for act in (resjax.view, lambda v, r: unseen.recalibrate(Slow(), v, r, [])):
    with pytest.raises(ValueError, match=r'^resolution: got \(96, 128\), expected one of 160, 128, 96$'):
      act(variables, (96, 128))


# --- recalibrate ---


@pytest.fixture(scope='module')
def images():
  """Two batches of different size, 12 x 20 pixels."""
  rng = np.random.default_rng(0)
  return [rng.normal(0.3, 2, (n, 12, 20, 3)).astype(np.float32) for n in (5, 3)]


@pytest.mark.parametrize('momentum', [0.0, 0.9, 0.99])
def test_statistics_are_the_moments_of_the_batches(images, momentum):
  model, size = Slow(momentum), (12, 20)
  variables, _ = unseen.add(switchable(model), size)
  new, line = unseen.recalibrate(model, variables, size, iter(images))
  few = 'at most 5 together: too few to normalise by, expected 8 or more in a batch'
  assert line == f'12x20 px: BatchNorm statistics from 8 images, {few}'
  params = jax.tree.map(np.asarray, resjax.view(variables, size)['params'])
  expected = {name: np.zeros((2, 4)) for name in ('first', 'second')}
  for x in images:
    y = np.asarray(nn.Conv(4, (3, 3)).apply({'params': params['conv']}, x), np.float64)
    mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
    expected['first'] += len(x) / 8 * np.stack([mean, var])
    y = np.maximum((y - mean) / np.sqrt(var + 1e-5) * params['first']['scale'] + params['first']['bias'], 0)
    expected['second'] += len(x) / 8 * np.stack([y.mean((0, 1, 2)), y.var((0, 1, 2))])
  for name, moments in expected.items():
    got = new['batch_stats']['12x20'][name]
    assert got['mean'].dtype == got['var'].dtype == jnp.float32
    np.testing.assert_allclose([got['mean'], got['var']], moments, rtol=MOMENT, atol=MOMENT)


@pytest.mark.parametrize('name', ['resnet_small', 'slow'])
def test_statistics_of_one_batch_reproduce_its_training_output(images, name):
  model = Slow() if name == 'slow' else models.create(name, num_classes=3, width=0.25, stages=(1, 1))
  variables, _ = unseen.add(switchable(model), (12, 20))
  trained, _ = model.apply(resjax.view(variables, (12, 20)), images[0], train=True, mutable=['batch_stats'])
  before = model.apply(resjax.view(variables, (12, 20)), images[0], train=False)
  new, _ = unseen.recalibrate(model, variables, (12, 20), images[:1])
  after = model.apply(resjax.view(new, (12, 20)), images[0], train=False)
  np.testing.assert_allclose(after, trained, rtol=0, atol=1e-4)  # MOMENT of logits up to 10
  assert np.abs(before - trained).max() > 0.1


def test_recalibrating_touches_no_other_number(images):
  variables, _ = unseen.add(switchable(Slow()), (12, 20))
  before = jax.tree.map(np.array, variables)
  new, _ = unseen.recalibrate(Slow(), variables, (12, 20), images)
  same(new['params'], before['params'])
  same({**new['batch_stats'], '12x20': 0}, {**before['batch_stats'], '12x20': 0})
  same(variables, before)


def test_recalibrating_the_one_batch_norm_of_all_sizes(images):
  plain = Slow().init(jax.random.key(0), jnp.ones((1, 8, 8, 3)), train=False)
  shared = resjax.share(plain, RESOLUTIONS, shared_batch_norm=True)
  new, _ = unseen.recalibrate(Slow(), shared, (12, 20), images)
  alone, _ = unseen.recalibrate(Slow(), unseen.add(resjax.share(plain, (8,)), (12, 20))[0], (12, 20), images)
  same(new['batch_stats']['all'], alone['batch_stats']['12x20'])


def test_all_sizes_at_once_are_each_as_alone(variables):
  rng, sizes = np.random.default_rng(0), (160, 96)
  batches = {size: [rng.normal(size=(8, size, size, 3)).astype(np.float32)] for size in sizes}
  new, lines = unseen.recalibrate_all(Slow(), variables, batches)
  assert lines == [f'{s} px: BatchNorm statistics from 8 images, few to go by: expected 64 or more' for s in sizes]
  alone = {str(s): unseen.recalibrate(Slow(), variables, s, b)[0]['batch_stats'][str(s)] for s, b in batches.items()}
  same(new, variables | {'batch_stats': variables['batch_stats'] | alone})
  shared = resjax.share(resjax.extract(variables, 96), RESOLUTIONS, private='affine')
  with pytest.raises(ValueError, match='^variables: the statistics of BatchNorm are one for all sizes, expected those'):
    unseen.recalibrate_all(Slow(), shared, {96: batches[96]})


def test_images_that_can_not_be_used(variables):
  good = np.ones((2, 96, 96, 3), np.float32)
  cases = [
    ([], Slow(), 'batches: got no images, expected at least one batch'),
    ([good.astype(np.uint8)], Slow(), r'batches: got uint8 \(2, 96, 96, 3\), expected normalised images, floating'),
    ([good, good[:, :95]], Slow(), r'batches: got float32 \(2, 95, 96, 3\), expected .* \[B, 96, 96, 3\]'),
    ([good * np.nan], Slow(), 'batches: statistics at 96 px are not finite'),
    ([good], Slow(momentum=1.0), 'batches: statistics at 96 px are not finite, .* a momentum below 1'),
  ]
  for batches, model, message in cases:
    with pytest.raises(ValueError, match=f'^{message}'):
      unseen.recalibrate(model, variables, 96, batches)


def test_a_network_without_statistics_has_none_to_recalibrate():
  tree = resjax.share({'w': jnp.ones((1, 3))}, (12,), private=lambda path, leaf: True)
  apply = lambda variables, images, train: (images.mean((1, 2)) * variables['w'], variables)
  with pytest.raises(ValueError, match='^model: returns every variable as it came, expected one that updates running'):
    unseen.recalibrate(apply, tree, 12, [np.ones((2, 12, 12, 3), np.float32)])


# --- costs ---


def test_multiply_adds_of_an_input_that_is_not_square():
  assert macs.of_model(Slow(), (12, 20)) == 12 * 20 * 4 * 27 + 4 * 3
  assert macs.of_model(Slow(), (16, 16)) == macs.of_model(Slow(), 16)
  for wrong in ((12,), (12, 0), (12, 20, 3), (12.0, 20)):
    with pytest.raises(ValueError, match=r'^resolution: got .*, expected a positive integer or \(height, width\)$'):
      macs.of_model(Slow(), wrong)
