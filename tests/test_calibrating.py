"""The calibration's file: written at once, read by the network that it was made with, refused with what to do."""

import networks
import numpy as np
import pytest

from resjax import formats
from resjax.inference import calibrating
from resjax.inference.engines import Engines
from resjax.preprocess import Preprocessing
from resjax.routing import Budget
from resjax.routing.dial import mean_cost
from resjax.routing.random import Random

NETWORK = networks.tiny()
ADVICE = r'; calibrate first: resjax calibrate --workdir='
BY_HAND = r'; calibrate first: classifier\.calibrate\(images\)$'


def columns(count=50):
  rng = np.random.default_rng(0)
  return {'odds': rng.normal(size=(count, 2)), 'energy': rng.gamma(2.0, size=count)}


@pytest.fixture
def written(tmp_path):
  (tmp_path / 'checkpoints').mkdir()
  calibrating.write(tmp_path, NETWORK, columns())
  return tmp_path


def rewrite(workdir, **fields):
  """The file with other entries; None takes one out."""
  with np.load(workdir / 'dial.npz') as file:
    entries = dict(file) | fields
  np.savez_compressed(workdir / 'dial.npz', **{k: v for k, v in entries.items() if v is not None})


def test_what_is_written_is_read_bit_for_bit(written):
  found = calibrating.read(written, NETWORK)
  assert found.keys() == columns().keys()
  for name, column in columns().items():
    np.testing.assert_array_equal(found[name], column)
    assert found[name].dtype == column.dtype
  assert sorted(path.name for path in written.iterdir()) == ['checkpoints', 'dial.npz']
  with np.load(written / 'dial.npz') as file:
    assert int(file['format']) == formats.FORMAT and str(file['network']) == NETWORK.digest


def test_one_without_a_format_is_of_version_0_1_and_read(written):
  rewrite(written, format=None)
  np.testing.assert_array_equal(calibrating.read(written, NETWORK)['odds'], columns()['odds'])


def test_one_of_a_newer_version_is_refused(written):
  rewrite(written, format=np.array(formats.FORMAT + 1))
  with pytest.raises(
    ValueError, match=r'dial\.npz: got format 2, expected at most 1: a newer resjax wrote it, update resjax$'
  ):
    calibrating.read(written, NETWORK)


def test_one_of_other_weights_is_refused(written):
  with pytest.raises(
    ValueError, match=rf'dial\.npz: made with other weights, expected those of this checkpoint{ADVICE}'
  ):
    calibrating.read(written, networks.tiny('drnet'))
  rewrite(written, network=None)
  with pytest.raises(ValueError, match='made with other weights'):
    calibrating.read(written, NETWORK)


@pytest.mark.parametrize(
  ('fields', 'found'),
  [
    ({'resolutions': (16,)}, r'resolutions \[16, 8\], expected \[16\]'),
    ({'preprocessing': Preprocessing('signed')}, 'normalize imagenet, expected signed'),
    ({'preprocessing': Preprocessing(crop_fraction=1.0)}, 'crop_fraction 0.875, expected 1.0'),
    ({'preprocessing': Preprocessing(interpolation='bicubic')}, 'interpolation bilinear, expected bicubic'),
  ],
)
def test_one_of_other_sizes_or_inputs_is_refused(written, fields, found):
  other = NETWORK.replace(preprocessing=Preprocessing()).replace(**fields)
  calibrating.write(written, NETWORK.replace(preprocessing=Preprocessing()), columns())
  assert other.digest == NETWORK.digest
  with pytest.raises(ValueError, match=rf'dial\.npz: made with {found} as this network has{ADVICE}'):
    calibrating.read(written, other)
  calibrating.read(written, NETWORK.replace(preprocessing=Preprocessing(max_pixels=7), class_names=('a',)))
  calibrating.read(written, NETWORK.replace(preprocessing=Preprocessing()).with_dtype('bfloat16'))


def test_one_without_the_predictors_scores_is_not_that_of_a_network_with_a_predictor(tmp_path):
  network = networks.tiny('drnet')
  calibrating.write(tmp_path, network.replace(predictor=None), columns())
  with pytest.raises(ValueError, match=rf'made with predictor None, expected {network.predictor.size} as'):
    calibrating.read(tmp_path, network)


@pytest.mark.parametrize(
  'entries',
  [
    {'odds': None},
    {'energy': None},
    {'energy': columns()['energy'].astype(str)},
    {'energy': columns()['energy'][:3]},
    {'odds': columns()['odds'][:, :1]},
    {'odds': columns()['odds'] * np.nan},
    {'odds': np.array('x')},
    {'odds': np.zeros((0, 2)), 'energy': np.zeros(0)},
    {'format': np.array([1, 1])},
    {'format': np.array(1.5)},
    {'with': np.array('[1]')},
    {'with': np.array('{')},
  ],
)
def test_one_with_other_columns_is_damaged(written, entries):
  rewrite(written, **entries)
  with pytest.raises(ValueError, match=rf'dial\.npz: damaged \(.*\){ADVICE}'):
    calibrating.read(written, NETWORK)


def test_a_network_that_gives_no_numbers_is_not_calibrated(tmp_path):
  made = calibrating.Calibration(NETWORK, tmp_path, print)
  with pytest.raises(ValueError, match=r'^odds: got float64 \(50, 2\), expected numbers \(50, 2\)$'):
    made.keep(columns() | {'odds': np.full((50, 2), np.nan)})
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('damage', ['cut', 'empty', 'text', 'format', 'flipped'])
def test_a_damaged_one_is_refused(written, damage):
  path = written / 'dial.npz'
  content = path.read_bytes()
  if damage == 'format':
    rewrite(written, format=np.array('new'))
  else:
    middle = len(content) // 2
    flipped = content[: middle - 30] + bytes(255 - b for b in content[middle - 30 : middle]) + content[middle:]
    path.write_bytes({'cut': content[:middle], 'empty': b'', 'text': b'no archive', 'flipped': flipped}[damage])
  with pytest.raises(ValueError, match=rf'dial\.npz: damaged \(.*\){ADVICE}') as error:
    calibrating.read(written, NETWORK)
  assert '\n' not in str(error.value)


def test_none_is_told_with_what_to_do(tmp_path):
  with pytest.raises(FileNotFoundError, match=rf'dial\.npz: not there, and a budget needs it{BY_HAND}'):
    calibrating.read(tmp_path, NETWORK)
  (tmp_path / 'checkpoints').mkdir()
  with pytest.raises(FileNotFoundError, match=rf'dial\.npz: not there, and a budget needs it{ADVICE}'):
    calibrating.read(tmp_path, NETWORK)


@pytest.fixture(scope='module')
def engines():
  return Engines(NETWORK, max_batch=8)


def test_routers_are_kept_until_the_columns_change(engines, tmp_path):
  notes, budget = [], Budget.parse(0.6)
  made = calibrating.Calibration(engines.network, tmp_path, notes.append)
  with pytest.raises(FileNotFoundError, match=r'dial\.npz: not there'):
    made.router(engines, 'detail', budget)
  made.keep(columns() | {'confidence': np.zeros(50)})
  assert set(made.columns) == {'odds', 'energy'}
  router = made.router(engines, 'detail', budget)
  assert made.router(engines, 'detail', Budget.parse('0.6')) is router
  target = 0.6 * max(engines.macs)
  assert mean_cost(router, router.read(columns())) == pytest.approx(target, abs=max(engines.macs) / 50)
  again = calibrating.Calibration(engines.network, tmp_path, notes.append)
  assert again.router(engines, 'detail', budget).knob == router.knob
  made.keep(columns(40))
  assert made.router(engines, 'detail', budget) is not router
  assert notes == []


def test_a_budget_that_is_missed_is_noted_with_by_how_much(engines):
  notes = []
  made = calibrating.Calibration(engines.network, None, notes.append)
  with pytest.raises(FileNotFoundError, match=r'^calibration: none yet, expected a call of calibrate\(images\)'):
    _ = made.columns
  made.keep({name: np.repeat(column[:1], 7, 0) for name, column in columns().items()})
  for _ in range(3):
    made.router(engines, 'cascade', Budget.parse(0.7))
  (line,) = notes
  assert line.startswith("budget 0.7: on the 7 calibration images router 'cascade' comes to ")
  reached = float(line.split('comes to ')[1].split()[0])
  high, low = engines.macs
  assert reached in {round(low / (0.7 * high), 2), round((high + low) / (0.7 * high), 2)}


def test_of_many_budgets_the_latest_routers_are_kept(engines):
  made = calibrating.Calibration(engines.network, None, lambda line: None)
  made.keep(columns())
  budgets = [Budget(share, 'share') for share in np.linspace(0.4, 0.9, 70)]
  routers = [made.router(engines, 'random', budget) for budget in budgets]
  assert len(made._routers) == 64
  assert made.router(engines, 'random', budgets[-1]) is routers[-1]
  again = made.router(engines, 'random', budgets[0])
  assert again is not routers[0] and again == routers[0]


def test_limits_are_in_the_unit_of_the_budget(engines):
  high, low = engines.macs
  for text, limits in (('0.1', f'{low / high:g} to 1'), ('12', f'{low:g} to {high:g}')):
    with pytest.raises(ValueError, match=rf"^budget: got {text}, expected {limits} with router 'random'$"):
      calibrating.for_budget(engines, 'random', columns(), Budget.parse(text))


def test_the_limits_of_a_router(engines):
  assert calibrating.limits(Random((4.0, 1.0)), columns()) == (1.0, 4.0)
