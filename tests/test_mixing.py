"""Mixtures against arithmetic by hand: shares exact at every resolution, the same on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_drnet
from numbered import Numbered, make_config, train
from test_two_pass import Net, compare
from test_two_pass import make_config as tiny

from resjax import config as configuration
from resjax import drnet, estimators, gumbel, losses, mixing, preprocess, rsnet
from resjax.data import loader
from resjax.training import optimizer, state, step
from resjax.training.devices import Devices

SIZES = (16, 12, 7)
MIXED = {'data.mixup': 0.4, 'data.cutmix': 1.0, 'data.erase': 0.5, 'class_weights': (2.0, 0.5, 1.0, 1.5, 0.0)}


def keys(count, seed=0):
  return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(count))


def boxes(*rows):
  return mixing.Box(*(jnp.asarray(column, jnp.float32) for column in zip(*rows)))


def test_a_pixel_that_a_box_covers_in_part_counts_in_part():
  mask = boxes((0.0, 0.5, 0.25, 0.875), (0.1, 0.1, 0.0, 1.0)).mask(4, 4)[..., 0]
  row = [0, 1, 1, 0.5]
  np.testing.assert_allclose(mask[0], [row, row, [0] * 4, [0] * 4], atol=1e-6)
  assert not mask[1].any()


@pytest.mark.parametrize(('mixup', 'cutmix'), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_the_label_counts_as_much_as_the_image_at_every_resolution(mixup, cutmix):
  """Of images of ones and partners of zeros the mean is the share of the ones."""
  mixture = jax.jit(lambda k: mixing.draw_mixture(k, mixup, cutmix))(keys(64))
  ones = jnp.tile(jnp.array([1.0, 0.0]), 32)[:, None, None, None]
  images = [ones * jnp.ones((1, size, size, 3)) for size in SIZES]
  share = np.asarray(mixture.share)
  assert 0 < share.min() < 0.2 and 0.8 < share.max() < 1.0
  for sized in mixing.mix(images, mixture):
    np.testing.assert_allclose(sized.mean((1, 2, 3)), np.where(np.arange(64) % 2, 1 - share, share), atol=1e-5)
  labels = mixing.mixed_labels(jnp.arange(64), mixture)
  np.testing.assert_array_equal(labels.second, np.arange(64) ^ 1)
  np.testing.assert_array_equal(labels.share, share)


def test_mixup_blends_all_and_cutmix_takes_a_box():
  mixture = jax.jit(lambda k: mixing.draw_mixture(k, 0.3, 1.0))(keys(4000))
  blended = np.asarray(mixture.amount) < 1
  assert 0.47 < blended.mean() < 0.53
  assert (np.asarray(mixture.box.area)[blended] == 1).all()
  # Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2 a + 1)).
  own = np.asarray(mixture.share)[blended]
  np.testing.assert_allclose([own.mean(), own.var()], [0.5, 0.15625], atol=0.02)
  cut = [np.asarray(edge)[~blended] for edge in mixture.box]
  top, bottom, left, right = cut
  assert min(top.min(), left.min()) == 0 and max(bottom.max(), right.max()) == 1 and (bottom >= top).all()
  inside = (top > 0) & (bottom < 1) & (left > 0) & (right < 1)
  np.testing.assert_allclose((bottom - top)[inside], (right - left)[inside], atol=1e-6)  # squares, of squares


def test_draws_follow_the_example_not_its_place():
  forward, backward = (mixing.draw_mixture(k, 0.4, 1.0) for k in (keys(8), keys(8)[::-1]))
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[::-1]), forward, backward)
  forward, backward = (mixing.draw_erased(k, 0.5) for k in (keys(8), keys(8)[::-1]))
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[::-1]), forward, backward)


def test_erased_boxes_are_as_the_paper_draws_them():
  box = jax.jit(lambda k: mixing.draw_erased(k, 0.25))(keys(8000))
  there = np.asarray(box.area) > 0
  assert 0.23 < there.mean() < 0.27
  area, height, width = (np.asarray(x)[there] for x in (box.area, box.bottom - box.top, box.right - box.left))
  assert 0.0199 < area.min() < 0.025 and 0.32 < area.max() < 0.3301
  np.testing.assert_allclose(area.mean(), 0.175, atol=0.01)
  ratio = height / width
  assert 0.2999 < ratio.min() < 0.32 and 3.1 < ratio.max() < 3.3001
  np.testing.assert_allclose(np.log(ratio).mean(), 0, atol=0.05)
  assert all(edge.min() >= 0 and edge.max() <= 1 + 1e-6 for edge in map(np.asarray, box))
  images = mixing.erase([jnp.ones((2, size, size, 3)) for size in SIZES], boxes((0.25, 0.75, 0.0, 0.5), (0, 0, 0, 0)))
  for sized in images:
    np.testing.assert_allclose(sized.mean((1, 2, 3)), [0.75, 1.0], atol=1e-6)
  np.testing.assert_array_equal(images[0][0, 4:12, :8], 0)


def test_mixed_and_weighted_cross_entropy_is_torchs(x64):
  """With class weights, label smoothing and soft targets, before torch divides by the weights."""
  torch = pytest.importorskip('torch')
  rng = np.random.default_rng(0)
  logits, weights = rng.normal(size=(6, 5)), np.array([0.5, 2.0, 1.0, 0.0, 3.0])
  first, second, share = rng.integers(0, 5, 6), rng.integers(0, 5, 6), rng.uniform(size=6)
  target = share[:, None] * np.eye(5)[first] + (1 - share)[:, None] * np.eye(5)[second]
  got = losses.cross_entropy(jnp.asarray(logits)[:, None], jax.tree.map(lambda x: jnp.asarray(x)[:, None],
                             losses.Mixed(first, second, share)), 0.1, jnp.asarray(weights))  # fmt: skip
  expected = torch.nn.functional.cross_entropy(
    torch.tensor(logits), torch.tensor(target), torch.tensor(weights), label_smoothing=0.1, reduction='none'
  )
  np.testing.assert_allclose(got, expected.numpy(), atol=1e-12)
  guesses = jnp.asarray(logits).argmax(-1)
  hits = share * (guesses == first) + (1 - share) * (guesses == second)
  np.testing.assert_allclose(losses.hits(guesses, losses.Mixed(first, second, share)), hits, atol=1e-12)


def test_the_gradient_of_the_whole_loss_is_that_of_finite_differences(x64):
  rng = np.random.default_rng(1)
  labels = losses.Mixed(rng.integers(0, 5, 4), rng.integers(0, 5, 4), jnp.asarray(rng.uniform(size=4)))
  weights = jnp.array([0.5, 2.0, 1.0, 0.0, 3.0])

  def classification(logits, alpha):  # of the teachers' side nothing flows: the distillation is left out
    terms = losses.rsnet_loss(logits, labels, alpha, kind='none', label_smoothing=0.1, class_weights=weights)[1]
    return terms['cross_entropy'].sum(), terms['ensemble']

  logits, alpha, eps = jnp.asarray(rng.normal(size=(2, 4, 5))), jnp.array([0.3, -0.2]), 1e-6
  by_logits = jax.grad(lambda z: sum(classification(z, alpha)))(logits)
  by_alpha = jax.grad(lambda a: classification(logits, a)[1])(alpha)
  for place in [(0, 0, 0), (0, 2, 3), (1, 3, 4)]:
    move = jnp.zeros_like(logits).at[place].set(eps)
    slope = (classification(logits + move, alpha)[0] - classification(logits - move, alpha)[0]) / (2 * eps)
    np.testing.assert_allclose(by_logits[place], slope, atol=1e-8)
  move = jnp.array([eps, 0.0])
  slope = (classification(logits, alpha + move)[1] - classification(logits, alpha - move)[1]) / (2 * eps)
  np.testing.assert_allclose(by_alpha[0], slope, atol=1e-8)


def test_one_hot_labels_in_a_mixture_are_refused():
  mixed = losses.Mixed(jnp.zeros(3, jnp.int32), jnp.zeros((3, 5), jnp.int32), jnp.ones(3))
  with pytest.raises(
    ValueError, match=r'^labels: got int32 \(3, 5\), expected integer \[3\], the numbers of the classes'
  ):
    losses.rsnet_loss(jnp.zeros((1, 3, 5)), mixed, jnp.ones(1))


@pytest.mark.parametrize('pyramid', ['device', pytest.param('host', marks=pytest.mark.slow)])
def test_the_step_in_two_passes_sees_the_same_mixture(pyramid):
  config = tiny(**MIXED, **{'data.pyramid': pyramid, 'label_smoothing': 0.1})
  compare(config, sizes=(16, 8)[: 2 if pyramid == 'host' else 1])


def test_drnet_learns_from_mixtures_through_its_choice():
  """Partners that are the same image, of other classes: what is seen stays, and what is right of it is shared."""
  config = tiny_drnet.make_config(**{'data.mixup': 1.0, 'data.flip': 'none', 'class_weights': MIXED['class_weights']})
  batch, variables, key = tiny_drnet.batches(1)[0], tiny_drnet.fresh(), jax.random.key(7)
  batch |= {'images': (np.repeat(batch['images'][0][::2], 2, axis=0),), 'step': np.int32(0)}
  model = tiny_drnet.model()

  @jax.jit
  def both(params, statistics):
    loss, (_, metrics) = drnet.make_loss_fn(model, config, total_steps=10)(params, statistics, batch, key)
    images = preprocess.prepare(batch['images'], (16, 8), 'imagenet')
    variables = {'params': params, 'batch_stats': statistics}
    scores, _ = drnet.predictor_of(config).scores(drnet.variables_of_predictor(variables), images[0], train=True)
    chosen = gumbel.choose(scores, gumbel.draw(key, batch['index'], 2), 2.0)
    logits, _ = estimators.dense(model, variables, images, (16, 8), chosen, train=True)
    labels = rsnet.train_labels(config, batch, key)
    return metrics['loss_class'], losses.cross_entropy(logits, labels, 0.0, rsnet.class_weights(config))

  np.testing.assert_allclose(*both(variables['params'], variables['batch_stats']), rtol=1e-4)


@pytest.mark.parametrize('hosts', [1, 2])
def test_pairs_stay_together_however_the_batch_is_split(hosts):
  config = make_config(data__mixup=0.2)
  (whole,) = train(Numbered(40), config, 1)
  pairs = {frozenset(pair) for pair in whole['index'].reshape(-1, 2).tolist()}
  found = [train(Numbered(40), config, 1, host=h, hosts=hosts, devices=4)[0]['index'] for h in range(hosts)]
  assert {frozenset(pair) for part in found for pair in part.reshape(-1, 2).tolist()} == pairs
  for host, part in enumerate(found):
    for device, rows in enumerate(np.split(part.reshape(-1, 2), 4)):
      np.testing.assert_array_equal(rows, whole['index'].reshape(-1, 2)[host + hosts * device :: hosts * 4])


def test_a_batch_that_leaves_somebody_alone_is_refused():
  with pytest.raises(ValueError, match='^config.batch_size: 8, expected a multiple of twice the 8 devices, to mix in'):
    loader.train_batches(Numbered(40), make_config(data__cutmix=1.0, batch_size=8))
  with pytest.raises(ValueError, match='^batch_size: got 3 images on a device, expected an even number'):
    mixing.partners(jnp.zeros(3))


def trained_on(count):
  """The state and metrics after a step of a network on so many devices, fed by the loader."""
  config = make_config(**{name.replace('.', '__'): value for name, value in MIXED.items()})
  config.resolutions, config.sync_batch_norm, config.model.num_classes = (16, 8), True, 5
  config.class_weights, config.data.flip = MIXED['class_weights'], 'independent'
  source = Numbered(40, side=16)
  source.__class__ = type('Five', (Numbered,), {'__getitem__': lambda s, i: noisy(i)})
  devices = Devices(devices=jax.devices()[:count])
  (batch,) = train(source, config, 1, devices=count)
  model, tx = Net(axis_name=step.AXIS), optimizer.create(config, 10, 100)
  make = jax.jit(lambda k: state.create(rsnet.init(model, config, k), tx), out_shardings=devices.replicated)
  take = devices.train(step.make_train_step(rsnet.make_loss_fn(model, config), tx, seed=0))
  return jax.device_get(take(make(jax.random.key(0)), devices.put(batch)))


def noisy(index):
  return {'image': np.random.default_rng(index).integers(0, 256, (16, 16, 3), np.uint8), 'label': index % 5}


def test_eight_devices_compute_what_one_does():
  one, eight = trained_on(1), trained_on(8)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5), one, eight)


@pytest.mark.parametrize('field, value', [('data.mixup', 0.2), ('data.cutmix', 1.0), ('class_weights', ('balanced',))])
def test_what_learns_from_right_answers_is_not_given_mixtures(field, value):
  config = tiny(method='drnet', **{field: value, 'drnet.predictor.size': 16})
  configuration.validate(config)
  config.drnet.estimator, config.drnet.frozen = 'supervised', True
  with pytest.raises(ValueError, match=f"^config.{field}: got .* with drnet.estimator='supervised'") as error:
    configuration.validate(config)
  assert '\n' not in str(error.value)
