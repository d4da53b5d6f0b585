"""How images are prepared goes from a network to the runs that start from it, unless their config says otherwise."""

import json
import shutil

import jax
import jax.numpy as jnp
import pytest

from configs import default
from resjax import cli, models, recipes, switchable, trained
from resjax import config as configuration
from resjax.training.loop import train_and_evaluate

pytestmark = pytest.mark.usefixtures('shallow')

PAIR = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
THERE = {'data.normalize': PAIR, 'eval.interpolation': 'bicubic', 'eval.crop_fraction': 0.95}
OPEN = {'data.normalize': '', 'eval.interpolation': '', 'eval.crop_fraction': 0.0}
USUAL = {'data.normalize': 'imagenet', 'eval.interpolation': 'bilinear', 'eval.crop_fraction': 0.875}


def tiny(**fields):
  config = default.get_config()
  config.resolutions = (16, 8)
  config.model.name, config.model.num_classes, config.model.width = 'resnet_small', 3, 0.25
  config.data.source, config.data.name, config.data.size = 'fake', '', 16
  config.batch_size, config.eval.batch_size, config.epochs = 8, 16, 0.5
  config.optimizer.learning_rate = 0.01
  with config.ignore_type():
    config.update_from_flattened_dict(fields)
  return config


def of(config):
  flat = configuration.flatten(config)
  return {field: flat[field] for field in THERE}


@pytest.fixture(scope='module')
def begin(shallow, tmp_path_factory):
  """The workdir of an imported network."""
  config, workdir = tiny(**THERE), tmp_path_factory.mktemp('runs') / 'begin'
  plain = models.from_config(config).init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), train=False)
  network = trained.of_config(config, switchable.share(plain, (16, 8)))
  network.variables['params']['alpha'] = jnp.ones(2)
  trained.save(trained.Trained(network, config, 0, True, {'source': 'a.pth'}), workdir)
  return workdir


def test_what_a_config_leaves_open_is_as_the_start_has_it(begin):
  start = {'init.checkpoint': str(begin)}
  assert of(configuration.settled(tiny(**OPEN, **start))) == THERE
  assert of(configuration.settled(tiny(**OPEN, **{'drnet.checkpoint': str(begin)}))) == THERE
  some = OPEN | {'eval.interpolation': 'bilinear', 'data.normalize': 'signed'}
  expected = {'data.normalize': 'signed', 'eval.interpolation': 'bilinear', 'eval.crop_fraction': 0.95}
  assert of(configuration.settled(tiny(**some, **start))) == expected
  assert of(configuration.settled(tiny(**OPEN))) == of(configuration.filled(tiny(**OPEN, **start))) == USUAL
  with pytest.raises(FileNotFoundError, match=r'^config\.init\.checkpoint: no checkpoints in /nowhere, expected'):
    configuration.settled(tiny(**OPEN, **{'init.checkpoint': '/nowhere'}))
  untouched = tiny(**{'init.checkpoint': '/nowhere'})
  assert configuration.settled(untouched) is untouched


def test_a_run_has_it_and_goes_on_with_it_where_the_start_is_gone(begin, tmp_path, capsys):
  start = shutil.copytree(begin, tmp_path / 'start')
  config, workdir = tiny(**OPEN, **{'init.checkpoint': str(start)}), tmp_path / 'run'
  train_and_evaluate(config, workdir)
  assert "config.eval.interpolation is 'bicubic', as there; config.eval.crop_fraction is 0.95, as there" in (
    capsys.readouterr().out
  )
  preprocessing = trained.load(workdir).preprocessing
  assert preprocessing.normalize == PAIR
  assert (preprocessing.interpolation, preprocessing.crop_fraction) == ('bicubic', 0.95)
  stored = json.loads((workdir / 'results.json').read_text())['config']
  assert stored['eval']['crop_fraction'] == 0.95 and stored['data']['normalize'] == json.loads(json.dumps(PAIR))
  assert configuration.flatten(config)['eval.crop_fraction'] == 0  # the caller's is as it was
  shutil.rmtree(start)
  train_and_evaluate(config, workdir)
  assert 'holds this run, finished' in capsys.readouterr().out
  longer = tiny(**OPEN, **{'init.checkpoint': str(start), 'epochs': 1.0})
  train_and_evaluate(longer, workdir, extend=True)
  assert trained.load(workdir).preprocessing == preprocessing


def test_the_recipes_that_start_from_a_network_leave_it_open():
  for recipe in ('finetune', 'retarget', 'retarget:private'):
    assert of(recipes.make(recipe)) == OPEN
    configuration.validate(recipes.make(recipe))
    with pytest.raises(ValueError, match=r"^config\.eval\.interpolation: got '', expected one of bilinear, bicubic$"):
      configuration.validate(recipes.make(recipe), settled=True)


def test_a_dry_run_shows_it(begin, tmp_path, capsys):
  command = ['train', '--config=finetune', f'--workdir={tmp_path}', '--dry-run', '--config.eval.crop_fraction=0.5']
  cli.main([*command, f'--config.init.checkpoint={begin}'])
  lines = {line.split(' = ')[0]: line.split(' = ')[1] for line in capsys.readouterr().out.splitlines() if ' = ' in line}
  assert lines['config.data.normalize'].split('  # ') == [f'{PAIR!r}', "default 'imagenet'"]
  assert ' '.join(lines['config.eval.interpolation'].split()) == "'bicubic' # default 'bilinear'"
  assert 'set here' in lines['config.eval.crop_fraction']
  cli.main([*command, f'--config.init.checkpoint={tmp_path}/none'])
  assert "config.eval.interpolation = ''" in capsys.readouterr().out


def test_what_only_measures_takes_the_usual(capsys):
  cli.main(['summary', '--config=finetune', '--config.resolutions=(64, 32)'])
  assert 'parameters' in capsys.readouterr().out
