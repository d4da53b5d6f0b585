"""Networks as files of ONNX: every model that is shipped, at every size, alone or over shared weights."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import onnx as library
import onnxruntime
import pytest
from jax import export

from resjax import models, switchable
from resjax.exporting import bundle, onnx, stablehlo
from resjax.inference import XlaRuntime, programs
from resjax.inference.runtimes.onnx import OnnxRuntime
from resjax.models.predictor import PREDICTORS, Predictor, create_predictor
from resjax.network import Network
from resjax.preprocess import Preprocessing

# Of the largest logit: up to 150 layers of float32 sums in another order.
TOLERANCE = 1e-4

# Narrow, and as deep as they are; a model whose block has been tested is cut short.
TINY = {
  'resnet18': {'width': 0.1},
  'resnext50_32x4d': {'width': 0.1, 'stages': (1, 1)},
  'mobilenetv2': {'width': 0.1},
  'resnet_small': {'width': 0.5},
}


def random(shapes, seed=0):
  """Variables with which every layer counts: activations neither grow nor vanish, BatchNorms are far from 1 and 0."""
  rng = np.random.default_rng(seed)

  def values(path, leaf):
    if leaf.ndim > 1:
      return rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
    positive = path[-1].key in ('var', 'scale')
    return rng.uniform(0.5, 1.5, leaf.shape) if positive else rng.normal(0, 0.3, leaf.shape)

  return jax.tree.map_with_path(lambda path, leaf: values(path, leaf).astype(np.float32), shapes)


def initial(model, size):
  return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False))


def made(name, resolutions, predictor=None, num_classes=7, **fields):
  """A network of random variables, other ones at each resolution, with a predictor or none."""
  model = models.create(name, num_classes=num_classes, **fields)
  shared = jax.eval_shape(lambda: switchable.share(initial(model, 64), resolutions))
  shared = random(jax.eval_shape(lambda tree: tree, shared))
  found = None
  if predictor:
    found = Predictor(create_predictor(predictor, resolutions=len(resolutions), width=0.25), 24)
    own = random(initial(found.model, 24))
    shared = {kind: shared[kind] | {'predictor': own[kind]} for kind in shared}
  return Network(model, shared, resolutions, Preprocessing(), (), found)


def crops(count, size, seed=1):
  return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def session(model):
  return onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])


def assert_close(got, expected):
  assert got.dtype == np.float32 and got.shape == expected.shape
  np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def assert_runtimes_agree(network, makes):
  """Every program by every runtime, for one crop and for three, as the plain function has it."""
  every = [programs.of_network(network)]
  if network.predictor is not None:
    every.append(programs.of_predictor(network))
  for each in every:
    images = crops(3, each[0].shape[0])
    expected = [np.asarray(jax.jit(p.forward)(p.variables, images)) for p in each]
    for make in makes:
      runtime = make(each)
      runtime.compile((1, 4))
      batch = runtime.put(images)
      for place, logits in enumerate(expected):
        assert_close(np.asarray(runtime.dispatch(batch, place, 4, np.arange(3)))[:3], logits)
        assert_close(np.asarray(runtime.dispatch(batch, place, 1, np.array([2])))[:1], logits[2:])


@pytest.mark.parametrize(('name', 'predictor'), [*zip(TINY, (*PREDICTORS, None))])
def test_every_model_is_the_same_by_onnx_runtime(name, predictor):
  sizes = (64, 56, 48, 40, 32) if name == 'resnet_small' else (64, 40)
  assert_runtimes_agree(made(name, sizes, predictor, **TINY[name]), [OnnxRuntime])


@pytest.mark.slow
@pytest.mark.parametrize('name', models.MODELS)
def test_every_model_is_the_same_by_every_runtime(name):
  def on_one_device(programs):
    return XlaRuntime(programs, devices=jax.devices()[:1])

  predictor = dict(zip(('resnet18', 'resnet50', 'mobilenetv2'), PREDICTORS)).get(name)
  sizes = (32, 28, 24, 20, 16) if name.endswith('resnet_small') else (224, 192, 160, 128, 96)
  assert_runtimes_agree(made(name, sizes, predictor), [on_one_device, OnnxRuntime])


@pytest.mark.slow
@pytest.mark.parametrize('name', models.MODELS)
def test_every_model_is_the_same_as_files(name, tmp_path):
  """A bundle's, and StableHLO's of all resolutions."""
  predictor = dict(zip(('resnet18', 'resnet50', 'mobilenetv2'), PREDICTORS)).get(name)
  sizes = (32, 28, 24, 20, 16) if name.endswith('resnet_small') else (224, 192, 160, 128, 96)
  if name in ('resnet101', 'resnet152'):  # compiling all of 152's sizes takes 17 GB
    sizes = sizes[::4]
  network = made(name, sizes, predictor, num_classes=1000)
  bundle.write(network, tmp_path / 'bundle')
  files = sum(path.stat().st_size for path in (tmp_path / 'bundle').iterdir())
  own = (network.view(sizes[0]), network.predictor_variables if predictor else ())
  if not name.endswith('resnet_small'):  # they are so small that the files' text counts
    assert files <= 1.05 * sum(leaf.nbytes for leaf in jax.tree.leaves(own))
  images = crops(3, sizes[0])
  run = jax.jit(export.deserialize(bytearray(stablehlo.of_network(network))).call)
  every = [(programs.of_network(network), programs.of_network(bundle.read(tmp_path / 'bundle')), run)]
  if predictor:
    scores = jax.jit(export.deserialize(bytearray(stablehlo.of_predictor(network))).call)
    found = bundle.read(tmp_path / 'bundle')
    every += [(programs.of_predictor(network), programs.of_predictor(found), lambda place, images: scores(images))]
  for plain, kept, call in every:
    runtime = OnnxRuntime(kept)
    runtime.compile((1, 4))
    for place, program in enumerate(plain):
      expected = np.asarray(jax.jit(program.forward)(program.variables, images))
      for count in (3, 1):
        assert_close(runtime.dispatch(images, place, count, np.arange(count)), expected[:count])
        assert_close(np.asarray(call(np.int32(place), images[:count])), expected[:count])


@pytest.fixture(scope='module')
def network():
  """Of three resolutions, one not square, whose images are prepared in a way of their own."""
  preprocessing = Preprocessing(((0.3, 0.4, 0.5), (0.2, 0.3, 0.4)), 'bicubic')
  network = made('resnet_small', (32, 16), 'small', width=0.5, stages=(1, 1))
  return network.replace(preprocessing=preprocessing)


def plain(network, resolution, images):
  (program,) = programs.of_network(network.replace(resolutions=(resolution,), predictor=None))
  return np.asarray(program.forward(program.variables, images))


def test_a_folder_has_a_file_for_each_resolution_over_the_same_weights(network, tmp_path):
  onnx.write(network, tmp_path / 'all')
  assert {path.name for path in (tmp_path / 'all').iterdir()} == {'32.onnx', '16.onnx', 'predictor.onnx', 'weights.bin'}
  large, small = crops(3, 32), crops(3, 16)
  every = programs.of_network(network)
  for place, name in enumerate(('32.onnx', '16.onnx')):
    library.checker.check_model(str(tmp_path / 'all' / name), full_check=True)
    run = session(tmp_path / 'all' / name).run
    expected = np.asarray(every[place].forward(every[place].variables, large))
    assert_close(run(None, {'crops': large})[0], expected)
    assert_close(run(None, {'crops': large[1:2]})[0], expected[1:2])
  assert_close(run(None, {'crops': small})[0], plain(network, 16, small))  # of its own size: not resized
  (scorer,) = programs.of_predictor(network)
  got = session(tmp_path / 'all' / 'predictor.onnx').run(['scores'], {'crops': large})[0]
  assert_close(got, np.asarray(scorer.forward(scorer.variables, large)))


def test_the_weights_of_all_resolutions_are_little_more_than_those_of_one():
  network = made('resnet18', (64, 48, 32), width=0.5)
  size = sum(map(len, onnx.files(network).values()))
  one = sum(leaf.nbytes for leaf in jax.tree.leaves(network.view(64)))
  assert one < size < 1.05 * one


def test_one_resolution_is_one_file_without_a_batch_norm(network, tmp_path):
  onnx.write(network.at(16)[0], tmp_path / '16.onnx', softmax=True)
  model = library.load(tmp_path / '16.onnx')
  assert not {'BatchNormalization', 'If'} & {node.op_type for node in model.graph.node}
  images = crops(3, 16)
  got = session(tmp_path / '16.onnx').run(['probabilities'], {'crops': images})[0]
  assert_close(got, np.asarray(jax.nn.softmax(plain(network, 16, images))))


def test_pixels_are_moved_once_as_bytes(network):
  """What normalises and resizes them runs along rows of pixels, not along three channels."""
  for program in programs.of_network(network):
    graph = onnx.of_function(program.forward, program.variables, program.shape).graph
    assert [list(node.input) for node in graph.node if node.op_type == 'Transpose'] == [['crops']]


def test_a_resolution_that_is_not_square(network):
  wide = switchable.share(network.view(32), ((16, 32), (16, 24)))
  wide = network.replace(variables=wide, resolutions=((16, 32), (16, 24)), predictor=None)
  run = session(onnx.of_network(wide, (16, 24)).SerializeToString()).run
  images = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 3), np.uint8)
  program = programs.of_network(wide)[1]
  assert_close(run(None, {'crops': images})[0], np.asarray(program.forward(program.variables, images)))
  assert_close(run(None, {'crops': images[:, :, :24]})[0], plain(wide, (16, 24), images[:, :, :24]))


def test_what_computes_in_bfloat16_is_refused(network):
  half = network.with_dtype('bfloat16')
  with pytest.raises(ValueError, match=r'^model: has numbers of type bfloat16 in .*, expected operations'):
    onnx.of_network(half, 16)
  with pytest.raises(ValueError, match=r'^dtype: got bfloat16, expected float32 with ONNX Runtime on a CPU$'):
    OnnxRuntime(programs.of_network(half))


def test_threads_and_version_are_in_the_identity(network):
  runtime = OnnxRuntime(programs.of_network(network), threads=3)
  assert runtime.identity.runtime == f'onnxruntime {onnxruntime.__version__}, 3 threads that sleep'
  assert runtime.identity != OnnxRuntime(programs.of_network(network), threads=3, share=True).identity


def test_threads_that_wait_leave_the_processors_to_others():
  runtime = OnnxRuntime(programs.of_network(made('resnet_small', (32, 16), width=0.5)), threads=4)
  runtime.compile((1,))
  spent = []
  for _ in range(5):
    runtime.dispatch(crops(8, 32), 0, 8, np.arange(8))
    begin = time.process_time()
    time.sleep(0.05)
    spent.append(time.process_time() - begin)
  assert min(spent) < 0.002  # a thread that spins for as long would take 50 ms


def test_weights_that_are_shared_are_there_once():
  runtime = OnnxRuntime(programs.of_network(made('resnet_small', (32, 16), width=0.5)), share=True)
  runtime.compile((1,))
  kernels = [leaf for leaf in jax.tree.leaves(runtime._programs[0].variables) if leaf.ndim == 4 and leaf.nbytes >= 1024]
  assert len([value for value in runtime._values.values() if len(value.shape()) == 4]) == len(kernels) > 5
