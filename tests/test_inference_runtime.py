import threading

import compilations
import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest

from resjax import models, preprocess, switchable
from resjax.inference import XlaRuntime, programs
from resjax.network import Network
from resjax.preprocess import Preprocessing


@pytest.fixture(scope='module')
def network():
  model = models.create('resnet_small', num_classes=5, width=0.25, stages=(1,))
  plain = jax.jit(lambda key: model.init(key, jnp.zeros((1, 8, 8, 3)), train=False))(jax.random.key(0))
  return Network(model, switchable.share(plain, (20, 12, 8)), (20, 12, 8), Preprocessing('signed'))


def make(network, **options):
  return XlaRuntime(programs.of_network(network), devices=jax.devices()[:1], **options)


def run(runtime, place, images):
  out = runtime.dispatch(runtime.put(images), place, len(images), np.arange(len(images)))
  return np.asarray(out)


def expected(network, resolution, images):
  (inputs,) = preprocess.prepare((images,), (resolution,), 'signed')
  return network.model.apply(network.view(resolution), inputs, train=False)


def test_a_compiled_program_is_resize_normalise_and_network(network):
  runtime = make(network)
  assert runtime.resolutions == (20, 12, 8)
  assert runtime.shape == (20, 20, 3) and runtime.num_classes == 5 and runtime.multiple == 1
  runtime.compile((2,))
  images = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), np.uint8)
  for place, r in enumerate((20, 12, 8)):
    # float32: other fusions, other rounding
    np.testing.assert_allclose(run(runtime, place, images), expected(network, r, images), rtol=0, atol=1e-5)


def test_bfloat16_is_an_option(network):
  images = np.random.default_rng(1).integers(0, 256, (2, 20, 20, 3), np.uint8)
  exact, rounded = make(network), make(network.with_dtype('bfloat16'))
  out = []
  for runtime in (exact, rounded):
    runtime.compile((2,))
    out.append(run(runtime, 0, images))
  assert out[1].dtype == np.float32
  difference = np.abs(out[1] - out[0]).max()
  assert 0 < difference < 0.05 * np.abs(out[0]).max()  # eight bits of mantissa, a few layers
  assert exact.identity != rounded.identity and (exact.identity.dtype, rounded.identity.dtype) == (
    'float32',
    'bfloat16',
  )


def test_compiling_again_compiles_nothing(network):
  runtime = make(network)
  assert runtime.compiled == 0
  runtime.compile((1,))
  assert runtime.compiled == 3
  before = compilations.count()
  kept = dict(runtime._executables)
  runtime.compile((1,))
  assert runtime._executables == kept and runtime.compiled == 3 and compilations.count() == before
  runtime.compile((1, 2))
  assert runtime.compiled == 6


def test_images_that_are_not_square(network):
  wide, _ = network.at((8, 12))
  runtime = make(wide)
  assert runtime.shape == (8, 12, 3) and runtime.resolutions == ((8, 12),)
  runtime.compile((1,))
  images = np.random.default_rng(2).integers(0, 256, (1, 8, 12, 3), np.uint8)
  np.testing.assert_allclose(run(runtime, 0, images), expected(wide, (8, 12), images), rtol=0, atol=1e-5)


def test_bad_input_is_refused_in_one_line(network):
  with pytest.raises(ValueError, match=r'^programs: got 0 of crops \[\], expected one or more, of the same crops$'):
    XlaRuntime([])
  mixed = [*programs.of_network(network), *programs.of_network(network.at(8)[0])]
  with pytest.raises(ValueError, match=r'^programs: got 4 of crops \[\(20, 20, 3\), .*, of the same crops$'):
    XlaRuntime(mixed)
  with pytest.raises(ValueError, match='resident: got True for 2 devices, expected one'):
    XlaRuntime(programs.of_network(network), devices=jax.devices()[:2], resident=True)


def test_the_identity_is_all_that_a_programs_time_depends_on(network):
  identity = make(network).identity
  assert identity.runtime == f'xla, jax {jax.__version__}' and identity.crop == (20, 20, 3)
  assert (identity.device, identity.devices, identity.dtype) == ('cpu', 1, 'float32')
  assert identity.machine and identity.processors >= 1 and 'ResNet(' in identity.programs
  weights = network.replace(variables=jax.tree.map(lambda x: 2 * x, network.variables))
  assert make(weights).identity == identity
  assert make(network, resident=True).identity != identity
  assert XlaRuntime(programs.of_network(network), devices=jax.devices()[:2]).identity.devices == 2


def test_the_resolutions_share_their_kernels_on_the_device():
  first, second = make(networks.tiny())._variables
  kernel = first['params']['conv1']['kernel']
  assert kernel is second['params']['conv1']['kernel']
  assert first['params']['bn1']['scale'] is not second['params']['bn1']['scale']


@pytest.mark.parametrize('kind', [jnp.array, np.array])
def test_every_array_is_on_the_device_once(kind):
  """As many buffers as the network has arrays: what a hundred views share is there once."""
  network = networks.tiny()
  own = {k: v for k, v in network.variables['params'].items() if k != 'alpha'}
  made = network.replace(variables=jax.tree.map(kind, network.variables | {'params': own}))
  views = make(made)._variables
  buffers = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(views)}
  assert len(buffers) == len(jax.tree.leaves(made.variables)) < len(jax.tree.leaves(views))


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
