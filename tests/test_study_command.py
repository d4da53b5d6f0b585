"""`resjax study`: from a file of arms and claims to tables, picture and page."""

import argparse
import json
import pathlib

import pytest

from benchmarks import drnet_compare, seeds
from resjax import cli
from resjax.commands import study as command
from resjax.evidence import running

STUDY = """
import dataclasses
from resjax.evidence import Arm, Claim, Study

FIELDS = {'resolutions': (16, 8), 'model.width': 0.25, 'model.num_classes': 4, 'batch_size': 8, 'epochs': 0.4,
          'data.source': 'fake', 'data.size': 24, 'data.eval_split': 'val', 'eval.batch_size': 8,
          'eval.every_epochs': 0, 'optimizer.warmup_epochs': 0.0, 'optimizer.learning_rate': 0.01}


def get_study(scale='made'):
  arms = {
    'net': Arm({'distillation': 'none'}, sizes=(12,), fractions=(0.5,)),
    'chooser': Arm({'drnet.predictor.size': 8, 'drnet.budget': 0.9, 'eval.calibration_split': ''},
                   recipe='drnet_quickstart', start='net'),
  }
  arms['again'] = dataclasses.replace(arms['chooser'], recalibrated=True)
  claims = [Claim('net@16', 'net@12 nearest', 'the trained size is above', 'nobody'),
            Claim('chooser@predictor', 'chooser@random', 'above chance', 'nobody')]
  return Study('Trial', 'quickstart', arms, claims, FIELDS, scale, seeds=1)
"""
ONE = ('16', '8', 'ensemble')
NET = (*ONE, '12 nearest', '12 interpolated', '12 recalibrated', '16 crop 0.5', '8 crop 0.5', '12 nearest crop 0.5')


@pytest.fixture
def here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'trial.py').write_text(STUDY)
  return tmp_path


def test_a_study_runs_to_its_page_and_is_not_run_again(here, shallow, capsys, monkeypatch):
  cli.main(['study', 'trial.py'])
  out = capsys.readouterr().out
  assert 'net, seed 0: 16 ' in out and '3 of 3 runs finished' in out and 'In runs/studies/made: trial.html' in out
  workdir = here / 'runs' / 'studies' / 'made'
  found = json.loads((workdir / 'trial.json').read_text())
  assert tuple(found['arms']['net']['ways']) == NET and found['command'] == 'resjax study trial.py'
  ways = found['arms']['chooser']['ways']
  assert tuple(ways) == (*ONE, 'predictor', 'random', 'cascade', 'oracle')
  assert ways['16'] == found['arms']['net']['ways']['16']  # the network is frozen
  assert ways['oracle']['top1']['mean'] >= max(ways['16']['top1']['mean'], ways['8']['top1']['mean'])
  assert ways['predictor']['macs'] == ways['random']['macs']
  again = found['arms']['again']['ways']
  assert again['predictor']['macs'] == ways['predictor']['macs'] and tuple(again) == tuple(ways) and again != ways
  assert len(list((workdir / 'runs').iterdir())) == 2  # its network was not trained anew
  assert [claim['verdict'] for claim in found['claims']] == ['open at this scale'] * 2  # of one seed
  for job in (workdir / 'runs').iterdir():
    results = json.loads((job / 'run' / 'results.json').read_text())
    name = 'chooser' if results['method'] == 'drnet' else 'net'
    top1 = {way: entry['top1']['mean'] for way, entry in found['arms'][name]['ways'].items()}
    assert {r: entry['top1'] for r, entry in results['resolutions'].items()} == {r: top1[r] for r in ('16', '8')}
    assert {n: e['top1'] for n, e in results.get('routers', {}).items() if n != 'random'}.items() <= top1.items()
  assert (workdir / 'trial.png').stat().st_size > 5_000 and 'Trial' in (workdir / 'trial.html').read_text()

  monkeypatch.setattr(running, 'train_and_evaluate', None)
  cli.main(['study', 'trial.py', '--show'])
  assert '3 of 3 runs finished' in capsys.readouterr().out
  cli.main(['study', 'trial.py'])
  cli.main(['study', 'trial.py', '--seeds=2', '--dry-run'])
  assert '2 claims: 2 open' in (out := capsys.readouterr().out) and 'left, one after the other: ' in out
  with pytest.raises(SystemExit, match=r"^error: 3 of 6 runs failed \(net, seed 1: TypeError: 'NoneType'"):
    cli.main(['study', 'trial.py', '--seeds=2'])


def test_what_is_wrong_is_said_before_any_run(here):
  for given, message in (
    (['none.py'], 'error: study: no file none.py'),
    (['trial.py', '--arms=nett'], "error: --arms: got 'nett', expected some of net, chooser, again. Did you mean net?"),
    (['trial.py', '--config.batch_size=0'], "error: arm 'net': config.batch_size: got 0"),
    (['trial.py', '--data.dir=nowhere'], 'error: --data.dir: got nowhere, expected a folder with train/CLASS'),
  ):
    with pytest.raises(SystemExit) as error:
      cli.main(['study', *given])
    assert str(error.value).startswith(message)
  assert [path.name for path in here.iterdir()] == ['trial.py']


@pytest.mark.parametrize(
  ('text', 'seeds'), [('3', (0, 1, 2)), ('0,3', (0, 3)), ('2-4', (2, 3, 4)), ('7,', (7,)), ('1,0-2', (1, 0, 2))]
)
def test_seeds_are_a_number_or_a_list(text, seeds):
  assert command._seeds(text) == seeds


@pytest.mark.parametrize('text', ['0', 'x', '-1', '3-1', '1,x', '', ',', '1e3', '99999'])
def test_other_seeds_are_refused(text):
  with pytest.raises(argparse.ArgumentTypeError, match='expected how many, or which'):
    command._seeds(text)


def test_a_folder_takes_the_place_of_the_data(tmp_path):
  for name in ('train/cat', 'train/dog', 'train/cow', 'test/cat'):
    (tmp_path / 'pets' / name).mkdir(parents=True)
  fields, name = command._folder(str(tmp_path / 'pets'))
  assert name == 'pets' and fields['model.num_classes'] == 3 and fields['data.eval_split'] == 'test'
  assert (fields['data.source'], pathlib.Path(fields['data.dir'])) == ('folder', tmp_path / 'pets')


def test_the_old_commands_say_what_to_type():
  given = ['--config=configs/finetune.py', '--seeds=2', '--workdir=runs/ft', '--config.seed=3']
  assert seeds.command(given) == 'resjax study configs/finetune.py --seeds=2 --workdir=runs/ft --config.seed=3'
  assert seeds.command(['-config=quickstart']) == 'resjax study quickstart --seeds=3'
  assert drnet_compare.command(['--only=budget']) == 'resjax study configs/studies/drnet.py --seeds=3'
