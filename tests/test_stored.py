"""A run that version 0.1.0 made goes on, is shown and is read; tests/stored has it, without pictures and TensorBoard.

Two workdirs, made on one device: `rsnet`, 6 steps of the quickstart's network at two sizes on random images, saved at 3
and 6, finished; `drnet`, the same with a predictor: its last step, its calibration and its measured costs.
"""

import json
import pathlib
import re
import shutil
import tarfile

import jax
import numpy as np
import pytest

from resjax import checkpoint, cli, recipes, trained
from resjax.data import sources
from resjax.inference import Classifier, images
from resjax.recipes import default
from resjax.training import loop, run
from resjax.training.devices import Devices

ARCHIVE = pathlib.Path(__file__).parent / 'stored' / '0.1.0.tar.gz'

# Of the DRNet: 60 % of what 16 px cost, as version 0.1.0 counted, and the predictor's own.
BUDGET = 0.6 * 216_128 + 31_232

# After three steps: the tests compile with less optimisation than the run was made with, and round elsewhere.
TOLERANCE = 1e-4


@pytest.fixture
def stored(tmp_path):
  """The folder of the runs."""
  with tarfile.open(ARCHIVE) as archive:
    archive.extractall(tmp_path, filter='data')
  return tmp_path / '0.1.0'


def config(recipe='quickstart', **fields):
  """What the runs were made with."""
  made = recipes.make(recipe)
  made.update_from_flattened_dict(
    {'resolutions': (16, 8), 'model.width': 0.25, 'model.num_classes': 4, 'batch_size': 8, 'epochs': 2.0}
    | {'data.source': 'fake', 'data.size': 24, 'data.eval_split': 'val', 'data.workers': 0}
    | {'eval.batch_size': 8, 'eval.every_epochs': 0, 'checkpoint.every_epochs': 1.0}
    | {'optimizer.warmup_epochs': 0.0, 'optimizer.learning_rate': 0.01}
    | fields
  )
  return made


def drnet():
  fields = {'budget': BUDGET, 'predictor.size': 8, 'pretrain.epochs': 1.0}
  named = {f'drnet.{name}': value for name, value in fields.items()}
  return config('drnet_quickstart', **{'eval.calibration_split': 'other'}, **named)


def test_it_goes_on_and_ends_where_it_ended_then(stored, monkeypatch, capsys):
  """Also when the config has got a field since, as long as that has its default."""
  fields = default.get_config

  def with_a_later_field():
    made = fields()
    made.optimizer.later = 3
    return made

  monkeypatch.setattr(default, 'get_config', with_a_later_field)
  workdir = stored / 'rsnet'
  there = trained.load(workdir).variables
  shutil.rmtree(workdir / 'checkpoints' / '6')
  (workdir / 'results.json').unlink()
  monkeypatch.setattr(run, 'Devices', lambda parallel: Devices(parallel, jax.devices()[:1]))
  with pytest.raises(ValueError, match='another config .config.optimizer.later: 3 there, 4 here.'):
    loop.train_and_evaluate(config(**{'optimizer.later': 4}), workdir)
  results = loop.train_and_evaluate(config(), workdir)
  assert 'Going on from step 3 of 6' in capsys.readouterr().out
  assert results['format'] == 1 and results['config']['optimizer']['later'] == 3
  here = trained.load(workdir).variables
  for (path, a), b in zip(jax.tree.leaves_with_path(there), jax.tree.leaves(here), strict=True):
    scale = max(1.0, float(np.abs(a).max()))
    np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * scale, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(('name', 'made'), [('rsnet', config), ('drnet', drnet)])
def test_finished_it_is_shown_and_not_run_again(stored, name, made, monkeypatch, capsys):
  monkeypatch.setattr(loop, 'build', None)
  results = loop.train_and_evaluate(made(), stored / name)
  assert 'format' not in results and results['method'] == name
  assert 'holds this run, finished' in capsys.readouterr().out


@pytest.mark.parametrize(('name', 'made'), [('rsnet', config), ('drnet', drnet)])
def test_its_variables_and_config_are_read(stored, name, made):
  found = trained.read(stored / name)
  variables = found.network.variables
  assert found.config.to_dict() == made().to_dict()
  assert set(variables['params']['private']) == {'16', '8'} and ('predictor' in variables['params']) == (
    name == 'drnet'
  )
  meta = checkpoint.load_meta(stored / name)
  assert 'format' not in meta and meta['step'] == 6 and meta['finished'] is True


def test_another_config_is_refused_as_it_was_then(stored):
  with pytest.raises(ValueError, match=r'holds a run with another config \(config.batch_size: 8 there, 16 here\)'):
    loop.train_and_evaluate(config(batch_size=16), stored / 'rsnet')


@pytest.mark.parametrize('budget', [0.6, 0.6 * 216_128])
def test_a_budget_of_ones_own_is_refused_with_the_number_that_goes_on(stored, budget):
  """What 0.1 took left the predictor out. As many multiply-adds, said as a share, go on too."""
  made = drnet()
  made.drnet.budget = budget
  with pytest.raises(ValueError, match=r'config\.drnet\.budget: .* there, .* here') as error:
    loop.finished(made, stored / 'drnet')
  there = float(re.search(r'budget: (\S+) there', str(error.value))[1])
  for same in (there, there / 216_128):
    made.drnet.budget = same
    assert loop.finished(made, stored / 'drnet')['method'] == 'drnet'


def test_its_network_classifies_as_it_did_then(stored):
  """By its own calibration; its cost table, which says less than one does now, is measured anew."""
  found = trained.read(stored / 'drnet')
  wanted = images.of_source(sources.create(found.config, 'val'), range(2))
  classifier = Classifier(found.network, workdir=stored / 'drnet', max_batch=8)
  predictions = classifier.predict(wanted, budget=BUDGET)
  assert [(p.class_index, p.resolution, p.macs) for p in predictions] == [(3, 8, 85_312.0)] * 2
  assert [p.probability for p in predictions] == pytest.approx([0.2945969, 0.2817957], rel=TOLERANCE)
  costs = json.loads((stored / 'drnet' / 'costs.json').read_text())
  assert costs['format'] == 1 and len(costs['tables']) == 2  # the network's, and its predictor's


def test_it_is_reported(stored, capsys):
  workdir = stored / 'drnet'
  cli.main(['report', f'--workdir={workdir}', '--images=8', '--rounds=1', '--max-batch=8'])
  page = (workdir / 'report.html').read_text(encoding='utf-8')
  assert 'drnet, resnet_small, fake' in page and f'In {workdir}/report.html' in capsys.readouterr().out
