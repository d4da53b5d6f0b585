"""Both ways to train through a choice: gradients against finite differences, statistics against the routed images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from resjax import estimators, gumbel, losses, macs, models, switchable
from resjax.training.devices import Devices

RESOLUTIONS = (8, 6, 4)
BATCH, CLASSES = 24, 3
TAU = 0.7
# Central differences of step 1e-5 in float64.
TOLERANCE = 1e-8


@functools.cache
def model(dtype='float32'):
  return models.ResNet(CLASSES, stages=(1, 1), features=2, small_images=True, dtype=dtype)


@functools.cache
def problem(dtype='float32'):
  """Variables, images, labels, scores and noise; every resolution is chosen eight times."""
  rng = np.random.default_rng(0)
  plain = jax.jit(lambda key: model().init(key, jnp.zeros((1, 8, 8, 3)), train=False))(jax.random.key(0))
  variables = switchable.share(plain, RESOLUTIONS)
  moved = jax.tree.map(lambda x: np.asarray(x, dtype) + rng.uniform(0, 0.2, x.shape).astype(dtype), variables)
  images = [rng.normal(size=(BATCH, r, r, 3)).astype(dtype) for r in RESOLUTIONS]
  labels = np.array([0, 1, 2, 1, 0, 2] * 4, np.int32)
  scores = rng.normal(size=(BATCH, 3)).astype(dtype)
  noise = (4 * np.eye(3)[[0, 1, 2, 2, 1, 0] * 4] + rng.normal(size=(BATCH, 3)) / 4).astype(dtype)
  return moved, images, labels, scores, noise


def choose(scores, noise):
  return gumbel.choose(scores, noise, TAU)


def loss(params, scores, noise, *, room, dtype):
  """The class loss through one of the estimators, and the new statistics; `room` None is dense."""
  variables, images, labels, _, _ = problem(dtype)
  variables = variables | {'params': params}
  choice = choose(scores, noise)
  if room is None:
    logits, statistics = estimators.dense(model(dtype), variables, images, RESOLUTIONS, choice, train=True)
    ran = choice.argmax(-1)
  else:
    logits, statistics, ran = estimators.routed(model(dtype), variables, images, RESOLUTIONS, choice, room, train=True)
  each = losses.cross_entropy(logits[:, None], labels[:, None])
  value = each.mean() if room is None else each.mean() + estimators.credit(choice, each, ran)
  return value, (logits, statistics, ran)


@functools.cache
def compiled(room, dtype='float32'):
  problem(dtype)  # made outside of the trace
  return jax.jit(jax.value_and_grad(functools.partial(loss, room=room, dtype=dtype), argnums=(0, 1), has_aux=True))


def each_resolutions_logits(ran, dtype):
  """`[R, B, K]` with the statistics of the images that each resolution ran."""
  variables, images, _, _, _ = problem(dtype)
  mask = [jnp.asarray(ran == j, jnp.float32) for j in range(3)]
  forward = jax.jit(lambda: switchable.forward(model(dtype), variables, images, RESOLUTIONS, train=True, mask=mask))
  logits, statistics = forward()
  return np.asarray(logits), jax.device_get(statistics)


def soft(scores, noise):
  exponent = np.exp((scores + noise) / TAU)
  return exponent / exponent.sum(1, keepdims=True)


def cross_entropy(logits, labels):
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return -log_p[np.arange(len(labels)), labels].mean()


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize('room', [None, (4, 8, 12)], ids=['dense', 'routed'])
def test_scores_learn_from_the_soft_choice_around_the_hard_one(room):
  """In float64. Dense: the loss of `z = sum_j (h_j + soft_j(s) - soft_j(s_0)) z_j`.

  Routed: the expected loss under soft(s), where the mean over the images run at j stands for what was not run there;
  some images find no room where they were sent.
  """
  _, _, labels, scores, noise = problem('float64')
  (value, (logits, _, ran)), (_, gradient) = compiled(room, 'float64')(problem('float64')[0]['params'], scores, noise)
  ran = np.asarray(ran)
  each, _ = each_resolutions_logits(ran, 'float64')
  at, hard = soft(scores, noise), np.eye(3)[ran]
  if room is None:
    surrogate = lambda s: cross_entropy(np.einsum('br,rbk->bk', hard + soft(s, noise) - at, each), labels)
  else:
    loss = np.array([cross_entropy(each[j, i : i + 1], labels[i : i + 1]) for i, j in enumerate(ran)])
    worth = np.array([[loss[i] if ran[i] == j else loss[ran == j].mean() for j in range(3)] for i in range(BATCH)])
    surrogate = lambda s: loss.mean() + ((soft(s, noise) - at) * worth).sum() / BATCH
  np.testing.assert_allclose(logits, each[ran, np.arange(BATCH)], rtol=0, atol=1e-12)
  np.testing.assert_allclose(value, surrogate(scores), rtol=0, atol=1e-12)
  expected = np.zeros_like(scores)
  for place in np.ndindex(*scores.shape):
    step = np.zeros_like(scores)
    step[place] = 1e-5
    expected[place] = (surrogate(scores + step) - surrogate(scores - step)) / 2e-5
  assert np.abs(expected).max() > 1e-3
  np.testing.assert_allclose(gradient, expected, rtol=0, atol=TOLERANCE)


def test_credit_is_nothing_but_a_gradient():
  choice, ran = jnp.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 0]]), jnp.array([0, 1, 0])
  value, gradient = jax.value_and_grad(estimators.credit)(choice, jnp.array([1.0, 2.0, 6.0]), ran)
  assert value == 0
  np.testing.assert_allclose(3 * gradient, [[1, 2, 3], [3.5, 2, 3], [6, 2, 3]], rtol=1e-6)


def test_credit_takes_its_means_over_all_devices():
  rng = np.random.default_rng(0)
  choice = jnp.asarray(np.eye(3, dtype=np.float32)[rng.integers(0, 3, 16)])
  ran, loss = choice.argmax(-1), jnp.asarray(rng.uniform(size=16), jnp.float32)
  whole = jax.grad(estimators.credit)(choice, loss, ran)
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))

  def mean(*args):
    return jax.lax.pmean(estimators.credit(*args, 'data'), 'data')

  split = jax.shard_map(mean, mesh=mesh, in_specs=P('data'), out_specs=P())
  np.testing.assert_allclose(jax.grad(split)(choice, loss, ran), whole, rtol=0, atol=1e-7)


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize('room', [None, (4, 8, 12)], ids=['dense', 'routed'])
def test_the_network_learns_through_the_hard_choice(room):
  """In float64, along random directions of all parameters, private and shared."""
  variables, _, _, scores, noise = problem('float64')
  params = variables['params']
  run = compiled(room, 'float64')
  gradient = run(params, scores, noise)[1][0]
  rng = np.random.default_rng(1)
  for _ in range(3):
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
    moved = [run(jax.tree.map(lambda x, d, s=s: x + s * 1e-6 * d, params, direction), scores, noise) for s in (1, -1)]
    expected = (float(moved[0][0][0]) - float(moved[1][0][0])) / 2e-6
    found = sum(jax.tree.leaves(jax.tree.map(lambda g, d: float((g * d).sum()), gradient, direction)))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_statistics_count_the_images_that_were_sent_to_a_resolution():
  variables, images, _, scores, noise = problem()
  wanted = np.asarray(choose(scores, noise).argmax(-1))
  expected = {}
  for j, r in enumerate(RESOLUTIONS):
    alone = jax.jit(functools.partial(model().apply, train=True, mutable=['batch_stats']))
    expected[str(r)] = alone(switchable.view(variables, r), images[j][wanted == j])[1]['batch_stats']
  for room in (None, (24, 24, 24)):
    (_, (_, statistics, ran)), _ = compiled(room)(variables['params'], scores, noise)
    np.testing.assert_array_equal(ran, wanted)
    for a, b in zip(jax.tree.leaves(statistics), jax.tree.leaves(expected), strict=True):
      np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_all_images_count_at_each_resolution_where_that_is_asked():
  variables, images, _, scores, noise = problem()
  choice = choose(scores, noise)
  dense = functools.partial(estimators.dense, model(), variables, images, RESOLUTIONS, train=True, count_all=True)
  each, expected = jax.jit(lambda: switchable.forward(model(), variables, images, RESOLUTIONS, train=True))()
  logits, statistics = jax.jit(dense)(choice)
  jax.tree.map(np.testing.assert_array_equal, statistics, expected)
  np.testing.assert_allclose(logits, (np.asarray(choice).T[..., None] * each).sum(0), rtol=1e-6)


def test_a_resolution_that_one_image_was_sent_to_is_no_worse_than_by_its_running_statistics():
  """The deepest maps are of one pixel: those of one image do not vary, and 63 others are run there too."""
  network = models.ResNet(CLASSES, stages=(1, 1, 1, 1), features=4)
  rng = np.random.default_rng(0)
  images = [jnp.asarray(rng.normal(size=(64, r, r, 3)), jnp.float32) for r in (64, 32)]
  plain = jax.jit(network.init, static_argnames='train')(jax.random.key(0), images[0], train=False)
  variables = switchable.share(plain, (64, 32))
  forward = jax.jit(lambda v, mask: switchable.forward(network, v, images, (64, 32), train=True, mask=mask))
  for _ in range(20):
    _, statistics = forward(variables, None)
    variables = variables | {'batch_stats': statistics}
  usual, _ = forward(variables, [jnp.zeros(64), jnp.zeros(64)])
  alone = jnp.arange(64) == 3
  logits, _ = forward(variables, [~alone, alone])
  assert float(jnp.abs(logits[1]).max()) < 2 * float(jnp.abs(usual[1]).max())

  def cost(scores):
    choice = gumbel.choose(scores, 2 * jnp.stack([~alone, alone], 1), TAU)
    mixed, _ = estimators.dense(network, variables, images, (64, 32), choice, train=True)
    return losses.cross_entropy(mixed[:, None], jnp.arange(64)[:, None] % CLASSES).mean()

  assert float(jnp.linalg.norm(jax.jit(jax.grad(cost))(jnp.zeros((64, 2))))) < 0.05


@pytest.mark.parametrize('room', [None, (24, 24, 24)], ids=['dense', 'routed'])
@pytest.mark.parametrize('place', range(3))
def test_all_to_one_is_the_static_network_and_leaves_the_others_untouched(room, place):
  variables, images, labels, scores, _ = problem()
  noise = 50 * np.eye(3, dtype=np.float32)[[place] * BATCH]
  (value, (logits, statistics, _)), (gradient, towards) = compiled(room)(variables['params'], scores, noise)
  r = RESOLUTIONS[place]
  static = jax.jit(functools.partial(model().apply, train=True, mutable=['batch_stats']))
  expected, updates = static(switchable.view(variables, r), images[place])
  np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
  assert float(value) == pytest.approx(float(losses.cross_entropy(expected, labels)), abs=1e-5)
  for a, b in zip(jax.tree.leaves(statistics[str(r)]), jax.tree.leaves(updates['batch_stats']), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradient, towards)))
  for other in set(RESOLUTIONS) - {r}:
    for a, b in zip(
      jax.tree.leaves(statistics[str(other)]), jax.tree.leaves(variables['batch_stats'][str(other)]), strict=True
    ):
      np.testing.assert_array_equal(a, b)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient['private'][str(other)]))


@pytest.mark.parametrize(
  ('wanted', 'room', 'expected'),
  [
    ([0, 1, 2], (1, 1, 1), [0, 1, 2]),
    ([2, 2, 2], (1, 1, 1), [2, 1, 0]),  # upwards, one by one
    ([2, 2, 1], (1, 1, 1), [2, 0, 1]),  # past a resolution that its own have filled
    ([0, 0, 0], (1, 1, 1), [0, 1, 2]),  # from the top downwards
    ([0, 0, 2], (1, 1, 1), [0, 1, 2]),
    ([1, 1, 1, 0], (1, 1, 2), [1, 2, 2, 0]),  # the top is full: down to the lowest
    ([2, 2, 2, 2], (4, 4, 0), [1, 1, 1, 1]),
  ],
)
def test_overflow_goes_up_and_from_the_top_down(wanted, room, expected):
  np.testing.assert_array_equal(estimators.assign(jnp.array(wanted), room), expected)


def test_everybody_is_placed_and_nobody_is_moved_without_need():
  rng = np.random.default_rng(3)
  run = jax.jit(estimators.assign, static_argnums=1)
  for room in ((5, 7, 9), (16, 2, 3)):
    for _ in range(20):
      wanted = rng.choice(3, 16, p=rng.dirichlet([1, 1, 1]))
      ran = np.asarray(run(wanted, room))
      asked, placed = np.bincount(wanted, minlength=3), np.bincount(ran, minlength=3)
      assert (placed <= room).all() and placed.sum() == 16
      stayed = np.bincount(wanted[ran == wanted], minlength=3)
      np.testing.assert_array_equal(stayed, np.minimum(asked, room))


def test_room_follows_the_budget_and_suffices():
  costs = (4.0892, 2.5030, 1.0779)
  rooms = [estimators.capacities(256, costs, budget, 1.25) for budget in (1.2, 2.0, 2.5, 3.0, 3.5, 4.0892)]
  for room, budget in zip(rooms, (1.2, 2.0, 2.5, 3.0, 3.5, 4.0892)):
    assert sum(room) >= 256 and max(room) <= 256 and min(room) > 0
    assert np.dot(room, costs) < 256 * sum(costs), budget
  assert [room[0] for room in rooms] == sorted(room[0] for room in rooms)
  assert [room[2] for room in rooms] == sorted((room[2] for room in rooms), reverse=True)
  mean = sum(costs) / 3
  assert estimators.capacities(300, costs, mean, 1.25) == (125, 125, 125)


def test_routed_costs_less_than_dense():
  variables, _, _, scores, noise = problem()
  counted = {}
  for name, room in (('dense', None), ('routed', estimators.capacities(BATCH, (4, 2.25, 1), 2.0, 1.0))):
    gradient = jax.grad(functools.partial(loss, room=room, dtype='float32'), argnums=(0, 1), has_aux=True)
    counted[name] = macs.count(gradient, variables['params'], scores, noise)
  assert counted['routed'] < 0.6 * counted['dense']


def test_devices_weigh_by_their_images():
  """Eight devices; the mean over them weighs by counts; who sent nothing says nothing; nobody leaves it as it was."""
  counts = np.array([[3, 0], [0, 0], [1, 0], [0, 0], [0, 0], [2, 0], [0, 0], [2, 0]], np.float32)
  rng = np.random.default_rng(0)
  old = {'6': np.float32([0.3, 0.7]), '4': np.float32([0.1, 0.9]), 'predictor': np.float32([0.5])}
  new = {'6': rng.normal(size=(8, 2)), '4': np.tile(old['4'], (8, 1)), 'predictor': rng.normal(size=(8, 1))}
  new = jax.tree.map(np.float32, new)
  devices = Devices()

  def body(state, batch):
    new, counts = jax.tree.map(lambda x: x[0], batch)
    weighed = estimators.weigh(state, new, counts, (6, 4), 'data')
    return jax.tree.map(lambda a, b: a + jax.lax.pmean(b - a, 'data'), state, weighed), {}

  found, _ = devices.train(body)(old, devices.put((new, counts)))
  np.testing.assert_allclose(found['6'], (counts[:, :1] * new['6']).sum(0) / 8, rtol=0, atol=1e-6)
  np.testing.assert_array_equal(found['4'], old['4'])
  np.testing.assert_allclose(found['predictor'], new['predictor'].mean(0), rtol=0, atol=1e-6)


def test_one_device_weighs_exactly():
  new = {'6': jnp.array([0.1, 0.7])}
  run = jax.vmap(lambda n: estimators.weigh({'6': jnp.ones(2)}, n, jnp.array([3.0]), (6,), 'data'), axis_name='data')
  np.testing.assert_array_equal(run({'6': new['6'][None]})['6'][0], new['6'])
