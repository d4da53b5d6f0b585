import logging

import compilations
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resjax import models, preprocess, switchable
from resjax.inference import Engine, XlaRuntime, programs, timing
from resjax.inference.buckets import Planner
from resjax.network import Network

RESOLUTIONS = (16, 12, 8)
# float32 sums of a few hundred products in another order; the project's promise to its users.
TOLERANCE = 1e-5


@pytest.fixture(scope='module')
def network():
  model = models.create('resnet_small', num_classes=5, width=0.25, stages=(1,))
  plain = jax.jit(lambda key: model.init(key, jnp.zeros((1, 8, 8, 3)), train=False))(jax.random.key(0))
  variables = switchable.share(plain, RESOLUTIONS)
  rng = np.random.default_rng(0)  # normalisers that differ: a wrong resolution shows
  variables['params']['private'] = jax.tree.map(
    lambda x: x + 0.3 * rng.standard_normal(x.shape, np.float32), variables['params']['private']
  )
  return Network(model, variables, RESOLUTIONS)


@pytest.fixture(scope='module')
def single(network):
  """One image at one resolution, by the network itself."""

  def logits(image, place):
    (inputs,) = preprocess.prepare((image[None],), (RESOLUTIONS[place],), 'imagenet')
    return network.model.apply(network.view(RESOLUTIONS[place]), inputs, train=False)[0]

  compiled = jax.jit(logits, static_argnums=1)
  return lambda images, ran: np.array([compiled(x, int(place)) for x, place in zip(images, ran, strict=True)])


def runtime_of(network, kind=XlaRuntime, devices=1, **options):
  return kind(programs.of_network(network), devices=jax.devices()[:devices], **options)


@pytest.fixture(scope='module')
def engine(network):
  return Engine(runtime_of(network), max_batch=6, strict=True)


def crops(rng, count):
  return rng.integers(0, 256, (count, 16, 16, 3), np.uint8)


def random_table(rng, engine):
  """Costs that lead to plans of every kind: a start of any price, and a price by the image."""
  price = np.sort(rng.uniform(0.1, 1, len(engine.resolutions)))[::-1]
  noise = rng.uniform(0.7, 1.3, engine.costs.seconds.shape)
  return noise * (rng.choice([0.01, 0.5, 3]) + price[:, None] * np.array(engine.buckets))


class Poisoned(XlaRuntime):
  """The same programs on floating images, whose padding is NaN."""

  def _crops(self, bucket):
    return jax.ShapeDtypeStruct((bucket, *self.shape), jnp.float32, sharding=self._split)

  def dispatch(self, batch, place, bucket, rows):
    images = np.full((bucket, *self.shape), np.nan, np.float32)
    images[: len(rows)] = batch[rows]
    return self._executables[place, bucket](self._variables[place], jax.device_put(images, self._split))


class Compiling(XlaRuntime):
  """A runtime that breaks its word when it is told to: it compiles where it should run."""

  breaks = False

  def dispatch(self, batch, place, bucket, rows):
    if self.breaks:
      self.compile((bucket + 1,))
    return super().dispatch(batch, place, bucket, rows)


def test_logits_equal_a_loop_over_single_images(engine, single, monkeypatch):
  rng = np.random.default_rng(0)
  for promote in (True, False):
    for _ in range(12):
      monkeypatch.setattr(engine, '_planner', Planner(random_table(rng, engine), engine.buckets))
      images = crops(rng, rng.integers(1, 15))
      choice = rng.choice(3, len(images), p=rng.dirichlet([0.7] * 3))
      logits, ran = engine.run(images, choice, promote=promote)
      assert logits.dtype == np.float32 and (ran <= choice).all()
      assert promote or (ran == choice).all()
      np.testing.assert_allclose(logits, single(images, ran), rtol=0, atol=TOLERANCE)
  counts = engine.counts
  assert counts.promoted and counts.padding and counts.fixed  # plans of every kind were among them


def test_padding_never_leaks(network, single, monkeypatch):
  engine = Engine(runtime_of(network, Poisoned), max_batch=4)
  rng = np.random.default_rng(1)
  for _ in range(10):
    table = random_table(rng, engine)
    table[:, :-1] = 1.5 * table[:, -1:]  # only the largest bucket pays: padding everywhere
    monkeypatch.setattr(engine, '_planner', Planner(table, engine.buckets))
    images, choice = crops(rng, 7), rng.integers(0, 3, 7)
    logits, ran = engine.run(images, choice, promote=False)
    np.testing.assert_allclose(logits, single(images, ran), rtol=0, atol=TOLERANCE)
  assert engine.counts.padding > 10


def test_a_thousand_batches_compile_nothing(engine, monkeypatch):
  rng = np.random.default_rng(2)
  images = crops(rng, 8)
  before, counted = compilations.count(), engine.counts.compilations
  for i in range(1000):
    if i % 50 == 0:
      monkeypatch.setattr(engine, '_planner', Planner(random_table(rng, engine), engine.buckets))
    count = rng.integers(1, 9)
    engine.run(images[:count], rng.integers(0, 3, count))
  assert compilations.count() == before and engine.counts.compilations == counted == 0


def test_a_compilation_is_counted_and_raises_where_strict(network, engine):
  runtime = runtime_of(network, Compiling)
  runtime._executables = dict(engine.runtime._executables)
  images, choice = crops(np.random.default_rng(3), 2), np.zeros(2, int)
  loose, strict = Engine(runtime, max_batch=6), Engine(runtime, max_batch=6, strict=True)
  strict.run(images, choice)
  runtime.breaks = True
  assert loose.counts.compilations == 0
  loose.run(images, choice)
  assert loose.counts.compilations == len(RESOLUTIONS)
  strict.run(images, choice)  # what is there already is not compiled again
  assert strict.counts.compilations == 0
  del runtime._executables[0, 3]
  with pytest.raises(RuntimeError, match='^strict: 1 programs were compiled after the warm-up, expected none$'):
    strict.run(images, choice)


def test_one_resolution_where_grouping_loses_and_it_is_said(engine, network, monkeypatch, caplog):
  def start_is_all(runtime, buckets):
    seconds = np.repeat([[1.2], [1.1], [1.0]], len(buckets), axis=1)
    return timing.Costs(seconds, seconds > 0)

  monkeypatch.setattr(timing, 'measure', start_is_all)
  images, choice = crops(np.random.default_rng(4), 4), np.array([2, 1, 2, 1])
  fixed = Engine(engine.runtime, max_batch=6)
  with caplog.at_level(logging.INFO):
    np.testing.assert_array_equal(fixed.run(images, choice).ran, [1, 1, 1, 1])
    fixed.run(images, choice)
  assert fixed.counts.fixed == 2 and fixed.counts.promoted == 4
  assert caplog.text.count('4 images of several resolutions run at 12: faster than in groups') == 1
  own = Engine(engine.runtime, max_batch=6, promote=False)
  np.testing.assert_array_equal(own.run(images, choice).ran, choice)
  assert own.counts.fixed == 0


def test_eight_devices_share_every_bucket(network, single):
  engine = Engine(runtime_of(network, devices=8), max_batch=16, strict=True)
  assert engine.buckets == (8, 16)
  rng = np.random.default_rng(5)
  for count in (1, 11, 37):
    images, choice = crops(rng, count), rng.integers(0, 3, count)
    logits, ran = engine.run(images, choice)
    np.testing.assert_allclose(logits, single(images, ran), rtol=0, atol=TOLERANCE)


def test_a_resident_batch_gives_the_same(network, engine, single):
  runtime = runtime_of(network, resident=True)
  runtime._executables = dict(engine.runtime._executables)
  resident = Engine(runtime, max_batch=6, strict=True)
  rng = np.random.default_rng(6)
  for count in (1, 5, 6, 15):
    images, choice = crops(rng, count), rng.integers(0, 3, count)
    batch = resident.put(images)
    assert all(isinstance(part, jax.Array) for part in batch.parts)
    logits, ran = resident.run(batch, choice)
    np.testing.assert_allclose(logits, single(images, ran), rtol=0, atol=TOLERANCE)
  held = jax.device_put(images[:4])
  assert resident.put(held).parts[0].unsafe_buffer_pointer() == held.unsafe_buffer_pointer()


def test_no_images_give_no_logits(engine):
  logits, ran = engine.run(np.empty((0, 16, 16, 3), np.uint8), np.empty(0, int))
  assert logits.shape == (0, 5) and ran.shape == (0,)


def test_an_engine_of_one_image(network, engine, single):
  alone = Engine(engine.runtime, max_batch=1)
  images = crops(np.random.default_rng(7), 3)
  logits, ran = alone.run(images, np.array([0, 2, 1]))
  np.testing.assert_allclose(logits, single(images, ran), rtol=0, atol=TOLERANCE)


def test_bad_input_is_refused_in_one_line(engine):
  good = np.zeros((2, 16, 16, 3), np.uint8)
  for wrong in (good.astype(np.float32), good[:, :8], good[0]):
    with pytest.raises(ValueError, match=r'images: got .*, expected uint8 \(N, 16, 16, 3\)'):
      engine.run(wrong, np.zeros(2, int))
  for wrong in (np.zeros(3, int), np.zeros((2, 1), int), np.zeros(2)):
    with pytest.raises(ValueError, match=r'choice: got .*, expected integers \(2,\)'):
      engine.run(good, wrong)
  for wrong in (3, -1):
    with pytest.raises(ValueError, match=f'choice: got {wrong}, expected 0 to 2, one of the 3 resolutions'):
      engine.run(good, np.array([0, wrong]))
