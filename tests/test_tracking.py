"""Metrics to Weights & Biases: what it is told, that a workdir is one run, that no failure of it ends a training."""

import importlib.util
import sys
import threading
import types

import pytest

from resjax import config as configuration
from resjax import recipes
from resjax.training import loop, tracking
from resjax.training.metrics import MetricWriter

FIELDS = ['--config.wandb.project=birds', '--config.resolutions=(16,8)', '--config.model.width=0.25']
FIELDS += ['--config.model.num_classes=3', '--config.data.source=fake', '--config.data.size=32', '--config.epochs=0.5']
FIELDS += ['--config.eval.batch_size=32', '--config.batch_size=16', '--config.log_steps=1']


def config(*more):
  return configuration.load('quickstart', [*FIELDS, *more])


class Fake(types.ModuleType):
  """Stands for the package: keeps what it is told, and fails where it shall."""

  def __init__(self, fails=()):
    super().__init__('wandb')
    self.told, self.fails, self.__spec__ = [], fails, importlib.util.spec_from_loader('wandb', None)
    self.Settings = dict

  def _tell(self, name, *arguments, **options):
    if name in self.fails:
      raise ConnectionError(f'{name} failed\nat length')
    self.told.append((name, arguments, options))
    return self

  def __getattr__(self, name):
    if name in ('init', 'log', 'finish'):
      return lambda *arguments, **options: self._tell(name, *arguments, **options)
    raise AttributeError(name)


@pytest.fixture
def wandb(monkeypatch):
  fake = Fake()
  monkeypatch.setitem(sys.modules, 'wandb', fake)
  return fake


def test_a_training_tells_what_it_writes(wandb, shallow, tmp_path):
  loop.train_and_evaluate(config(), tmp_path / 'run')
  (_, _, begun), *lines, (_, _, ended) = wandb.told
  assert begun['project'] == 'birds' and begun['dir'] == str(tmp_path / 'run') and begun['resume'] == 'allow'
  assert begun['config']['batch_size'] == 16 and begun['config']['optimizer.momentum'] == 0.9
  assert {name for name, _, _ in lines} == {'log'} and [options['step'] for _, _, options in lines] == [1, 1]
  assert 'train/loss_16' in lines[0][1][0] and 'eval/top1_mean' in lines[1][1][0]
  assert ended == {'exit_code': 0}


def test_a_workdir_is_one_run(wandb, tmp_path):
  for _ in range(2):
    with MetricWriter(tmp_path / 'a', tracker=tracking.Tracker(config(), tmp_path / 'a')):
      pass
  with pytest.raises(KeyboardInterrupt), MetricWriter(tmp_path, tracker=tracking.Tracker(config(), tmp_path)):
    raise KeyboardInterrupt
  first, again, other = [options['id'] for name, _, options in wandb.told if name == 'init']
  assert first == again != other and len(first) == 8
  assert [options['exit_code'] for name, _, options in wandb.told if name == 'finish'] == [0, 0, 1]


@pytest.mark.parametrize('fails', ['init', 'log', 'finish'])
def test_its_failure_is_logged_once_and_ends_nothing(wandb, tmp_path, fails, caplog):
  wandb.fails = (fails,)
  with MetricWriter(tmp_path, tracker=tracking.Tracker(config(), tmp_path)) as writer:
    for step in (1, 2, 3):
      writer.scalars(step, {'loss': 1.0})
  (line,) = [record.getMessage() for record in caplog.records]
  assert line == f'W&B: ConnectionError: {fails} failed; training goes on without it'
  assert len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == 3


def test_its_end_is_not_waited_for_for_ever(wandb, tmp_path, monkeypatch, caplog):
  hangs = threading.Event()
  monkeypatch.setitem(tracking._PATIENCE, True, 0.05)
  tracker = tracking.Tracker(config(), tmp_path)
  tracker._run = types.SimpleNamespace(finish=lambda exit_code: hangs.wait(60))
  tracker.close()
  assert 'still sending' in caplog.text
  hangs.set()


def test_it_is_off_by_default_and_where_it_is_missing_one_line_says_what_to_install(monkeypatch, tmp_path):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  tracking.check(recipes.make('quickstart'))
  message = r"^config.wandb.project: got 'birds', which needs wandb: pip install 'resjax\[wandb\]'$"
  with pytest.raises(ValueError, match=message):
    loop.train_and_evaluate(config(), tmp_path / 'run')
  assert not list(tmp_path.iterdir())


def test_another_project_is_no_other_run():
  configuration.check_same(
    {'config': configuration.to_json(config()), 'format': 1}, config('--config.wandb.project='), ''
  )


def test_the_package_itself_offline(tmp_path, monkeypatch):
  pytest.importorskip('wandb', reason='needs the extra wandb, which is not installed')
  monkeypatch.setenv('WANDB_MODE', 'offline')
  monkeypatch.setenv('WANDB_SILENT', 'true')
  with MetricWriter(tmp_path, tracker=tracking.Tracker(config(), tmp_path)) as writer:
    writer.scalars(1, {'loss': 1.0})
  assert list((tmp_path / 'wandb').glob('offline-run-*-' + (tmp_path / 'wandb_id').read_text().strip()))
