import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resjax import models, preprocess, switchable
from resjax.inference import XlaRuntime, compilations


@pytest.fixture(scope='module')
def network():
  model = models.create('resnet_small', num_classes=5, width=0.25, stages=(1,))
  plain = jax.jit(lambda key: model.init(key, jnp.zeros((1, 8, 8, 3)), train=False))(jax.random.key(0))
  return model, switchable.share(plain, (12, 8))


def make(network, resolutions=(12, 8), **options):
  return XlaRuntime(*network, resolutions, normalize='signed', devices=jax.devices()[:1], **options)


def run(programs, place, images):
  out = programs.dispatch(programs.put(images), place, len(images), np.arange(len(images)))
  return np.asarray(out)


def test_a_program_is_resize_normalise_and_network(network):
  model, variables = network
  programs = make(network, size=20)
  assert programs.shape == (20, 20, 3) and programs.num_classes == 5 and programs.multiple == 1
  programs.compile((2,))
  images = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), np.uint8)
  for place, r in enumerate((12, 8)):
    (inputs,) = preprocess.prepare((images,), (r,), 'signed')
    expected = model.apply(switchable.view(variables, r), inputs, train=False)
    # float32: other fusions, other rounding
    np.testing.assert_allclose(run(programs, place, images), expected, rtol=0, atol=1e-5)


def test_bfloat16_is_an_option(network):
  images = np.random.default_rng(1).integers(0, 256, (2, 12, 12, 3), np.uint8)
  exact, rounded = make(network), make(network, dtype='bfloat16')
  out = []
  for programs in (exact, rounded):
    programs.compile((2,))
    out.append(run(programs, 0, images))
  assert out[1].dtype == np.float32
  difference = np.abs(out[1] - out[0]).max()
  assert 0 < difference < 0.05 * np.abs(out[0]).max()  # eight bits of mantissa, a few layers
  assert exact.identity != rounded.identity


def test_compiling_again_compiles_nothing(network):
  programs = make(network)
  programs.compile((1,))
  kept = dict(programs._programs)
  programs.compile((1,))
  assert all(programs._programs[key] is kept[key] for key in kept) and len(kept) == 2


def test_images_that_are_not_square(network):
  model, variables = network
  key = switchable.key_of((8, 12))
  variables = {
    'params': variables['params']
    | {'private': variables['params']['private'] | {key: variables['params']['private']['8']}},
    'batch_stats': variables['batch_stats'] | {key: variables['batch_stats']['8']},
  }
  programs = make((model, variables), ((8, 12), 8), size=(8, 12))
  programs.compile((1,))
  images = np.random.default_rng(2).integers(0, 256, (1, 8, 12, 3), np.uint8)
  (inputs,) = preprocess.prepare((images,), ((8, 12),), 'signed')
  expected = model.apply(switchable.view(variables, 8), inputs, train=False)
  np.testing.assert_allclose(run(programs, 0, images), expected, rtol=0, atol=1e-5)


def test_bad_input_is_refused_in_one_line(network):
  for wrong in ((), (8, 12), (12, 12), (12, 0)):
    with pytest.raises(ValueError, match='resolutions: got .*, expected positive pixels, the highest first'):
      make(network, wrong)
  with pytest.raises(ValueError, match='resolution: got 10, expected one of 12, 8'):
    make(network, (12, 10))
  with pytest.raises(ValueError, match="normalize: got 'none', expected one of imagenet, unit, signed"):
    XlaRuntime(*network, (12, 8), normalize='none')
  with pytest.raises(ValueError, match="dtype: got 'float16', expected 'float32' or 'bfloat16'"):
    make(network, dtype='float16')
  with pytest.raises(ValueError, match='resident: got True for 2 devices, expected one'):
    XlaRuntime(*network, (12, 8), normalize='unit', devices=jax.devices()[:2], resident=True)


def test_the_resolutions_share_their_kernels_on_the_device(network):
  first, second = make(network)._views
  kernel = first['params']['conv1']['kernel']
  assert kernel is second['params']['conv1']['kernel']
  assert first['params']['bn1']['scale'] is not second['params']['bn1']['scale']


def test_compilations_are_counted_in_the_thread_that_compiles():
  def compile_one():
    jax.jit(lambda x: x * 3).lower(0.0).compile()

  before = compilations.count()
  compile_one()
  assert compilations.count() == before + 1
  thread = threading.Thread(target=compile_one)
  thread.start()
  thread.join()
  assert compilations.count() == before + 1
