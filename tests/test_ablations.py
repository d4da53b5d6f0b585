"""The papers' ablations, each a config of the same loop: trained to its end, evaluated, read again."""

import functools

import jax
import numpy as np
import pytest

from configs import default
from resjax import config as configuration
from resjax import models, trained
from resjax.data import scaled_digits, sources
from resjax.resolution import branches
from resjax.training import loop


@pytest.fixture(autouse=True)
def stem(monkeypatch):
  """The small network without its stages: many programs are compiled here."""
  monkeypatch.setitem(models.MODELS, 'resnet_small', functools.partial(models.MODELS['resnet_small'], stages=()))


def tiny(**fields):
  config = default.get_config()
  config.resolutions = (16, 8)
  config.model.name = 'resnet_small'
  config.model.num_classes = 3
  config.model.width = 0.25
  config.data.source = 'fake'
  config.data.name = ''
  config.data.size = 48
  config.data.workers = 0
  config.eval.batch_size = 32
  config.batch_size = 16
  config.epochs = 1.0
  config.drnet.pretrain.epochs = 1.0
  config.drnet.predictor.size = 8
  config.drnet.predictor.width = 0.5
  config.drnet.budget = 0.9
  config.update_from_flattened_dict(fields)
  return config


def trained_with(workdir, **fields):
  results = loop.train_and_evaluate(tiny(**fields), workdir)
  return results, trained.load(workdir)


def distance(a, b):
  return max(np.abs(x - y).max() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize(
  'fields, sets',
  [
    ({'data.flip': 'independent'}, (3, 3)),
    ({'private': 'none', 'data.crops': 'different', 'data.pyramid': 'host'}, (1, 1)),
  ],
)
def test_branches_of_one_size_train_as_an_ensemble(fields, sets, tmp_path):
  results, network = trained_with(tmp_path, resolutions=(16, 16, 16), **fields)
  names = ['16', '16_2', '16_3']
  assert list(results['resolutions']) == names and network.resolutions == branches((16, 16, 16))
  assert len({row['macs'] for row in results['resolutions'].values()}) == 1
  params, statistics = network.variables['params'], network.variables['batch_stats']
  assert (len(params['private']), len(statistics)) == sets and params['alpha'].shape == (3,)
  if sets == (3, 3):  # each saw images flipped otherwise
    for one, other in (names[:2], names[1:], names[::2]):
      assert distance(params['private'][one], params['private'][other]) > 1e-6
      assert distance(statistics[one], statistics[other]) > 1e-6


@pytest.mark.parametrize('private', ['affine', 'statistics'])
def test_a_part_of_the_normalisers_alone_is_trained_apart(private, tmp_path):
  _, network = trained_with(tmp_path / 'first', private=private, distillation='without_ensemble')
  params, statistics = network.variables['params']['private'], network.variables['batch_stats']
  own, one = (params, statistics)[:: 1 if private == 'affine' else -1]
  assert set(own) == {'16', '8'} and set(one) == {'all'} and distance(own['16'], own['8']) > 1e-6
  # Another run starts from it, at a size of its own too, and from no network of another kind.
  fields = {'private': private, 'init.checkpoint': str(tmp_path / 'first'), 'resolutions': (16, 12)}
  _, later = trained_with(tmp_path / 'second', **fields)
  assert set(later.variables['batch_stats']) == ({'all'} if private == 'affine' else {'16', '12'})
  with pytest.raises(ValueError, match=rf"^config.private: got 'all', expected '{private}' as in"):
    trained_with(tmp_path / 'third', **fields | {'private': 'all'})


@pytest.mark.parametrize('estimator', ['dense', 'routed'])
def test_drnet_without_batch_norm_that_knows_resolutions(estimator, tmp_path):
  """One set for all of them: in the network that is trained first, and in what follows."""
  results, network = trained_with(
    tmp_path, method='drnet', shared_batch_norm=True, **{'drnet.estimator': estimator, 'distillation': 'none'}
  )
  first = trained.load(tmp_path / 'pretraining').variables
  for variables in (first, network.variables):
    assert set(variables['params']['private']) == set(variables['batch_stats']) - {'predictor'} == {'all'}
  assert distance(first['batch_stats']['all'], network.variables['batch_stats']['all']) > 1e-6
  assert results['routers']['predictor']['top1'] <= 1 and results['method'] == 'drnet'


def test_two_classes_of_the_digits(monkeypatch, tmp_path):
  monkeypatch.setitem(scaled_digits.SPLITS, 'test', 200)
  some = {'data.source': 'scaled_digits', 'data.eval_split': 'test', 'data.size': 200, 'data.classes': ('7', '1')}
  results, network = trained_with(tmp_path, **some, **{'model.num_classes': 2, 'class_weights': ('balanced',)})
  assert network.class_names == ('7', '1') and network.num_classes == 2
  source = sources.create(tiny(**some, **{'model.num_classes': 2}), 'test')
  assert results['resolutions']['16']['images'] == len(source) < 100


def test_an_alias_of_old_means_what_it_meant(tmp_path):
  """A run that says shared_batch_norm starts one that says private='none', and the other way round."""
  trained_with(tmp_path / 'old', shared_batch_norm=True)
  fields = {'private': 'none', 'init.checkpoint': str(tmp_path / 'old')}
  _, network = trained_with(tmp_path / 'new', **fields)
  assert set(network.variables['batch_stats']) == {'all'}
  changed = configuration.changed(configuration.to_json(tiny(private='none')), tiny(private='affine'))
  with pytest.raises(ValueError, match='holds another network'):
    configuration.check_extension(changed, 'runs/old')
