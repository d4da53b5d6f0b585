"""Weights and answers that are no numbers: named where a network is taken, an error in the row of an image."""

import dataclasses

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch_models
from networks import tiny

from resjax import finite, trained
from resjax.exporting import bundle
from resjax.inference import Classifier, predictions
from resjax.inference.images import Chunk
from resjax.interop import importing
from resjax.measuring import evaluation
from resjax.preprocess import Preprocessing
from resjax.recipes import default
from resjax.routing import Routed
from resjax.trained import Trained


def spoilt(network, *path, value=np.nan):
  """The network with one value of one array changed."""
  variables = jax.tree.map(np.array, network.variables)
  array = variables
  for name in path:
    array = array[name]
  array.reshape(-1)[1] = value
  return network.replace(variables=variables)


PLACES = [
  ('params/shared/conv1/kernel', np.nan),
  ('params/private/8/bn1/scale', np.inf),
  ('batch_stats/16/bn1/var', -np.inf),
  ('params/alpha', np.nan),
]


@pytest.mark.parametrize(('place', 'value'), PLACES)
def test_a_network_made_by_hand_is_refused_where_it_is_run(place, value):
  network = spoilt(tiny(), *place.split('/'), value=value)
  for use in (
    lambda: Classifier(network, max_batch=2).predict(np.zeros((1, 16, 16, 3), np.uint8)),
    lambda: evaluation.evaluate(network, Images([np.zeros((16, 16, 3), np.uint8)])),
  ):
    with pytest.raises(ValueError, match=f'^variables: {place} holds 1 of [0-9,]+ values that are not finite, such as'):
      use()


def test_a_predictor_too(tmp_path):
  network = tiny('drnet')
  (name, *_) = network.variables['batch_stats']['predictor']
  network = spoilt(network, 'batch_stats', 'predictor', name, 'mean')
  with pytest.raises(ValueError, match=f'^variables: batch_stats/predictor/{name}/mean holds 1 of'):
    bundle.write(network, tmp_path / 'bundle')


def test_a_checkpoint_is_refused_by_name(tmp_path):
  config = default.get_config()
  config.resolutions, config.model.name, config.model.num_classes, config.model.width = (16, 8), 'resnet_small', 5, 0.25
  made = trained.of_config(config, jax.tree.map(np.array, variables_of(config)))
  trained.save(Trained(made, config, 0, True), tmp_path / 'good')
  assert trained.load(tmp_path / 'good').num_classes == 5
  trained.save(Trained(spoilt(made, 'params', 'shared', 'head', 'bias'), config, 0, True), tmp_path / 'bad')
  with pytest.raises(
    ValueError, match=r'/bad, step 0: params/shared/head/bias holds 1 of 5 values that are not finite'
  ):
    trained.load(tmp_path / 'bad')


def variables_of(config):
  from resjax import models, rsnet

  return rsnet.init(models.from_config(config), config, jax.random.key(0))


def test_an_imported_tensor_is_refused_by_its_own_name(tmp_path):
  tensors = {name: value.numpy() for name, value in torch_models.create('resnet18', 3).state_dict().items()}
  tensors['layer2.0.bn1.running_var'][5] = np.inf
  safetensors.numpy.save_file(tensors, tmp_path / 'weights.safetensors')
  with pytest.raises(ValueError, match=r'layer2\.0\.bn1\.running_var holds 1 of 128 values .*, such as inf, expected'):
    importing.read(tmp_path / 'weights.safetensors', 'resnet18')


def test_integers_and_keys_are_passed_over_and_a_small_float_is_looked_at():
  finite.check({'count': np.array([3]), 'key': jax.random.key(0), 'half': jax.numpy.ones(2, 'bfloat16')}, 'x')
  with pytest.raises(ValueError, match='^x: half holds 2 of 2 values .*, such as nan'):
    finite.check({'half': jax.numpy.full(2, np.nan, 'bfloat16')}, 'x')


class Images:
  """Arrays with labels, as a source."""

  class_names, num_classes, needed = tuple('abcde'), 5, None

  def __init__(self, images):
    self.images = images

  def __len__(self):
    return len(self.images)

  def __getitem__(self, index):
    return {'image': self.images[index], 'label': 0}

  def name_of(self, index):
    return str(index)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_an_image_without_an_answer_says_so_and_the_others_go_on(value):
  logits = np.zeros((3, 5), np.float32)
  logits[0, 2] = logits[1, 4] = logits[2, 1] = 1
  logits[1, 3] = value
  chunk = Chunk(['a', 'gone', 'b', 'c'], [None, 'no file', None, None], np.zeros((3, 16, 16, 3), np.uint8))
  routed = Routed(logits, np.zeros(3, int), np.ones(3))
  found = list(predictions.predictions([chunk], (16,), lambda crops: routed, 'vwxyz'))
  assert [p.class_index for p in found] == [2, None, None, 1]
  assert [p.error for p in found] == [None, 'no file', f'the network answers {value} at 16 px, expected numbers', None]
  assert dataclasses.replace(found[2], image='', error=None) == predictions.Prediction('')


def test_a_logit_of_minus_infinity_is_an_answer():
  routed = Routed(np.array([[-np.inf, 0.0]], np.float32), np.zeros(1, int), np.ones(1))
  chunk = Chunk(['a'], [None], np.zeros((1, 16, 16, 3), np.uint8))
  (found,) = predictions.predictions([chunk], (16,), lambda crops: routed, 'ab', 2)
  assert found.class_index == 1 and found.probability == 1 and found.top[1].probability == 0


def test_evaluation_counts_images_without_an_answer_as_unreadable():
  """A bright image overflows: weights that are finite, and huge."""
  network = tiny(noise=0.0)
  variables = jax.tree.map(np.array, network.variables)
  variables['params']['shared']['conv1']['kernel'] *= 1e38
  for one in variables['params']['private'].values():
    one['bn1']['scale'] *= 1e20
  huge = network.replace(variables=variables, preprocessing=Preprocessing('unit'))
  images = [np.full((16, 16, 3), value, np.uint8) for value in (0, 255, 0)]
  found = evaluation.evaluate(huge, Images(images))
  assert found.images == ('0', '2') and len(found.ranks) == 2 and np.isfinite(found.odds).all()
  assert found.unreadable == (('1', 'the network gives no numbers for it'),)
  with pytest.raises(ValueError, match='images: the network gives no numbers for any of 1, expected some to score'):
    evaluation.evaluate(huge, Images(images[1:2]))


def test_an_ensemble_of_another_number_of_sizes_is_refused():
  network = tiny()
  variables = jax.tree.map(np.array, network.variables)
  variables['params']['alpha'] = np.ones(3, np.float32)
  with pytest.raises(ValueError, match=r'^variables: alpha \(3,\), expected \(2,\): one weight of the ensemble'):
    network.replace(variables=variables)
  assert network.at(8)[0].resolutions == (8,)
