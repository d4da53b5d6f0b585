"""Widths: one network's slices are plain narrow networks, bit for bit, and know nothing of each other."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict
from interruptions import interrupted_after
from networks import INVERTED
from test_loop import tiny

from configs import default
from resjax import Classifier, config, drnet, losses, macs, models, rsnet, switchable, trained, unseen, widths
from resjax.network import Network
from resjax.resolution import Branch, at_widths, check_order, name, parse, plain, sides, square
from resjax.routing.fixed import Fixed
from resjax.training import freezing, loop

WIDTHS = (1.0, 0.5, 0.25)
HALF = Branch(16, width=0.5)
RESNET = {'name': 'resnet_small', 'stages': (1, 1)}
MOBILE = {'name': 'mobilenetv2', 'stages': INVERTED}


def make_config(**fields):
  made = default.get_config()
  made.resolutions, made.widths = (16,), WIDTHS
  made.data.flip = 'none'
  made.update_from_flattened_dict(fields)
  return made


@functools.cache
def model(width=1.0, **options):
  return models.create(**{'num_classes': 5, 'width': width, **RESNET, **options})


@functools.cache
def variables():
  """Of the small network at three widths, with noise that tells each BatchNorm from the others."""
  made = jax.jit(lambda key: rsnet.init(model(), make_config(), key))(jax.random.key(0))
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda x: np.asarray(x) + rng.uniform(0, 0.3, x.shape).astype(np.float32), made)


@functools.cache
def images(count=4):
  return np.random.default_rng(1).normal(size=(count, 16, 16, 3)).astype(np.float32)


def test_a_resolution_at_a_width_has_a_name():
  for resolution, said in (
    (HALF, '16x0.5'),
    (Branch((16, 8), width=0.35), '16x8x0.35'),
    (Branch(8, width=1 / 3), f'8x{1 / 3!r}'),
  ):
    assert name(resolution) == str(resolution) == plain(resolution) == said and parse(said) == resolution
  assert plain((16, 8)) == (16, 8) and parse('16x8') == (16, 8) and plain(16) == parse('16') == 16
  assert sides(Branch((16, 8), width=0.5)) == (16, 8)
  assert square(Branch((8, 8), width=0.5)) == Branch(8, width=0.5) != square((8, 8))
  for wrong in ('16x1.0', '16x0.0', '16x0.5x0.5', '16x8x4', 'x0.5', '16x.', '0.5'):
    with pytest.raises(ValueError, match='expected pixels such as'):
      parse(wrong)
  with pytest.raises(ValueError, match=r'width: got 1.5, expected 0.001 to 1.0'):
    Branch(16, width=1.5)


def test_all_sizes_at_all_widths_are_ordered_by_their_cost():
  product = at_widths(make_config(resolutions=(32, 16), widths=(1.0, 0.5)))
  assert product == (32, Branch(32, width=0.5), 16, Branch(16, width=0.5))
  check_order(product)
  with pytest.raises(ValueError, match='the highest first'):
    check_order((Branch(32, width=0.5), 32))
  assert at_widths(make_config(resolutions=(32, 16), widths=(1.0,))) == (32, 16)


@pytest.mark.parametrize(
  ('kind', 'shares'), [('resnet50', (0.5,)), ('mobilenetv2', (0.75, 0.35)), ('resnet_small', (0.5, 0.35))]
)
def test_extracted_it_is_the_plain_narrow_network(kind, shares):
  """Parameters and multiply-adds are those of the network that is built at that width, its rounding among them."""
  wide = models.create(kind, num_classes=10)
  shapes = widths.shapes_of(wide, 1.0, (64, 64, 3))
  for width in shares:
    resolution, built = Branch(64, width=width), models.create(kind, num_classes=10, width=width)
    assert macs.of_model(wide, resolution) == macs.of_model(built, 64) < macs.of_model(wide, 64)
    extract = functools.partial(_extracted, resolution=resolution, model=wide)
    assert jax.eval_shape(extract, shapes) == widths.shapes_of(built, 1.0, (64, 64, 3))


def _extracted(variables, resolution, model):
  return switchable.extract(switchable.share(variables, (resolution,), model=model), resolution, model)


@pytest.mark.parametrize('options', [RESNET, MOBILE], ids=['resnet', 'mobilenet'])
def test_a_width_runs_as_the_narrow_network_bit_for_bit(options):
  wide, narrow = models.create(num_classes=5, **options), models.create(num_classes=5, width=0.5, **options)
  fresh = jax.jit(lambda key: wide.init(key, images(), train=False))(jax.random.key(0))
  shared = switchable.share(fresh, (16, HALF), model=wide)
  own = switchable.view(shared, HALF, wide)
  for train in (False, True):
    forward = functools.partial(switchable.forward, wide, resolutions=(16, HALF), train=train)
    logits, statistics = jax.jit(lambda v, x: forward(v, [x, x]))(shared, images())  # noqa: B023
    options_of_call = {'train': train, 'mutable': ['batch_stats'] if train else False}
    alone = jax.jit(lambda v, x: narrow.apply(v, x, **options_of_call))(own, images())  # noqa: B023
    expected = alone[1]['batch_stats'] if train else own['batch_stats']
    assert np.array_equal(logits[1], alone[0] if train else alone)
    assert jax.tree.all(jax.tree.map(np.array_equal, statistics['16x0.5'], expected))


def test_a_width_trained_alone_takes_the_narrow_networks_step():
  """The gradient of a slice is the narrow network's, bit for bit, and zero outside of it."""
  shared, labels = variables(), jnp.arange(4) % 5

  def loss(params, apply):
    return losses.cross_entropy(apply(params)[0][0], labels)

  def of_slice(params):
    return switchable.forward(model(), shared | {'params': params}, [images()], [HALF], train=True)

  own = switchable.view(shared, HALF, model())

  def of_narrow(params):
    return model(0.5).apply(own | {'params': params}, images(), train=True, mutable=['batch_stats'])[0][None], None

  wide = jax.jit(jax.grad(lambda p: loss(p, of_slice)))(shared['params'])
  narrow = flatten_dict(jax.jit(jax.grad(lambda p: loss(p, of_narrow)))(own['params']))
  for path, gradient in flatten_dict(wide['shared']).items():
    inside = tuple(map(slice, narrow[path].shape))
    assert np.array_equal(gradient[inside], narrow[path]) and np.abs(narrow[path]).max() > 0
    outside = np.array(gradient)
    outside[inside] = 0
    assert not outside.any(), path
  for path, gradient in flatten_dict(wide['private']['16x0.5']).items():
    assert np.array_equal(gradient, narrow[path])
  for key in ('16', '16x0.25'):
    assert not any(leaf.any() for leaf in jax.tree.leaves(wide['private'][key]))


def test_each_width_has_a_batch_norm_of_its_own():
  shared, resolutions = variables(), at_widths(make_config())
  forward = jax.jit(lambda v: switchable.forward(model(), v, [images()] * 3, resolutions, train=False)[0])
  before = forward(shared)
  for place, key in enumerate(('16', '16x0.5', '16x0.25')):
    private = shared['params']['private']
    moved = private | {key: jax.tree.map(lambda x: x + 0.1, private[key])}
    after = forward(shared | {'params': shared['params'] | {'private': moved}})
    same = [bool(np.array_equal(a, b)) for a, b in zip(before, after)]
    assert same == [other != place for other in range(3)]


def test_in_place_distillation_the_largest_alone_learns_from_labels_and_from_nobody():
  labels = jnp.array([0, 2, 1])
  logits = jax.random.normal(jax.random.key(0), (3, 3, 4))

  def total(z):
    return losses.rsnet_loss(z, labels, jnp.ones(3), kind='inplace')

  (value, terms), gradient = jax.value_and_grad(total, has_aux=True)(logits)
  parts = terms['cross_entropy'][0] + terms['ensemble'] + terms['distillation'].sum()
  np.testing.assert_allclose(value, parts, rtol=1e-6)
  p = jax.nn.softmax(logits)
  np.testing.assert_allclose(gradient[0], (p[0] - jax.nn.one_hot(labels, 4)) / 3, atol=1e-6)
  np.testing.assert_allclose(gradient[1:], (p[1:] - p[:1]) / 3, atol=1e-6)
  expected = (p[0] * (jnp.log(p[0]) - jnp.log(p[2]))).sum(-1).mean()
  np.testing.assert_allclose(terms['distillation'], [0, terms['distillation'][1], expected], rtol=1e-5)


def test_a_network_serves_its_widths_as_its_sizes():
  made = make_config()
  network = Network(model(), variables(), at_widths(made))
  assert network.macs == tuple(macs.of_model(model(width), 16) for width in WIDTHS)
  alone, note = network.at(HALF)
  assert alone.model == model(0.5) and alone.resolutions == (16,) and note == '16x0.5 px: its own BatchNorm'
  crops = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
  classifier = Classifier(network, max_batch=4)
  whole = classifier.predict_crops(crops, router=Fixed(tuple(map(float, network.macs)), 1))
  narrow = Classifier(alone, max_batch=4).predict_crops(crops)
  assert [p.resolution for p in whole] == [HALF] * 3 and whole[0].macs == network.macs[1]
  assert [p.class_index for p in whole] == [p.class_index for p in narrow]
  np.testing.assert_allclose([p.probability for p in whole], [p.probability for p in narrow], rtol=1e-5)
  assert [p.class_index for p in classifier.predict_crops(crops, resolution=HALF)] == [p.class_index for p in narrow]


def test_sizes_that_were_not_trained_have_neighbours_of_their_width():
  shared = switchable.share(switchable.view(variables(), 16), (16, 8, HALF, Branch(8, width=0.5)), model=model())
  added, note = unseen.add(shared, Branch(12, width=0.5))
  assert note == '12x0.5 px: BatchNorm interpolated between 8x0.5 and 16x0.5 px'
  assert jax.tree.map(jnp.shape, added['batch_stats']['12x0.5']) == jax.tree.map(
    jnp.shape, shared['batch_stats']['8x0.5']
  )
  with pytest.raises(ValueError, match=r'resolution: got 16x0\.25, expected a width among those of'):
    unseen.add(shared, Branch(16, width=0.25))
  added, note = unseen.add(shared, Branch(16, width=0.25), 'nearest', model())
  assert note == '16x0.25: the leading channels of 16 px: its own BatchNorm'
  expected = switchable.share(switchable.view(variables(), 16), (16, Branch(16, width=0.25)), model=model())
  kept = {kind: added[kind]['private'] if kind == 'params' else added[kind] for kind in added}
  wanted = {kind: expected[kind]['private'] if kind == 'params' else expected[kind] for kind in kept}
  for kind in kept:
    assert jax.tree.all(jax.tree.map(np.array_equal, kept[kind]['16x0.25'], wanted[kind]['16x0.25']))


@pytest.mark.parametrize('listed', [True, False])
def test_statistics_of_a_width_are_renewed_as_of_the_narrow_network(listed):
  """Also of a width that is not in the list, whose scale and offset are the leading ones of all channels."""
  branch = HALF if listed else Branch(16, width=0.375)
  added, _ = unseen.add(variables(), branch, 'nearest', model())
  batches = [images(8), images(8)[:3] * 2]
  renewed, note = unseen.recalibrate(model(), added, branch, batches)
  assert note == f'{branch} px: BatchNorm statistics from 11 images, few to go by: expected 64 or more'
  alone = switchable.share(switchable.view(added, branch, model()), (16,))
  expected, _ = unseen.recalibrate(widths.narrowed(model(), branch.width), alone, 16, batches)
  same = functools.partial(jax.tree.map, np.testing.assert_array_equal)
  same(renewed['batch_stats'][name(branch)], expected['batch_stats']['16'])
  same({k: v for k, v in renewed['batch_stats'].items() if k != name(branch)},
       {k: v for k, v in added['batch_stats'].items() if k != name(branch)})  # fmt: skip
  same(renewed['params'], added['params'])


def test_a_patterns_rate_is_that_of_one_width():
  made = make_config(**{'optimizer.rates': (('private/16x0.5/*', 0.0),)})
  frozen = freezing.frozen(model(), freezing.pairs(made.optimizer))
  _, statistics = switchable.forward(frozen, variables(), [images()] * 3, at_widths(made), train=True)
  before = variables()['batch_stats']
  moved = {k: not jax.tree.all(jax.tree.map(np.array_equal, before[k], statistics[k])) for k in before}
  assert moved == {'16': True, '16x0.5': False, '16x0.25': True}


def test_what_has_no_such_widths_is_refused_in_one_line():
  with pytest.raises(ValueError, match=r'config\.widths: got \(1\.0, 1\.0\), expected 1\.0 and, falling, others'):
    config.validate(make_config(widths=(1.0, 1.0)))
  with pytest.raises(ValueError, match=r'config\.shared_batch_norm: got True with widths='):
    config.validate(make_config(shared_batch_norm=True))
  with pytest.raises(ValueError, match=r'config\.widths: got 0\.34, expected one with fewer channels'):
    widths.check(models.create('mobilenetv2', num_classes=5), (1.0, 0.35, 0.34), (32, 32, 3), 'config.widths')
  with pytest.raises(ValueError, match=r'width: got 0\.5, expected 1\.0: Dense has no attribute `width`'):
    widths.narrowed(nn.Dense(3), 0.5)
  with pytest.raises(ValueError, match=r'is \(3, 3, 3, 32\) in the narrow network, expected a part of it'):
    widths.leading({'kernel': np.zeros((3, 3, 3, 16))}, {'kernel': np.zeros((3, 3, 3, 32))})
  with pytest.raises(ValueError, match='expected none at a width where BatchNorm is not private'):
    switchable.share({'a': 1.0}, (16, HALF), private=lambda path, leaf: True)


def test_drnet_chooses_a_width():
  made = make_config(method='drnet', widths=(1.0, 0.5), **{'drnet.budget': 1e9, 'drnet.predictor.size': 8})
  fresh = jax.jit(lambda key: drnet.init(model(), made, key))(jax.random.key(0))
  rng = np.random.default_rng(0)
  batch = {
    'images': (rng.integers(0, 256, (8, 16, 16, 3), np.uint8),),
    'label': np.arange(8, dtype=np.int32) % 5,
    'index': np.arange(8, dtype=np.int32),
  }
  made.drnet.budget = float(drnet.costs_of(model(), at_widths(made))[0])
  loss_fn = drnet.make_loss_fn(model(), made)
  step = batch | {'step': jnp.zeros((), jnp.int32)}
  _, (statistics, metrics) = jax.jit(loss_fn)(fresh['params'], fresh['batch_stats'], step, jax.random.key(0))
  assert {'share_16', 'share_16x0.5'} <= metrics.keys() and {'16', '16x0.5', 'predictor'} == statistics.keys()
  found = jax.jit(drnet.make_eval_fn(model(), made))(fresh, batch)
  assert found['ranks'].shape == (8, 3) and found['scores'].shape == (8, 2)


def product():
  made = tiny()
  made.widths = (1.0, 0.5)
  made.data.pyramid = 'host'
  return made


@pytest.mark.usefixtures('shallow', 'built_once')
def test_a_run_from_its_config_to_a_prediction(tmp_path, monkeypatch):
  """Sizes and widths at once: trained, stopped, resumed bit for bit, read, classified, scored again."""
  results = loop.train_and_evaluate(product(), tmp_path / 'whole')
  ways = ['16', '16x0.5', '8', '8x0.5']
  assert list(results['resolutions']) == ways
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    interrupted_after(5, patch)
    loop.train_and_evaluate(product(), tmp_path / 'parts')
  again = loop.train_and_evaluate(product(), tmp_path / 'parts')
  assert {way: again['resolutions'][way] for way in ways} == results['resolutions']
  networks = [trained.load(tmp_path / folder) for folder in ('whole', 'parts')]
  assert networks[0].digest == networks[1].digest and [*map(name, networks[0].resolutions)] == ways
  assert list(networks[0].macs) == [results['resolutions'][way]['macs'] for way in ways]
  one = dataclasses.replace(networks[0].at(Branch(8, width=0.5))[0])
  image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
  sent = Classifier(networks[0], max_batch=1).predict([image], resolution=Branch(8, width=0.5))
  assert sent[0].class_index == Classifier(one, max_batch=1).predict([image])[0].class_index
