"""DRNet's three beginnings, run from start to result; what cannot be a beginning is refused."""

import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs import default
from resjax import config as configuration
from resjax import drnet, report
from resjax.rsnet import Start
from resjax.training import backbone, loop, run
from resjax.training.checkpoints import Checkpoints
from resjax.training.devices import Devices

pytestmark = pytest.mark.usefixtures('shallow')


def tiny(**fields):
  """A few steps of a small network on random images."""
  config = default.get_config()
  config.method = 'drnet'
  config.resolutions = (16, 8)
  config.model.name = 'resnet_small'
  config.model.num_classes = 3
  config.model.width = 0.25
  config.data.source = 'fake'
  config.data.name = ''
  config.data.size = 70
  config.eval.batch_size = 32
  config.batch_size = 16
  config.epochs = 1.0
  config.log_steps = 2
  config.checkpoint.every_epochs = 0.5
  config.drnet.predictor.size = 8
  config.drnet.predictor.width = 0.5
  config.drnet.pretrain.epochs = 0.5
  config.update_from_flattened_dict(fields)
  return config


def saved(workdir, config):
  """The last state of a run, by name."""
  parts = run.build(config)
  with Checkpoints(workdir) as checkpoints:
    state = jax.device_get(checkpoints.restore(parts.state_shapes()))
  return {kind: flatten_dict(getattr(state, kind), sep='/') for kind in ('params', 'batch_stats')}


@pytest.fixture(scope='module')
def network(shallow, tmp_path_factory):
  """A checkpoint of an RS-Net at three resolutions, with averaged parameters; what it holds, by name."""
  config = tiny(method='rsnet', resolutions=(16, 12, 8), **{'optimizer.ema_decay': 0.5})
  workdir = tmp_path_factory.mktemp('runs') / 'rsnet'
  rng = np.random.default_rng(0)
  state = run.build(config).fresh_state()
  moved = lambda tree: jax.tree.map(lambda x: np.asarray(x + rng.uniform(0, 0.1, x.shape), np.float32), tree)
  state = state.replace(step=state.step + 4, batch_stats=moved(state.batch_stats), ema=moved(state.ema))
  with Checkpoints(workdir) as checkpoints:
    checkpoints.save(state, {'config': configuration.to_json(config), 'train_seconds': 1.0, 'finished': True}, None)
  return workdir, {kind: flatten_dict(tree, sep='/') for kind, tree in state.ema.items()}


def exact(workdir):
  """The start of a DRNet."""
  return Start(workdir, 'drnet.checkpoint', 'all', exact=True)


def from_checkpoint(workdir, **fields):
  return tiny(**{'drnet.start': 'checkpoint', 'drnet.checkpoint': str(workdir)}, **fields)


@pytest.fixture(scope='module')
def frozen(network, tmp_path_factory):
  """A predictor on top of that network."""
  config = from_checkpoint(network[0], **{'drnet.frozen': True, 'optimizer.decay': 'all', 'drnet.estimator': 'routed'})
  workdir = tmp_path_factory.mktemp('runs') / 'drnet'
  return workdir, config, loop.train_and_evaluate(config, workdir)


def test_a_frozen_network_is_the_checkpoints_bit_for_bit_after_training(network, frozen):
  """Parameters, those that the RS-Net run evaluates, and statistics, of the candidates; alpha's entries, too."""
  before, after = network[1], saved(*frozen[:2])
  for kind, leaves in after.items():
    own = {name for name in leaves if name.startswith('predictor/')}
    assert own and not any(name.startswith(('private/12', '12/')) for name in leaves)
    for name in leaves.keys() - own - {'alpha'}:
      np.testing.assert_array_equal(leaves[name], before[kind][name], err_msg=name)
  np.testing.assert_array_equal(after['params']['alpha'], before['params']['alpha'][[0, 2]])


def test_the_result_judges_the_predictor(frozen):
  workdir, _, results = frozen
  assert report.read(workdir) == json.loads(json.dumps(results))
  assert list(results['routers']) == ['predictor', 'random', 'cascade', 'oracle']
  assert {'macs', 'top1', 'share'} <= set(results['routers']['predictor'])
  budget = 0.6 * results['resolutions']['16']['macs']  # of all that is run, the predictor too
  assert results['predictor']['budget'] == pytest.approx(budget, rel=1e-12)
  assert set(results['share_by_class']) == {'0', '1', '2'}
  for name in ('gallery.png', 'accuracy.png'):
    assert (workdir / name).read_bytes().startswith(b'\x89PNG')
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  trained = next(line for line in lines if 'train/loss_budget' in line)
  assert trained['train/share_16'] + trained['train/share_8'] == pytest.approx(1) and 'train/overflow' in trained
  scored = next(line for line in lines if 'eval/top1_predictor' in line)
  predictor = results['routers']['predictor']
  assert scored['eval/top1_predictor'] == predictor['top1'] and scored['eval/share_8'] == predictor['share']['8']
  assert scored['eval/macs_predictor'] == predictor['macs']


@pytest.mark.slow
def test_the_network_is_trained_first_once(tmp_path, monkeypatch, capsys):
  """Two stages: the second starts from the first's network; stopped and started again, it does not repeat it."""
  config = tiny()
  step = run.build(config).total_steps // 2
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(loop.judge, 'judge', _stop)
    loop.train_and_evaluate(config, tmp_path)
  first = json.loads((tmp_path / 'pretraining' / 'results.json').read_text())
  assert first['method'] == 'rsnet' and first['config']['epochs'] == 0.5
  with Checkpoints(tmp_path) as checkpoints:
    assert step in checkpoints.steps
  (tmp_path / 'pretraining' / 'results.json').unlink()
  results = loop.train_and_evaluate(config, tmp_path)
  assert not (tmp_path / 'pretraining' / 'results.json').exists()
  assert results['method'] == 'drnet' and results['train_seconds'] > first['train_seconds']
  after = saved(tmp_path, config)
  start, _ = backbone.load(exact(tmp_path / 'pretraining'), config, Devices())
  moved = flatten_dict(start['params'], sep='/')
  assert all(
    (np.asarray(moved[name]) != after['params'][name]).any() for name in moved if name.startswith('shared/conv')
  )


def _stop(*_):
  raise KeyboardInterrupt


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'resolutions': (16, 10, 8)},
      r'config.resolutions: 10 not among the resolutions \(16, 12, 8\) that .* trained at',
    ),
    ({'model.width': 0.5}, 'config.model.width: got 0.5, expected 0.25 as in '),
    ({'data.normalize': 'unit'}, "config.data.normalize: got 'unit', expected 'imagenet' as in "),
    ({'model.num_classes': 4}, 'config.model.num_classes: got 4, expected 3 as in '),
  ],
)
def test_another_network_is_refused_in_one_line(network, fields, message):
  with pytest.raises(ValueError, match=message) as error:
    backbone.load(exact(network[0]), tiny(**fields), Devices())
  assert '\n' not in str(error.value)


def test_a_drnet_is_no_beginning(frozen):
  with pytest.raises(ValueError, match="config.drnet.checkpoint: .* holds a run of method 'drnet', expected 'rsnet'"):
    backbone.load(exact(frozen[0]), tiny(), Devices())


def test_a_network_that_does_not_fit_is_found_before_a_state_is_made(tmp_path):
  config = from_checkpoint(tmp_path / 'nowhere')
  fresh = lambda: pytest.fail('compiled a state for nothing')
  with pytest.raises(FileNotFoundError, match='config.drnet.checkpoint: no checkpoints in '):
    backbone.start(fresh, config, drnet.backbone(config, tmp_path), Devices())


def test_a_folder_without_a_run_is_refused_and_left_alone(tmp_path):
  with pytest.raises(FileNotFoundError, match='config.drnet.checkpoint: no checkpoints in .*nowhere, expected'):
    backbone.load(exact(tmp_path / 'nowhere'), tiny(), Devices())
  assert not any(tmp_path.iterdir())


def test_the_first_stages_config_is_rsnets_with_its_own_schedule():
  config = tiny(**{'drnet.pretrain.learning_rate': 0.3, 'drnet.pretrain.warmup_epochs': 2.0})
  first = drnet.pretraining(config)
  assert (first.method, first.epochs) == ('rsnet', 0.5)
  assert (first.optimizer.learning_rate, first.optimizer.warmup_epochs) == (0.3, 2.0)
  assert config.method == 'drnet' and config.epochs == 1.0


def test_a_run_that_is_not_finished_is_no_beginning(tmp_path):
  config = tiny(method='rsnet')
  meta = {'config': configuration.to_json(config), 'train_seconds': 1.0, 'finished': False}
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(run.build(config).fresh_state(), meta, None)
  with pytest.raises(
    ValueError, match='config.drnet.checkpoint: the run in .* was stopped, expected one that reached its end'
  ):
    backbone.load(exact(tmp_path), from_checkpoint(tmp_path), Devices())
