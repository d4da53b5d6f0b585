"""A network by its layers: the sums are those of macs.py and of known networks, to the last digit; outputs by hand."""

import json
import pathlib

import flax.linen as nn
import jax
import pytest

from resjax import cli, macs, models, network, recipes, trained
from resjax.measuring import summary

COUNTS = json.loads((pathlib.Path(__file__).parent / 'reference' / 'counts.json').read_text())


@pytest.mark.parametrize('name', ['resnet18', 'mobilenetv2'])
def test_the_sums_are_the_known_counts(name):
  config = recipes.make('rsnet_r18', [f'--config.model.name={name}', '--config.resolutions=(224,96)'])
  found = summary.of_config(config)
  sets = COUNTS[name]['batchnorm_params_per_set']
  assert found['total']['macs'] == {size: COUNTS[name]['macs'][size] for size in ('224', '96')}
  assert found['total']['private'] == sets and found['total']['shared'] + sets == COUNTS[name]['params']
  assert found['parameters']['all'] == COUNTS[name]['params'] + sets + 2  # and alpha
  assert 'stage2_block1/downsample_conv' in {layer['name'] for layer in found['layers']} or name == 'mobilenetv2'
  blocks = summary.of_config(config, 1)
  assert blocks['total'] == found['total'] and len(blocks['layers']) < 0.5 * len(found['layers'])
  assert {'stage2_block1', 'head'} <= {layer['name'] for layer in blocks['layers']}


def test_layers_stand_in_the_order_in_which_they_run():
  found = summary.of_config(recipes.make('quickstart'))
  names = [layer['name'] for layer in found['layers']]
  assert names[:4] == ['conv1', 'bn1', 'stage1_block1/conv1', 'stage1_block1/bn1'] and names[-1] == 'head'
  assert found['resolutions'] == ['32', '16', '8']


class Net(nn.Module):
  """Two layers that run twice, one beside them, and a product in no layer."""

  @nn.compact
  def __call__(self, images, *, train):
    conv, norm = nn.Conv(3, (3, 3), use_bias=False), nn.BatchNorm(use_running_average=not train)
    x = norm(conv(norm(conv(images))))
    return nn.Dense(5)(x.mean((1, 2))) @ jax.numpy.ones((5, 5))


def test_macs_and_outputs_by_hand(monkeypatch):
  monkeypatch.setattr(models, 'from_config', lambda config: Net())
  found = summary.of_config(recipes.make('quickstart', ['--config.resolutions=(8,)']))
  by_name = {layer['name']: layer for layer in found['layers']}
  conv, norm = by_name['Conv_0'], by_name['BatchNorm_0']
  assert conv['macs']['8'] == 2 * 64 * 81 and conv['shared'] == 81
  assert norm['private'] == 6 and conv['activations'] == norm['activations'] == {'8': 2 * 64 * 3 * 4}
  assert by_name['Dense_0'] == {
    'name': 'Dense_0', 'shared': 20, 'private': 0, 'macs': {'8': 15}, 'activations': {'8': 20},
  }  # fmt: skip
  assert by_name['']['macs']['8'] == 25 and found['total']['macs']['8'] == macs.of_model(Net(), 8)


def test_what_is_jitted_is_counted_by_its_scopes():
  model, images = models.create('resnet_small', num_classes=3), jax.ShapeDtypeStruct((1, 8, 8, 3), 'float32')
  variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
  apply = lambda v, x: model.apply(v, x, train=False)
  found = macs.by_scope(apply, variables, images)
  assert found == macs.by_scope(jax.jit(apply), variables, images) and len(found) > 5
  assert sum(found.values()) == macs.count(apply, variables, images)


@pytest.fixture(scope='module')
def imported(tmp_path_factory):
  """A workdir with a network of two sizes."""
  config = recipes.make('drnet_quickstart', ['--config.resolutions=(16,8)', '--config.drnet.predictor.size=8'])
  from resjax import drnet

  model = models.from_config(config)
  made = trained.of_config(config, drnet.init(model, config, jax.random.key(0)), ())
  workdir = tmp_path_factory.mktemp('runs') / 'run'
  trained.save(trained.Trained(made, config, 0, True), workdir)
  assert isinstance(made, network.Network)
  return workdir


def test_the_command_shows_a_workdir_and_writes_the_numbers(imported, tmp_path, capsys):
  cli.main(['summary', f'--workdir={imported}', '--depth=2', f'--json={tmp_path / "a.json"}'])
  out = capsys.readouterr().out
  found = json.loads((tmp_path / 'a.json').read_text())
  assert found == json.loads(json.dumps(summary.of_config(trained.read(imported).config, 2)))
  assert 'stage1_block1/conv1' in out and '16 px' in out and 'predictor: parameters' in out
  assert out.splitlines()[-1] == (
    f'{found["parameters"]["all"]:,} parameters: {found["total"]["shared"]:,} shared, '
    f'2 x {found["total"]["private"]:,} private, 2 of alpha, {found["parameters"]["predictor"]:,} of the predictor'
  )
  leaves = jax.tree.leaves(trained.load(imported).variables['params'])
  assert found['parameters']['all'] == sum(leaf.size for leaf in leaves)
  assert '…' not in out


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], '--config, --workdir: got neither, expected one of them'),
    (['--config=quickstart', '--workdir=x'], '--config, --workdir: got both, expected one of them'),
    (['--workdir=x', '--config.epochs=3'], '--config.epochs=3: got a field with --workdir'),
    (['--config=quickstart', '--json=none/a.json'], 'none/a.json: no folder'),
    (['--workdir=none'], 'no checkpoints in none, expected the workdir of a run'),
  ],
)
def test_what_is_wrong_is_one_line(arguments, message):
  with pytest.raises(SystemExit, match=f'^error: {message}'):
    cli.main(['summary', *arguments])
