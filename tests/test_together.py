"""Several networks as one, and a network at other sizes and crops than its own: exact, and through the commands."""

import argparse
import json
import types

import jax
import numpy as np
import pytest
from networks import tiny
from test_evaluate_command import NAMES, figures, workdir  # noqa: F401, the fixture
from test_evaluation import Photographs

from resjax import cli, resolution, rsnet, trained
from resjax.commands import export, sizes
from resjax.data import crops, sources
from resjax.evidence import scoring
from resjax.inference import Classifier
from resjax.measuring import evaluation, together

pytestmark = pytest.mark.usefixtures('shallow')


def answers(network, place=None):
  """Logits float64 of all photographs that can be read, at one resolution or as the ensemble, by hand."""
  source = Photographs()
  sizes = network.resolutions
  found = []
  for number in (n for n in range(len(source)) if n != 3):
    cut = crops.evaluation_crops(network.preprocessing, sizes)(source[number]['image'])
    each = [np.asarray(network.forward(r)(network.view(r), image[None]))[0] for r, image in zip(sizes, cut)]
    weights = np.exp(np.asarray(network.variables['params']['alpha'], float))
    found.append(np.einsum('r,rk->k', weights / weights.sum(), each) if place is None else each[place])
  return np.stack(found)


@pytest.fixture(scope='module')
def pair():
  """An RS-Net of two sizes, and an I-Net of another preprocessing."""
  other = tiny(noise=0.5)
  alone = other.replace(resolutions=(8,), preprocessing=type(other.preprocessing)('unit', crop_fraction=0.7))
  return tiny(), alone.at_all((8,))[0]


@pytest.mark.parametrize('mean', together.MEANS)
def test_the_ensemble_is_the_mean_of_what_each_says_of_its_own_crops(pair, mean):
  found = together.evaluate(pair, ('one', 'other'), Photographs(), mean=mean, max_batch=8)
  each = np.stack([answers(pair[0]), answers(pair[1], 0)])
  if mean == 'probabilities':
    shares = np.exp(each - each.max(-1, keepdims=True))
    whole = np.log((shares / shares.sum(-1, keepdims=True)).mean(0))
  else:
    whole = each.mean(0)
  assert found.ways == ('ensemble', 'one', 'other')
  one = sum(pair[0].macs)
  assert found.macs == (one + pair[1].macs[0], one, pair[1].macs[0])
  for column, logits in enumerate([whole, *each]):
    np.testing.assert_array_equal(found.ranks[:, column], rsnet.rank_of(logits.astype(np.float32), found.labels))
    odds = np.sort(logits, -1)
    expected = odds[:, -1] - np.log(np.exp(odds[:, :-1]).sum(-1))
    np.testing.assert_allclose(found.odds[:, column], expected, rtol=1e-4, atol=1e-4)
  summary = evaluation.summary(found)
  assert list(summary['resolutions']) == ['one', 'other'] and summary['ensemble']['macs'] == found.macs[0]


def test_a_study_scores_workdirs_as_they_answer_together(monkeypatch, tmp_path):
  asked = []

  def evaluate(networks, names, source):
    asked.append((networks, source))
    return types.SimpleNamespace(ranks=np.array([[0, 1, 2], [1, 0, 0]]), macs=(7, 3, 4))

  monkeypatch.setattr(trained, 'load', lambda place: place.name)
  monkeypatch.setattr(together, 'evaluate', evaluate)
  found = scoring.together('images', [tmp_path / 'one', tmp_path / 'other'])
  assert asked == [(['one', 'other'], 'images')]
  assert list(found) == ['ensemble'] and found['ensemble'].macs == 7.0
  assert found['ensemble'].right.tolist() == [True, False]


def test_networks_of_other_classes_are_no_ensemble(pair):
  swapped = pair[0].replace(class_names=('a', 'c', 'b', 'd', 'e'))
  with pytest.raises(ValueError, match="^two: class 1 is 'c', expected 'b' as in one$"):
    together.evaluate((pair[0], swapped), ('one', 'two'), Photographs())
  with pytest.raises(ValueError, match='^networks: one stands twice, expected a name for each$'):
    together.evaluate(pair, ('one', 'one'), Photographs())


def test_a_network_at_other_sizes_weighs_them_by_alpha():
  network = tiny()
  found, notes = network.at_all((16, 12, 8, 6))
  assert found.resolutions == (16, 12, 8, 6) and found.predictor is None
  assert notes[1:3] == ['12 px: BatchNorm interpolated between 8 and 16 px', '8 px: its own BatchNorm']
  alpha = np.asarray(network.variables['params']['alpha'])
  np.testing.assert_allclose(found.variables['params']['alpha'], [alpha[0], alpha.mean(), alpha[1], alpha.mean()])
  for r in (16, 8):
    for a, b in zip(jax.tree.leaves(found.view(r)), jax.tree.leaves(network.view(r)), strict=True):
      np.testing.assert_array_equal(a, b)


def test_a_further_branch_is_one_that_was_trained():
  for branch in (resolution.Branch(16, 2), resolution.Branch(12, 2)):
    with pytest.raises(ValueError, match=f'^resolution: got {branch}, expected a branch among 16, 8$'):
      tiny().at(branch)


def test_branches_of_one_size_are_no_choice():
  network = tiny()
  params, statistics = network.variables['params'], network.variables['batch_stats']
  branches = resolution.branches((16, 16))
  twice = network.replace(
    variables={
      'params': params | {'private': {'16': params['private']['16'], '16_2': params['private']['8']}},
      'batch_stats': {'16': statistics['16'], '16_2': statistics['8']},
    },
    resolutions=branches,
  )
  found = evaluation.evaluate(twice, Photographs(), max_batch=8)
  assert found.ways == ('16', '16_2', 'ensemble') and (found.ranks[:, 0] != found.ranks[:, 1]).any()
  classifier = Classifier(twice)
  image = np.zeros((20, 20, 3), np.uint8)
  first, second = (classifier.predict(image, resolution=branch)[0].probability for branch in branches)
  assert abs(first - second) > 1e-4
  refused = '^resolutions: got 16, 16_2, branches of one size, expected distinct sizes'
  with pytest.raises(ValueError, match=refused):
    _ = classifier.engines
  with pytest.raises(ValueError, match=refused):
    export.chosen(twice, None, 'torch')
  alone = export.chosen(twice, branches[1], 'torch')
  assert alone.resolutions == (16,)
  jax.tree.map(np.testing.assert_array_equal, alone.view(16), twice.view(branches[1]))


def test_the_command_scores_several_workdirs_and_other_crops(workdir, tmp_path, capsys):  # noqa: F811
  found = trained.read(workdir)
  moved = jax.tree.map(lambda x: x * 1.1, found.network.variables)
  trained.save(trained.Trained(found.network.replace(variables=moved), found.config, 0, True), tmp_path / 'other')
  both = [f'--workdir={workdir}', f'--workdir={tmp_path / "other"}', f'--out={tmp_path / "out"}']
  cli.main(['evaluate', *both, '--resolution=8', '--resolution=12', '--crop-fraction=0.5', '--mean=probabilities'])
  told = capsys.readouterr()
  assert told.err.count('12 px: BatchNorm interpolated between 8 and 16 px') == 2
  assert 'on the split val, the ensemble by the mean of probabilities' in told.out
  numbers = figures(tmp_path / 'out')
  assert list(numbers['resolutions']) == numbers['workdirs'] == [str(workdir), str(tmp_path / 'other')]
  assert (numbers['mean'], numbers['crop_fraction']) == ('probabilities', 0.5)
  network = found.network.at_all((12, 8))[0]
  closer = network.replace(preprocessing=type(network.preprocessing)(crop_fraction=0.5))
  ours = evaluation.evaluate(closer, sources.create(found.config, 'val'))
  assert numbers['resolutions'][str(workdir)]['top1'] == ours.top(1)['ensemble']
  assert numbers['resolutions'][str(workdir)]['macs'] == sum(network.macs) and set(numbers['classes']) == set(NAMES)


def test_sizes_are_taken_in_the_order_of_branches_whatever_the_typed_one():
  typed = [resolution.parse(text) for text in ('8_2', '16x0.25', '8', '16')]
  options = argparse.Namespace(crop_fraction=None, resolution=typed)
  wanted = []
  network = types.SimpleNamespace(at_all=lambda found: (wanted.extend(found), ()))
  sizes.asked(network, options)
  assert [resolution.name(r) for r in wanted] == ['16', '8', '8_2', '16x0.25']
  resolution.check_order(wanted)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--workdir={0}'], '--workdir: got {0}, {0}, expected each of them once'),
    (['--resolution=8', '--resolution=8'], '--resolution: got 8, 8, expected each of them once'),
    (['--crop-fraction=1.5'], "argument --crop-fraction: got '1.5', expected more than 0, at most 1"),
  ],
)
def test_what_contradicts_itself_is_one_line(workdir, arguments, message, capsys):  # noqa: F811
  with pytest.raises(SystemExit) as error:
    cli.main(['evaluate', f'--workdir={workdir}', *(argument.format(workdir) for argument in arguments)])
  assert message.format(workdir) in f'{error.value}{capsys.readouterr().err}'


def test_a_report_on_a_network_of_one_size_at_smaller_ones(workdir, tmp_path):  # noqa: F811
  """An I-Net below the size that it was trained at, and as if things were larger."""
  found = trained.read(workdir)
  found.config.resolutions = (16,)
  alone = found.network.at_all((16,))[0]
  trained.save(trained.Trained(alone, found.config, 0, True), tmp_path / 'inet')
  page = tmp_path / 'page.html'
  sizes = ['--resolution=16', '--resolution=8', '--crop-fraction=1.0']
  cli.main(
    ['report', f'--workdir={tmp_path / "inet"}', f'--out={page}', '--images=8', '--rounds=1', '--max-batch=8', *sizes]
  )
  numbers = json.loads(page.with_suffix('.json').read_text())
  assert [row['pixels'] for row in numbers['resolutions']] == [16, 8]
  assert numbers['config']['eval.crop_fraction'] == 1.0 and '--resolution=16 --resolution=8' in numbers['command']
  assert numbers['reported'] is None and page.stat().st_size > 1000
