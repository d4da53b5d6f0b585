"""One network by every runtime: the same logits, the same predictions, nothing compiled after the warm-up."""

import argparse
import dataclasses
import functools

import compilations
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from flax import linen as nn
from onnx import TensorProto, helper, numpy_helper

from resjax import resize, switchable
from resjax.commands import options
from resjax.inference import Classifier, Engine, XlaRuntime, programs, runtimes
from resjax.inference.runtime import Identity
from resjax.models.predictor import Predictor
from resjax.network import Network
from resjax.preprocess import NORMALIZATIONS, Preprocessing

# float32: sums of a few hundred products in another order, of logits of order 1.
TOLERANCE = 1e-5

EPSILON = 1e-5  # of flax.linen.BatchNorm


class Toy(nn.Module):
  """What a graph of ten nodes can say too: a layer for each pixel, normalised; the mean over all; a layer."""

  classes: int = 4

  @nn.compact
  def __call__(self, images, *, train):
    x = nn.Dense(6, use_bias=False, name='pixel')(images)
    x = nn.relu(nn.BatchNorm(use_running_average=not train, name='norm')(x))
    return nn.Dense(self.classes, name='head')(x.mean((1, 2)))


def graph_of(program, normalize='imagenet'):
  """A program of `Toy` as ONNX has it: crops uint8 [b, H, W, 3] to logits [b, K]."""
  size, (height, width, _) = program.resolution, program.shape
  mean, std = (255 * np.array(values) for values in NORMALIZATIONS[normalize])
  params, statistics = program.variables['params'], program.variables['batch_stats']['norm']
  scale = params['norm']['scale'] / np.sqrt(statistics['var'] + EPSILON)
  constants = {
    'rows': resize._weights(height, size, 'bilinear'),
    'columns': resize._weights(width, size, 'bilinear'),
    'mean': mean,
    'std': std,
    'pixel': params['pixel']['kernel'],
    'scale': scale,
    'shift': params['norm']['bias'] - statistics['mean'] * scale,
    'kernel': params['head']['kernel'],
    'bias': params['head']['bias'],
  }
  node = helper.make_node
  nodes = [
    node('Cast', ['crops'], ['floats'], to=TensorProto.FLOAT),
    node('Einsum', ['floats', 'rows'], ['tall'], equation='bhwc,ih->biwc'),
    node('Einsum', ['tall', 'columns'], ['resized'], equation='biwc,jw->bijc'),
    node('Sub', ['resized', 'mean'], ['centred']),
    node('Div', ['centred', 'std'], ['inputs']),
    node('MatMul', ['inputs', 'pixel'], ['mixed']),
    node('Mul', ['mixed', 'scale'], ['scaled']),
    node('Add', ['scaled', 'shift'], ['shifted']),
    node('Relu', ['shifted'], ['positive']),
    node('ReduceMean', ['positive'], ['pooled'], axes=[1, 2], keepdims=0),
    node('Gemm', ['pooled', 'kernel', 'bias'], ['logits']),
  ]
  values = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
  crops = helper.make_tensor_value_info('crops', TensorProto.UINT8, ['b', height, width, 3])
  logits = helper.make_tensor_value_info('logits', TensorProto.FLOAT, ['b', program.num_classes])
  graph = helper.make_graph(nodes, 'toy', [crops], [logits], values)
  return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)


class OnnxRuntime:
  """A second runtime, as small as one can be."""

  def __init__(self, programs):
    self.resolutions = tuple(program.resolution for program in programs)
    self.shape, self.num_classes, self.multiple, self.compiled = programs[0].shape, programs[0].num_classes, 1, 0
    self.identity = Identity('onnxruntime', '', 1, 'cpu', 1, programs[0].description, 'float32', self.shape)
    self.graphs = [graph_of(program).SerializeToString() for program in programs]

  def compile(self, buckets):
    self.sessions = [onnxruntime.InferenceSession(g, providers=['CPUExecutionProvider']) for g in self.graphs]
    self.compiled = len(self.sessions)

  def put(self, images):
    return np.asarray(images)

  def dispatch(self, batch, place, bucket, rows):
    return self.sessions[place].run(None, {'crops': batch[np.resize(rows, bucket)]})[0]


def on_one_device(programs):
  return XlaRuntime(programs, devices=jax.devices()[:1])


RUNTIMES = {'xla': on_one_device, 'xla, resident': lambda p: XlaRuntime(p, devices=jax.devices()[:1], resident=True)}
RUNTIMES |= {'xla, eight devices': XlaRuntime, 'toy': OnnxRuntime, 'onnx': runtimes.named('onnx')}
RUNTIMES |= {'onnx, weights once': functools.partial(RUNTIMES['onnx'], share=True)}


@pytest.fixture(scope='module')
def network():
  """A toy that is switched, with another toy as its predictor."""
  rng = np.random.default_rng(0)

  def variables(model):
    plain = jax.jit(lambda key: model.init(key, jnp.zeros((1, 8, 8, 3)), train=False))(jax.random.key(0))
    return plain if model.classes == 2 else switchable.share(plain, (16, 8))

  model, scorer = Toy(), Toy(classes=2)
  wide, own = variables(model), variables(scorer)
  both = {kind: wide[kind] | {'predictor': own[kind]} for kind in wide}
  moved = jax.tree.map(lambda x: np.asarray(x) + rng.uniform(0, 1, x.shape).astype(np.float32), both)
  return Network(model, moved, (16, 8), Preprocessing(), tuple('abcd'), Predictor(scorer, 8))


@pytest.fixture(scope='module')
def photographs():
  rng = np.random.default_rng(1)
  return [rng.integers(0, rng.integers(20, 256), (20, 24, 3), np.uint8) for _ in range(40)]


@pytest.fixture(scope='module')
def reference(network, photographs):
  """By the plain network: logits [N, R, K] of crops."""
  crops = np.random.default_rng(2).integers(0, 256, (11, 16, 16, 3), np.uint8)
  return crops, np.stack([p.forward(p.variables, crops) for p in programs.of_network(network)], 1)


def test_the_graph_is_sound(network):
  for program in programs.of_network(network):
    onnx.checker.check_model(graph_of(program), full_check=True)


@pytest.mark.parametrize('name', RUNTIMES)
def test_every_runtime_gives_the_same_logits_through_the_engine(network, reference, name):
  crops, logits = reference
  engine = Engine(RUNTIMES[name](programs.of_network(network)), max_batch=8, strict=True)
  compiled, rng = compilations.count(), np.random.default_rng(3)
  for count in (1, 3, 11):
    choice = rng.integers(0, 2, count)
    for promote in (False, True):
      found, ran = engine.run(crops[:count], choice, promote=promote)
      np.testing.assert_allclose(found, logits[np.arange(count), ran], rtol=0, atol=TOLERANCE)
      assert promote or (ran == choice).all()
  assert compilations.count() == compiled and engine.counts.compilations == 0


@pytest.fixture(scope='module')
def expected(network, photographs):
  """What the first runtime says, by router."""
  return predicted(Classifier(network, runtime=on_one_device, max_batch=8, promote=False), photographs)


def predicted(classifier, photographs):
  """Predictions by every router, and at every resolution, one that was not trained among them."""
  classifier.calibrate(photographs)
  found = {name: classifier.predict(photographs, router=name, budget=0.6) for name in classifier.engines.routers}
  return found | {size: classifier.predict(photographs, resolution=size) for size in (16, 12, 8)}


@pytest.mark.parametrize('name', RUNTIMES)
def test_every_runtime_predicts_the_same(network, photographs, expected, name):
  classifier = Classifier(network, runtime=RUNTIMES[name], max_batch=8, promote=False, strict=True)
  found = predicted(classifier, photographs)
  for way, predictions in found.items():
    elsewhere = 0
    for p, q in zip(predictions, expected[way], strict=True):
      elsewhere += p.resolution != q.resolution
      if p.resolution == q.resolution:
        assert (p.image, p.label, p.macs) == (q.image, q.label, q.macs)
        assert p.probability == pytest.approx(q.probability, abs=TOLERANCE)
    assert elsewhere <= 1, way  # the image that the knob was set between may round to either side
  compiled = compilations.count()
  again = predicted(classifier, photographs)
  assert compilations.count() == compiled
  assert all(again[way] == found[way] for way in found if way != 'random')  # whose draws go on


def test_a_new_runtime_is_a_class_and_an_entry(network, photographs, monkeypatch):
  with pytest.raises(ValueError, match=r"^runtime: got 'toy', expected one of xla, onnx$"):
    Classifier(network, runtime='toy').predict(photographs[:1])
  monkeypatch.setitem(runtimes.NAMES, 'toy', runtimes.Place(f'{__name__}:OnnxRuntime', ('numpy',), 'ort'))
  (found,) = Classifier(network, runtime='toy', max_batch=2).predict(photographs[:1])
  (wanted,) = Classifier(network, runtime=OnnxRuntime, max_batch=2).predict(photographs[:1])
  assert found == wanted
  parser = argparse.ArgumentParser()
  options.add_runtime(parser)
  assert parser.parse_args(['--runtime=toy']).runtime == 'toy'
  monkeypatch.setitem(runtimes.NAMES, 'toy', runtimes.Place('nothing:Here', ('json', 'no_such_a', 'no_such_b'), 'ort'))
  message = r"^runtime: got 'toy', which needs no_such_a and no_such_b: pip install 'resjax\[ort\]'$"
  with pytest.raises(ValueError, match=message):
    runtimes.named('toy')


@pytest.fixture
def one_device(monkeypatch):
  device = jax.local_devices()[0]
  monkeypatch.setattr(jax, 'local_devices', lambda **_: [device])


def test_on_one_cpu_onnx_runtime_is_the_default_where_it_is_installed(network, one_device, monkeypatch):
  made = programs.of_network(network)
  found = runtimes.named(None)(made)
  assert type(found) is runtimes.named('onnx') and found.compiled == 2
  monkeypatch.setitem(runtimes.NAMES, 'onnx', runtimes.NAMES['onnx']._replace(needs=('no_such_package',)))
  assert type(runtimes.named(None)(made)) is XlaRuntime


def test_xla_runs_what_onnx_runtime_does_not(network, one_device, caplog, monkeypatch):
  made = programs.of_network(network)
  half = [dataclasses.replace(program, dtype='bfloat16') for program in made]
  assert type(runtimes.named(None)(half)) is XlaRuntime and not caplog.records
  odd = [dataclasses.replace(p, forward=lambda v, x, p=p: jnp.cumsum(p.forward(v, x), 1)) for p in made]
  assert type(runtimes.named(None)(odd)) is XlaRuntime
  assert 'runs by XLA, which is slower here than ONNX Runtime: model: has the operation cumsum' in caplog.text

  def refused(*args, **options):
    raise onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented('no such kernel\nat line 1')

  monkeypatch.setattr(onnxruntime, 'InferenceSession', refused)
  assert type(runtimes.named(None)(made)) is XlaRuntime
  assert caplog.messages[-1].endswith(' (no such kernel)') and 'got onnx, which does not run' in caplog.messages[-1]


def test_xla_runs_on_several_devices(network):
  assert type(runtimes.named(None)(programs.of_network(network))) is XlaRuntime
