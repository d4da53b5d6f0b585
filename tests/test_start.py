"""A run that starts from another network: what is taken, what is new, what stays as it is, and at which rates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict
from own_models import Full

import resjax
from configs import default
from resjax import config as configuration
from resjax import models, rsnet, switchable, trained
from resjax.apply import rematerialised
from resjax.apply import run as apply
from resjax.resolution import Branch
from resjax.training import freezing, loop, optimizer, run
from resjax.training.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures('shallow')


def tiny(**fields):
  config = default.get_config()
  config.resolutions = (16, 8)
  config.model.name = 'resnet_small'
  config.model.num_classes = 3
  config.model.width = 0.25
  config.data.source, config.data.name, config.data.size = 'fake', '', 40
  config.batch_size, config.eval.batch_size, config.epochs = 8, 16, 0.5
  config.optimizer.learning_rate = 0.01
  config.update_from_flattened_dict(fields)
  return config


def flat(tree):
  return {name: np.asarray(leaf) for name, leaf in flatten_dict(tree, sep='/').items()}


@pytest.fixture(scope='module')
def other(shallow, tmp_path_factory):
  """The workdir of a network of sizes 24 and 8, stopped in the middle; its parameters and statistics, by path."""
  config = tiny(resolutions=(24, 8))
  workdir = tmp_path_factory.mktemp('runs') / 'other'
  rng = np.random.default_rng(0)
  moved = lambda tree: jax.tree.map(lambda x: np.asarray(x + rng.uniform(0, 0.1, x.shape), np.float32), tree)
  state = run.build(config).fresh_state()
  state = state.replace(step=state.step + 4, params=moved(state.params), batch_stats=moved(state.batch_stats))
  with Checkpoints(workdir) as checkpoints:
    checkpoints.save(state, {'config': configuration.to_json(config), 'train_seconds': 1.0, 'finished': False}, None)
  return workdir, flat(state.params), flat(state.batch_stats)


def begun(workdir, **fields):
  """The state before the first step, by path, of a run that starts from a workdir."""
  config = tiny(**{'init.checkpoint': str(workdir)}, **fields)
  configuration.validate(config)
  parts = run.build(config)
  begin = rsnet.backbone(config, None)
  state = loop.backbone.start(parts.fresh_state, config, begin, parts.devices)
  return flat(state.params), flat(state.batch_stats), flat(parts.fresh_state().params)


def test_a_network_is_taken_and_a_size_that_it_has_not_begins_from_the_nearest(other, capsys):
  _, params, statistics = other
  taken, taken_statistics, fresh = begun(other[0])
  for name, value in taken.items():
    there = name.replace('private/16/', 'private/24/')  # 16 is as near to 24 as to 8: the larger
    np.testing.assert_array_equal(value, fresh[name] if name == 'alpha' else params[there], err_msg=name)
  for name, value in taken_statistics.items():
    np.testing.assert_array_equal(value, statistics[name.replace('16/', '24/')], err_msg=name)
  assert f'Starting from {other[0]}; 16 px: BatchNorm of 24 px' in capsys.readouterr().out


def test_alpha_of_the_sizes_that_both_have_belongs_to_all(other):
  taken = begun(other[0], **{'init.what': 'all'})[0]
  np.testing.assert_array_equal(taken['alpha'], [1.0, other[1]['alpha'][1]])


def test_the_weights_alone(other):
  taken, statistics, fresh = begun(other[0], **{'init.what': 'shared'})
  for name, value in taken.items():
    np.testing.assert_array_equal(value, other[1][name] if name.startswith('shared/') else fresh[name], err_msg=name)
  assert {name.split('/')[0] for name in statistics} == {'16', '8'}
  assert all((value == (1 if name.endswith('var') else 0)).all() for name, value in statistics.items())


def test_a_head_of_other_classes_is_new_and_that_is_said(other, capsys):
  taken, _, fresh = begun(other[0], **{'model.num_classes': 5})
  new = [name for name in taken if name.startswith('shared/head/')]
  assert new and all((taken[name] == fresh[name]).all() for name in new)
  np.testing.assert_array_equal(taken['shared/conv1/kernel'], other[1]['shared/conv1/kernel'])
  assert 'new for 5 classes: shared/head/bias, shared/head/kernel' in capsys.readouterr().out


def test_another_evaluation_than_the_networks_own_is_said(other, capsys):
  begun(other[0])
  assert 'config.eval' not in capsys.readouterr().out
  begun(other[0], **{'eval.crop_fraction': 0.95, 'eval.interpolation': 'bicubic'})
  out = capsys.readouterr().out
  assert "config.eval.interpolation is 'bicubic' here, and was 'bilinear' there" in out
  assert 'config.eval.crop_fraction is 0.95 here, and was 0.875 there' in out


def test_a_head_that_is_kept_for_classes_of_other_names_is_said(other, capsys):
  config = tiny(**{'init.checkpoint': str(other[0])})
  parts = run.build(config)
  for names, said in (
    (('0', 'cat', 'dog'), "classes have other names: 1 is 'cat' here, and was '1' there"),
    ('012', None),
  ):
    loop.backbone.start(parts.fresh_state, config, rsnet.backbone(config, None), parts.devices, names)
    out = capsys.readouterr().out
    assert said in out if said else 'names' not in out


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'model.width': 0.5}, r'^config.model.width: got 0.5, expected 0.25 as in '),
    ({'data.normalize': 'unit'}, r"^config.data.normalize: got 'unit', expected 'imagenet' as in "),
    ({'init.what': 'some'}, r"^config.init.what: got 'some', expected one of all, network, shared$"),
    ({'optimizer.rates': (('head/*',),)}, r"^config.optimizer.rates: got \('head/\*',\), expected pairs such as "),
    ({'optimizer.rates': (('head/*', -1.0),)}, r'^config.optimizer.rates: got .*, expected pairs such as '),
    ({'optimizer.rates': (('hat/*', 0.1),)}, r"^config.optimizer.rates: got 'hat/\*', expected a pattern of some"),
    (
      {'optimizer.freeze': ('hat/*',)},
      r"^config.optimizer.freeze: got 'hat/\*', expected a pattern of some parameters",
    ),
    (
      {'optimizer.freeze': (3,)},
      r"^config.optimizer.freeze: got 3, expected patterns of parameters such as 'stage1_\*'$",
    ),
    (
      {'optimizer.freeze': ('*',)},
      r"^config.optimizer: freeze and rates, '\*', leave no parameter to learn, expected some",
    ),
    (
      {'model.num_classes': 5, 'optimizer.freeze': ('shared/*',)},
      r'^config.optimizer: freeze, or rates of 0, hold shared/head/bias, shared/head/kernel, new for 5 classes: ex',
    ),
    (
      {'model.num_classes': 5, 'optimizer.rates': (('head/kernel', 0.0),)},
      r'^config.optimizer: freeze, or rates of 0, hold shared/head/kernel, new for 5 classes',
    ),
    ({'method': 'drnet', 'optimizer.freeze': ('head/*',), 'drnet.predictor.size': 8}, r'^config.optimizer.freeze: got'),
    ({'method': 'drnet', 'drnet.start': 'scratch', 'drnet.predictor.size': 8}, r'^config.init.checkpoint: got .* with'),
    ({'method': 'drnet', 'optimizer.rates': (('head/*', 0.1),), 'drnet.predictor.size': 8}, r'^config.optimizer.rates'),
  ],
)
def test_what_does_not_fit_is_refused_in_one_line(other, fields, message):
  with pytest.raises(ValueError, match=message) as error:
    begun(other[0], **fields)
  assert '\n' not in str(error.value)


def test_what_is_not_there_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'^config.init.checkpoint: no checkpoints in .*, expected the workdir'):
    begun(tmp_path / 'nowhere')


def test_rates_of_parameters_by_their_paths():
  """Of plain SGD one update is the rate times the gradient: factors show exactly; the first pattern wins."""
  rates = (('head/bias', 4.0), ('head/*', 2.0), ('*bn1/*', 0.0))
  config = tiny(**{'optimizer.rates': rates, 'optimizer.schedule': 'constant', 'optimizer.weight_decay': 0.5})
  config.optimizer.momentum = 0.0
  config.optimizer.decay = 'all'
  model = models.from_config(config)
  params = jax.jit(lambda key: rsnet.init(model, config, key))(jax.random.key(0))['params']
  tx = optimizer.create(config, 1, 10)
  updates, _ = jax.jit(lambda p: tx.update(jax.tree.map(jnp.ones_like, p), tx.init(p), p))(params)
  before = flat(params)
  for name, update in flat(updates).items():
    factor = 4.0 if name.endswith('head/bias') else 2.0 if '/head/' in name else 0.0 if '/bn1/' in name else 1.0
    np.testing.assert_allclose(update, -0.01 * factor * (1 + 0.5 * before[name]), rtol=1e-5, err_msg=name)
    assert (factor == 0.0) == (not update.any())
  assert freezing.plain_path(('private', '16', 'bn1', 'scale')) == 'bn1/scale'
  assert freezing.plain_path(('alpha',)) == 'alpha'


@pytest.mark.parametrize('memory', ['joint', 'two_pass'])
def test_what_is_frozen_stays_bit_for_bit_with_its_statistics(other, tmp_path, memory):
  frozen = ('conv1/*', 'bn1/*', 'stage1_block1/*')
  rates = ((frozen[0], 0.0), ('bn1/*', 1.0))  # of both fields `freeze` comes first
  fields = {'optimizer.rates': rates, 'optimizer.freeze': frozen[1:]}
  config = tiny(**{'init.checkpoint': str(other[0]), 'memory': memory} | fields)
  loop.train_and_evaluate(config, tmp_path)
  after = trained.load(tmp_path).variables
  before, before_statistics, _ = begun(other[0])
  for name, value in flat(after['params']).items():
    path = freezing.plain_path(name.split('/'))
    stays = any(path.startswith(pattern[:-1]) for pattern in frozen)
    assert stays == bool((value == before[name]).all()), name
  for name, value in flat(after['batch_stats']).items():
    stays = any(name.split('/', 1)[1].startswith(p[:-1]) for p in frozen)
    assert stays == bool((value == before_statistics[name]).all()), name


@pytest.mark.parametrize('pattern', ['private/16/*', 'private/16_2/*', 'private/16x0.5_2/*'])
@pytest.mark.parametrize('remat', ['none', 'all'])
def test_of_branches_of_one_size_the_one_that_a_pattern_names_is_frozen(pattern, remat):
  model, branches = Full(num_classes=3), (16, Branch(16, 2), Branch(16, width=0.5), Branch(16, 2, 0.5))
  images = [jnp.asarray(np.random.default_rng(0).normal(size=(4, 16, 16, 3)), jnp.float32)] * 4
  plain = model.init(jax.random.key(0), images[0], train=False)
  variables = switchable.share(plain, branches, model=model)
  network = rematerialised(freezing.frozen(model, ((pattern, 0.0),)), remat)
  _, after = jax.jit(lambda: switchable.forward(network, variables, images, branches, train=True))()
  same = {
    key: jax.tree.all(jax.tree.map(np.array_equal, after[key], of)) for key, of in variables['batch_stats'].items()
  }
  assert same == {key: pattern == f'private/{key}/*' for key in ('16', '16_2', '16x0.5', '16x0.5_2')}


class Foreign(nn.Module):
  """Two of flax's own normalisers: one told in its constructor how to run, one when it is called."""

  @nn.compact
  def __call__(self, images, *, train):
    x = nn.BatchNorm(use_running_average=not train, name='told')(images)
    x = nn.BatchNorm(name='called')(nn.Conv(4, (3, 3), name='look')(x), use_running_average=not train)
    return nn.Dense(3, name='head')(x.mean((1, 2)))


@pytest.mark.parametrize('network', ['ours', 'foreign'])
def test_a_frozen_normaliser_runs_as_at_evaluation(network):
  """Where all are frozen, training's logits are evaluation's; where none is, the model is returned as it is."""
  ours = functools.partial(models.create, 'resnet_small', num_classes=3, width=0.25)
  model = ours() if network == 'ours' else Foreign()
  images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 16, 16, 3)), jnp.float32)
  variables = model.init(jax.random.key(0), images, train=False)
  both = jax.jit(lambda frozen: apply(freezing.frozen(model, frozen), variables, images, True), static_argnums=0)
  logits, after = both((('*', 0.0),))
  expected = jax.jit(lambda: model.apply(variables, images, train=False))()
  np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)  # the same sums, fused otherwise
  jax.tree.map(np.testing.assert_array_equal, after, variables)
  assert freezing.frozen(model, (('head/*', 0.5),)) is model
  part, changed = both((('told/*' if network == 'foreign' else 'bn1/*', 0.0),))
  assert np.abs(part - expected).max() > 1e-3
  stays = {name.split('/')[0] for name, value in flat(changed['batch_stats']).items()
           if (value == flat(variables['batch_stats'])[name]).all()}  # fmt: skip
  assert stays == {'told' if network == 'foreign' else 'bn1'}
  assert resjax.share(variables, (16, 8))['params']['private'].keys() == {'16', '8'}
