"""A network as a value: what it refuses, its costs and digest, other sizes; one made by hand of a foreign model."""

import tarfile
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from flax import linen as nn

from resjax import macs, switchable, trained
from resjax.data.sources import FakeSource
from resjax.inference import Classifier
from resjax.measuring import study
from resjax.network import Network, digest_of
from resjax.preprocess import Preprocessing

ARCHIVE = Path(__file__).parent / 'stored' / '0.1.0.tar.gz'


@pytest.fixture(scope='module')
def network():
  return networks.tiny('drnet')


def test_a_network_has_a_name_for_every_class(network):
  assert network.num_classes == 5
  assert network.replace(class_names=['a', 'b']).class_names == ('a', 'b', '2', '3', '4')
  assert network.replace(class_names=()).class_names == tuple('01234')
  assert network.replace(resolutions=[16, 8]).resolutions == (16, 8)


class Shapeless(nn.Module):
  def __call__(self, images, train):
    return jnp.zeros(5)


def test_a_network_is_shown_without_its_weights(network):
  assert len(repr(network)) < 2000 and 'ResNet(' in repr(network) and 'Array' not in repr(network)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'resolutions': ()}, r'^resolutions: got \(\), expected one or more, the highest first$'),
    ({'resolutions': (8, 16)}, r'^resolutions: got \(8, 16\), expected one or more, the highest first$'),
    ({'resolutions': (16, 16)}, r'^resolutions: got \(16, 16\), expected one or more, the highest first$'),
    ({'resolutions': (16, 0)}, 'expected a positive integer'),
    ({'resolutions': (16, 12)}, '^resolution: got 12, expected one of 16, 8$'),
    ({'resolutions': 16}, '^resolutions: got 16, expected a tuple$'),
    ({'class_names': 'ab'}, "^class_names: got 'ab', expected a tuple$"),
    ({'preprocessing': 'unit'}, "^preprocessing: got 'unit', expected a resjax.Preprocessing$"),
    (
      {'model': None},
      r"^model: NoneType fails at images \(1, 16, 16, 3\) .TypeError: 'NoneType' object is not callable.$",
    ),
    ({'model': nn.Dense(5)}, r'^model: Dense fails at images .* unexpected keyword argument .train.'),
    (
      {'model': Shapeless()},
      r'^model: Shapeless gives \(5,\) for images \(1, 16, 16, 3\), expected logits .1, classes.$',
    ),
    ({'class_names': tuple('abcdef')}, '^class_names: got 6, expected 5, one for each logit$'),
    ({'resolutions': (16,)}, '^predictor: got one of 2 scores, expected 1: one a resolution$'),
  ],
)
def test_what_is_wrong_is_named_in_one_line(network, fields, message):
  with pytest.raises(ValueError, match=message) as error:
    network.replace(**fields)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('kinds', [('params',), ('batch_stats',), ('params', 'batch_stats')])
def test_a_predictor_needs_its_variables(network, kinds):
  variables = dict(network.variables)
  for kind in kinds:
    variables[kind] = {name: tree for name, tree in variables[kind].items() if name != 'predictor'}
  with pytest.raises(
    ValueError, match=f"^variables: no 'predictor' in {' and '.join(kinds)}, expected the predictor's"
  ):
    network.replace(variables=variables)


@pytest.mark.parametrize(
  ('logits', 'message'),
  [
    (lambda x: x.reshape(1, -1) @ jnp.ones((768, 5)), r'^model: function fails at images .1, 8, 8, 3. .TypeError: '),
    (lambda x: x[:, :, 0, 0], '^model: gives 8 logits at 8 px, expected 16 as at the highest$'),
  ],
)
def test_a_model_that_takes_one_size_alone_is_refused(network, logits, message):
  apply = lambda variables, images, train: (logits(images), variables)
  with pytest.raises(ValueError, match=message) as error:
    Network(apply, network.variables, (16, 8))
  assert '\n' not in str(error.value)


def test_a_tree_without_batch_norm_has_no_place_for_a_predictor(network):
  apply = lambda variables, images, train: (images.mean((1, 2)) * variables['w'], variables)
  tree = switchable.share({'w': np.ones((1, 3))}, (16, 8), private=lambda path, leaf: True)
  with pytest.raises(
    ValueError, match="^variables: no 'predictor' in params and batch_stats, expected the predictor's"
  ):
    network.replace(model=apply, variables=tree, class_names=())


def test_costs_are_those_of_the_model(network):
  assert network.macs == tuple(macs.of_model(network.model, r) for r in (16, 8))


def test_the_digest_is_of_every_value_and_name(network):
  again = network.replace(variables=jax.tree.map(jnp.asarray, network.variables), class_names=())
  assert again.digest == network.digest == digest_of(network.variables) != digest_of(network.variables, 'other')
  changed = jax.tree.map(np.array, network.variables)
  changed['batch_stats']['8']['bn1']['mean'][0] += 1e-6
  renamed = network.variables | {'batch_stats': {**network.variables['batch_stats'], '9': {}}}
  assert network.replace(variables=changed).digest != network.digest
  assert digest_of({'a': np.ones(2)}) != digest_of({'b': np.ones(2)})
  assert network.replace(variables=renamed).digest == network.digest  # no value is there


def test_the_digest_is_the_one_that_version_0_1_wrote(tmp_path):
  with tarfile.open(ARCHIVE) as archive:
    archive.extractall(tmp_path, filter='data')
  workdir = tmp_path / '0.1.0' / 'drnet'
  with np.load(workdir / 'dial.npz') as file:
    assert trained.load(workdir).digest == str(file['network'])


def test_the_digest_is_also_of_random_keys():
  """Which the state of an NNX module with Dropout holds."""
  one, two = ({'key': jax.random.key(seed), 'count': np.uint32(3), 'rate': 0.5} for seed in (0, 1))
  assert digest_of(one) == digest_of(dict(one)) != digest_of(two)


def test_another_dtype_leaves_the_variables(network):
  rounded = network.with_dtype('bfloat16')
  assert rounded.model.dtype == 'bfloat16' and network.model.dtype == 'float32'
  assert rounded.variables is network.variables and network.with_dtype(None) is network
  with pytest.raises(ValueError, match=r"^dtype: got 'float64', expected 'float32' or 'bfloat16'$"):
    network.with_dtype('float64')


@pytest.mark.parametrize('resolution', [8, 12, (8, 16)])
def test_one_size_alone_trained_or_not(network, resolution):
  alone, note = network.at(resolution)
  assert alone.resolutions == (resolution,) and alone.predictor is None and alone.class_names == network.class_names
  assert switchable.key_of(resolution) in alone.variables['batch_stats'] and note
  if resolution == 8:
    jax.tree.map(np.testing.assert_array_equal, alone.view(8), network.view(8))


def test_the_nearest_normalisers_or_those_between(network):
  nearest, between = network.at(14, 'nearest')[0], network.at(14)[0]
  jax.tree.map(np.testing.assert_array_equal, nearest.view(14), network.view(16))
  assert (nearest.view(14)['batch_stats']['bn1']['mean'] != between.view(14)['batch_stats']['bn1']['mean']).all()


# --- a network made by hand, of a model that knows nothing of this library ---


class Foreign(nn.Module):
  """A user's own: no dtype, modules named by Flax, an integer head."""

  @nn.compact
  def __call__(self, images, train):
    x = images
    for features in (4, 8):
      x = nn.Conv(features, (3, 3), strides=2, use_bias=False)(x)
      x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    return nn.Dense(5)(x.mean((1, 2)))


class Source(FakeSource):
  needed = None


@pytest.fixture(scope='module')
def foreign():
  model = Foreign()
  plain = jax.jit(lambda key: model.init(key, jnp.zeros((1, 16, 16, 3)), train=False))(jax.random.key(0))
  rng = np.random.default_rng(0)
  wide = switchable.share(plain, (16, 8))
  wide = jax.tree.map(lambda x: np.asarray(x) + rng.uniform(-0.5, 0.5, x.shape).astype(np.float32), wide)
  return Network(model, wide, (16, 8), Preprocessing('signed', crop_fraction=1.0), ('a', 'b'))


@pytest.fixture(scope='module')
def classifier(foreign):
  return Classifier(foreign, max_batch=8, threads=2, promote=False)


def photographs(count=40):
  rng = np.random.default_rng(1)
  return [rng.integers(0, rng.integers(20, 256), (20, 24, 3), np.uint8) for _ in range(count)]


def test_a_foreign_network_is_classified(foreign, classifier):
  images = np.random.default_rng(2).integers(0, 256, (5, 16, 16, 3), np.uint8)
  logits = foreign.model.apply(foreign.view(16), (images / 255 - 0.5) / 0.5, train=False)
  found = classifier.predict(images)
  assert [p.class_index for p in found] == np.asarray(logits).argmax(1).tolist()
  assert {(p.resolution, p.macs) for p in found} == {(16, foreign.macs[0])}
  assert {p.label for p in found} <= {'a', 'b', '2', '3', '4'}
  np.testing.assert_allclose([p.probability for p in found], jax.nn.softmax(logits).max(1), rtol=0, atol=1e-5)
  with pytest.raises(ValueError, match=r"^dtype: got 'bfloat16', expected none: Foreign has no attribute dtype$"):
    Classifier(foreign, dtype='bfloat16')


@pytest.mark.parametrize('name', ['cascade', 'detail', 'random'])
def test_a_foreign_network_is_routed(foreign, classifier, name):
  assert classifier.engines.routers == ('cascade', 'detail', 'random')
  classifier.calibrate(photographs())
  found = classifier.predict(photographs(), router=name, budget=0.6)
  assert {p.resolution for p in found} == {16, 8}
  slack = 0.15 if name == 'random' else 0.04  # 40 draws of two resolutions; else one image
  assert np.mean([p.macs for p in found]) == pytest.approx(0.6 * foreign.macs[0], abs=slack * foreign.macs[0])


def test_a_foreign_network_is_studied(foreign, classifier):
  source = Source('test', 40, 5, 16)
  found, pictures = study.study(classifier, source, rounds=1)
  assert [(e['pixels'], e['macs']) for e in found['resolutions']] == list(zip((16, 8), foreign.macs))
  assert set(found['curves']) == {'static', 'cascade', 'detail', 'random', 'oracle'}
  assert found['setting']['router'] == 'cascade' and found['setting']['how'] == 'budget 0.5'
  assert pictures and {p.shape for p in pictures.values()} == {(16, 16, 3)}


def test_a_model_that_is_no_flax_module_is_taken_at_its_word(foreign):
  """All that is asked of a model is `apply(view, images, train=False)`."""
  class_of = SimpleNamespace(apply=lambda view, images, train: foreign.model.apply(view, images, train=train))
  wrapped = foreign.replace(model=class_of)
  assert wrapped.macs == foreign.macs and wrapped.num_classes == 5


def test_the_classes_of_a_network_that_was_checked_are_known(monkeypatch):
  made = networks.tiny()
  monkeypatch.setattr(Network, '_traced', None)  # traces the network
  assert made.num_classes == 5
