"""A network scored on images with labels: as its training scores it, each once, and what that comes to by hand."""

import csv
import functools

import jax
import numpy as np
import pytest
from networks import tiny
from numbered import make_config

from resjax import drnet, rsnet
from resjax.data import loader
from resjax.inference.runtimes.xla import XlaRuntime
from resjax.measuring import evaluation
from resjax.report import confusion, mistakes
from resjax.training.devices import Devices


class Photographs:
  """Random pictures of five classes; the fourth can't be read."""

  num_classes, class_names, needed = 5, tuple('abcde'), None

  def __init__(self, size=21):
    self.size = size

  def __len__(self):
    return self.size

  def __getitem__(self, index):
    rng = np.random.default_rng(index)
    image = b'no image' if index == 3 else rng.integers(0, 256, (20, 24, 3), np.uint8)
    return {'image': image, 'label': int(rng.integers(5))}

  def name_of(self, index):
    return f'photograph {index}'


@pytest.fixture(scope='module', params=['rsnet', 'drnet'])
def network(request):
  return tiny(request.param)


def test_it_says_what_a_runs_own_evaluation_says(network):
  """Ranks, log-odds and the predictor's choice, from the crops that the loader makes for a run."""
  found = evaluation.evaluate(network, Photographs(), max_batch=8)
  config = make_config(resolutions=(16, 8), model__num_classes=5, eval__crop_fraction=0.875, data__max_bad_images=1)
  method = rsnet if network.predictor is None else drnet
  config.method, config.drnet.predictor.size, config.drnet.predictor.width = method.__name__.split('.')[1], 8, 0.25
  step = Devices().eval(method.make_eval_fn(network.model, config))
  table = {}
  for batch in loader.eval_batches(Photographs(), config):
    out = step(network.variables, batch) | {'label': batch['label'], 'index': batch['index']}
    for name, column in out.items():
      table.setdefault(name, []).append(column[batch['mask'] > 0])
  order = np.argsort(np.concatenate(table['index']))
  table = {name: np.concatenate(columns)[order] for name, columns in table.items()}
  assert found.ways == ('16', '8', 'ensemble') and found.macs == (*network.macs, sum(network.macs))
  np.testing.assert_array_equal(found.ranks, table['ranks'])
  np.testing.assert_array_equal(found.labels, table['label'])
  assert ((found.guesses == found.labels[:, None]) == (found.ranks == 0)).all()
  assert found.unreadable == (('photograph 3', 'not an image file (8 bytes)'),)
  assert found.numbers.tolist() == [n for n in range(21) if n != 3] and found.images[3] == 'photograph 4'
  assert found.top(1) == dict(zip(found.ways, (table['ranks'] == 0).mean(0)))
  if network.predictor is None:
    assert found.predictor is None
    return
  np.testing.assert_allclose(found.odds[:, :2], table['odds'], rtol=1e-3, atol=1e-4)
  choice = table['scores'].argmax(1)
  assert found.predictor['top1'] == pytest.approx((table['ranks'][np.arange(20), choice] == 0).mean())
  assert found.predictor['share'] == {'16': (choice == 0).mean(), '8': (choice == 1).mean()}
  assert found.predictor['macs'] == pytest.approx(np.take(network.macs, choice).mean() + network.predictor.macs)


def test_batches_change_nothing_and_one_resolution_has_no_ensemble():
  network = tiny()
  whole, parts = (evaluation.evaluate(network, Photographs(), max_batch=n) for n in (64, 8))
  for name in ('labels', 'guesses', 'ranks', 'numbers'):
    np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
  lower = evaluation.evaluate(network.at(8)[0], Photographs())
  assert lower.ways == ('8',) and lower.macs == network.macs[1:]
  np.testing.assert_array_equal(lower.ranks[:, 0], whole.ranks[:, 1])


def test_an_accelerator_that_keeps_its_crops_gives_the_same():
  network = tiny('drnet')
  resident = functools.partial(XlaRuntime, devices=jax.devices()[:1], resident=True)
  ours, theirs = (evaluation.evaluate(network, Photographs(), max_batch=8, runtime=r) for r in (XlaRuntime, resident))
  np.testing.assert_array_equal(ours.ranks, theirs.ranks)
  assert ours.predictor['share'] == theirs.predictor['share']


def test_labels_are_translated_and_checked():
  network = tiny()
  own, other = (evaluation.evaluate(network, Photographs(), places) for places in (None, (4, 3, 2, 1, 0)))
  np.testing.assert_array_equal(other.labels, 4 - own.labels)
  np.testing.assert_array_equal(other.guesses, own.guesses)
  with pytest.raises(ValueError, match='^photograph 0 to photograph 20: label 7, expected 0 to 4'):
    evaluation.evaluate(network, Photographs(), (0, 1, 2, 3, 7))
  broken = Photographs(4)
  broken.__class__ = type('Broken', (Photographs,), {'__getitem__': lambda self, i: {'image': b'', 'label': 0}})
  with pytest.raises(ValueError, match='^images: none of 4 could be read, expected some to score'):
    evaluation.evaluate(network, broken)


def by_hand():
  """Six images of classes 0, 0, 0, 2, 2, 1 of four."""
  guesses = np.array([[0, 0], [3, 0], [3, 1], [2, 2], [2, 0], [2, 1]])
  labels = np.array([0, 0, 0, 2, 2, 1])
  ranks = np.array([[0, 0], [2, 0], [1, 1], [0, 0], [0, 3], [3, 0]])
  odds = np.array([[5.0, 0], [1.0, 0], [3.0, 0], [9.0, 0], [0.5, 0], [2.0, 0]])
  return evaluation.Evaluation(
    ways=('8', '4'), macs=(40, 10), class_names=('crane', 'gull', 'crane', 'owl'), images=tuple('uvwxyz'),
    numbers=np.arange(6), labels=labels, guesses=guesses, ranks=ranks, odds=odds, unreadable=(('q', 'gone'),),
  )  # fmt: skip


def test_what_it_comes_to():
  found = by_hand()
  assert found.top(1) == {'8': 0.5, '4': 4 / 6} and found.top(3) == {'8': 5 / 6, '4': 5 / 6}
  assert found.by_class() == {
    0: {'images': 3, 'top1': {'8': 1 / 3, '4': 2 / 3}, 'taken_for': 3},
    1: {'images': 1, 'top1': {'8': 0, '4': 1}, 'taken_for': 2},
    2: {'images': 2, 'top1': {'8': 1, '4': 0.5}, 'taken_for': None},
  }
  np.testing.assert_array_equal(found.confusion(), [[1, 0, 0, 2], [0, 0, 1, 0], [0, 0, 2, 0], [0, 0, 0, 0]])
  summary = evaluation.summary(found)
  assert summary['resolutions']['4'] == {'top1': 4 / 6, 'top5': 1.0, 'macs': 10, 'images': 6}
  assert summary['unreadable'] == [{'image': 'q', 'reason': 'gone'}]
  assert list(summary['classes']) == ['crane (0)', 'gull', 'crane (2)']
  assert [entry['taken_for'] for entry in summary['classes'].values()] == ['owl', 'crane (2)', None]


def rows_of(path):
  with open(path, newline='') as file:
    return list(csv.reader(file))


def test_the_confusion_as_a_table_and_a_picture(tmp_path):
  found = by_hand()
  confusion.write(found.confusion(), found.class_names, tmp_path / 'c.csv')
  assert rows_of(tmp_path / 'c.csv') == [
    ['true class, taken for:', 'crane (0)', 'gull', 'crane (2)', 'owl'],
    ['crane (0)', '1', '0', '0', '2'],
    ['gull', '0', '0', '1', '0'],
    ['crane (2)', '0', '0', '2', '0'],
  ]
  (axes,) = confusion.draw(found.confusion(), found.class_names, 'birds').axes
  shares = axes.images[0].get_array()
  np.testing.assert_allclose(shares, [[1 / 3, 0, 0, 2 / 3], [0, 0, 1, 0], [0, 0, 1, 0]])
  assert [label.get_text() for label in axes.get_xticklabels()] == ['crane (0)', 'gull', 'crane (2)', 'another']
  assert sorted(text.get_text() for text in axes.texts) == ['1', '1', '2', '2']


def test_of_many_classes_those_with_the_most_mistakes_are_drawn():
  matrix = np.diag(np.arange(100, 140))
  matrix[np.arange(40), (np.arange(40) + 1) % 40] = np.arange(40)  # class k is wrong k times
  figure = confusion.draw(matrix, [f'class {k}' for k in range(40)], 'many')
  assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [f'class {k}' for k in range(10, 40)]
  assert figure.get_suptitle() == 'many; 30 of 40 classes, those with the most mistakes'


def test_the_surest_mistakes(tmp_path):
  found = by_hand()
  rows = mistakes.surest(
    found.labels, found.guesses[:, 0], found.ranks, found.odds[:, 0],
    most=2, ways=found.ways, name_of=found.images.__getitem__, class_names=found.class_names,
  )  # fmt: skip
  mistakes.write(rows, tmp_path / 'm.csv')
  assert rows_of(tmp_path / 'm.csv') == [
    ['image', 'label', 'guess', 'probability', 'rank', 'wrong_at'],
    ['w', 'crane', 'owl', '0.952574', '2', '8 4'],  # 1 / (1 + exp(-3))
    ['z', 'gull', 'crane', '0.880797', '4', '8'],
  ]
  figure = mistakes.draw(rows, [np.zeros((4, 4, 3), np.uint8)] * 2, 'birds')
  texts = [(axes.get_title(), axes.texts[0].get_text()) for axes in figure.axes if axes.get_title()]
  assert texts == [('crane', 'owl 95 %'), ('gull', 'crane 88 %')]
  mistakes.draw([], [], 'none').canvas.draw()
