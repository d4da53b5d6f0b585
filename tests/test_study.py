"""The numbers of the result page, from a tiny network: accuracy, crops, shares, gallery, seconds; the command."""

import json

import jax
import networks
import numpy as np
import optax
import pytest

from configs import default
from resjax import cli, models, report, rsnet
from resjax import config as configuration
from resjax.data.sources import FakeSource
from resjax.inference import Classifier
from resjax.measuring import curves, speed, study
from resjax.routing.known import Known
from resjax.training import state
from resjax.training.checkpoints import Checkpoints
from resjax.training.devices import Devices

NAMES = ('red', 'green', 'blue', 'black', 'white')
PIXELS = (16, 8)


def make_config(method='drnet'):
  config = default.get_config()
  config.method, config.resolutions = method, PIXELS
  config.model.name, config.model.num_classes, config.model.width = 'resnet_small', 5, 0.25
  config.drnet.predictor.size, config.drnet.predictor.width = 8, 0.25
  config.data.source, config.data.size, config.data.name = 'fake', 80, ''
  config.batch_size, config.eval.batch_size, config.epochs = 16, 40, 0.2
  return config


class Source(FakeSource):
  """Random images, one of which can't be read, with what each needs."""

  needed = np.resize([16, 8], 80)

  def __getitem__(self, index):
    example = super().__getitem__(index)
    return example | {'image': b'no image'} if index == 7 else example


@pytest.fixture(scope='module')
def source():
  return Source('test', 80, 5, 16)


@pytest.fixture(scope='module')
def classifier():
  return Classifier(networks.tiny('drnet', class_names=NAMES), max_batch=8, threads=2)


@pytest.fixture(scope='module')
def halved(classifier, source):
  return study.study(classifier, source, rounds=2, budget=0.6)


def single(classifier, source, numbers, resolution):
  """The classes that the network gives at one resolution, from crops of the largest."""
  place = PIXELS.index(resolution)
  return np.array(
    [classifier.engines.columns(study.cropped(classifier, source, [n]))['guess'][0, place] for n in numbers]
  )


def test_half_of_the_images_calibrate_and_the_others_are_scored(classifier, source, halved):
  found, _ = halved
  assert found['images'] == {'scored': 40, 'of': 80, 'unreadable': 1, 'seed': 0}
  assert found['calibration'] == {'images': 39, 'halved': True}
  numbers = [n for n in range(80) if n != 7][::2]
  labels = np.array(numbers) % 5
  for entry in found['resolutions']:
    guess = single(classifier, source, numbers, entry['pixels'])
    assert entry['top1'] == pytest.approx((guess == labels).mean())
    assert sum(b['images'] for b in entry['reliability']) == 40
  assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_given_a_calibration_every_image_is_scored(classifier, source):
  scored, unreadable = study.score(classifier, source, study.sample(80, 30))
  assert unreadable == (7 in study.sample(80, 30)) and len(scored.labels) == 30 - unreadable
  found, _ = study.study(classifier, source, scored.table, images=50, rounds=1)
  assert found['images']['scored'] == 50 - (7 in study.sample(80, 50))
  assert found['setting']['how'] == 'as trained' and found['setting']['router'] == 'predictor'


def test_curves_hold_every_router_the_oracle_and_the_known_answer(classifier, source, halved):
  found, _ = halved
  assert set(found['curves']) == {'static', 'predictor', 'cascade', 'detail', 'random', 'oracle', 'known'}
  numbers = np.array([n for n in range(80) if n != 7][::2])
  scored, _ = study.score(classifier, source, numbers.tolist())
  right = scored.table['guess'] == scored.labels[:, None]
  known = Known(classifier.network.macs, PIXELS)
  seen = {'needed': Source.needed[numbers], 'right': right}
  np.testing.assert_array_equal(known.choose(seen['needed']), numbers % 2)
  assert found['curves']['known'] == [curves.point(known, seen, ['16', '8'])]
  assert len(found['curves']['random']) == study.BUDGETS


def test_agreement_and_what_other_crops_change(classifier, source, halved):
  found, _ = halved
  numbers = [n for n in range(80) if n != 7][::2]
  high, low = (single(classifier, source, numbers, r) for r in PIXELS)
  assert found['agreement'][0][1] == pytest.approx((high == low).mean())
  (entry,) = found['crops']
  images = [source[n]['image'] for n in numbers]
  reference = np.array([p.class_index for p in classifier.predict(images, resolution=8)])
  labels = np.array(numbers) % 5
  assert entry['pixels'] == 8 and entry['other_class'] == pytest.approx((reference != low).mean())
  assert entry['from_full_image'] == pytest.approx((reference == labels).mean())
  assert entry['from_largest_crop'] == pytest.approx((low == labels).mean())


def test_the_gallery_shows_what_it_says(classifier, source, halved):
  found, pictures = halved
  kinds = [(row['kind'], row['pixels']) for row in found['gallery']]
  assert kinds[:3] == [('smallest', 8), ('smallest', 16), ('never', 16)]
  assert sum(row['count'] for row in found['gallery'][:3]) == sum(row['count'] for row in found['gallery'][3:]) == 40
  numbers = [n for n in range(80) if n != 7][::2]
  right = {
    n: [g == n % 5 for g in guess]
    for n, *guess in zip(numbers, *(single(classifier, source, numbers, r) for r in PIXELS))
  }
  for row in found['gallery']:
    for image in row['images']:
      n = image['number']
      np.testing.assert_array_equal(pictures[n], study.cropped(classifier, source, [n])[0])
      assert image['label'] == NAMES[n % 5] and image['right'] == right[n][PIXELS.index(row['pixels'])]
      assert row['kind'] != 'smallest' or right[n][::-1].index(True) == PIXELS[::-1].index(row['pixels'])
      assert row['kind'] != 'never' or not any(right[n])
    odds = [image['probability'] for image in row['images']]
    assert odds == sorted(odds, reverse=True)


def test_shares_by_class_are_those_of_the_setting(halved):
  setting = halved[0]['setting']
  assert setting['how'] == 'budget 0.6' and set(setting['by_class']) == set(NAMES)
  assert list(setting['share']) == ['16', '8'] and sum(setting['share'].values()) == pytest.approx(1)
  counts = np.bincount([n % 5 for n in range(80) if n != 7][::2])
  for name, share in setting['share'].items():
    assert np.average([setting['by_class'][k][name] for k in NAMES], 0, counts) == pytest.approx(share)


def test_a_setting_in_milliseconds_is_charged_in_multiply_adds(classifier, source):
  """The knob is set by the cost table; what it comes to is told in the unit of the page."""
  made = Classifier(classifier.network, max_batch=8, threads=2)
  engines = made.engines
  engines.engine.costs.seconds[:, -1], engines.scorer.costs.seconds[:, -1] = [0.8, 0.08], 0.008  # of eight images
  found, _ = study.study(made, source, images=20, rounds=1, budget='90ms')
  setting, high = found['setting'], engines.macs[0] + engines.predictor_macs
  assert setting['how'] == 'budget 90ms' and setting['share']['16'] > 0.5
  charged = [macs + engines.predictor_macs for macs in engines.macs]
  assert setting['macs'] == pytest.approx(np.dot(list(setting['share'].values()), charged)) and setting['macs'] <= high


def test_speed_is_compared_with_the_largest_in_one_run(classifier, halved):
  found = halved[0]['speed']
  assert found['rounds'] == 2 and found['images'] == min(speed.images(classifier.engines), 40)
  names = [way['name'] for way in found['ways']]
  assert names[:2] == ['static', 'static'] and set(names) >= {'predictor', 'cascade', 'random', 'oracle'}
  first, costs = found['ways'][0], classifier.network.macs
  assert first['speed_up']['median'] == first['real_over_theory']['median'] == first['theory'] == 1
  assert [way['macs'] for way in found['ways'][:2]] == list(costs)
  for way in found['ways']:
    assert way['theory'] == pytest.approx(costs[0] / way['macs'])
    assert way['real_over_theory']['median'] == pytest.approx(way['speed_up']['median'] / way['theory'])


def test_budgets_lie_between_the_resolutions(classifier):
  targets, costs = study.budgets(classifier.engines), classifier.network.macs
  assert len(targets) == study.BUDGETS and min(costs) < targets[0] < targets[-1] < max(costs)
  assert np.diff(targets) == pytest.approx(np.diff(targets)[0])


def test_one_resolution_is_no_comparison(classifier, source):
  alone = Classifier(classifier.network.at(16)[0])
  with pytest.raises(ValueError, match=r'resolutions: got \(16,\), expected two or more to compare'):
    study.study(alone, source)


@pytest.fixture
def workdir(tmp_path):
  """A folder as a run of an RS-Net leaves it, but for the training."""
  config = make_config('rsnet')
  devices = Devices(devices=jax.devices()[:1])
  variables = jax.jit(lambda key: rsnet.init(models.from_config(config), config, key))(jax.random.key(0))
  meta = {'config': configuration.to_json(config), 'class_names': NAMES, 'train_seconds': 1.0, 'finished': True}
  with Checkpoints(tmp_path / 'run') as checkpoints:
    fresh = devices.create(lambda: state.create(variables, optax.sgd(0.1), ema=False))
    checkpoints.save(fresh.replace(step=fresh.step + 1), meta, None)
  rows = {str(r): {'macs': r, 'top1': r / 100, 'top5': 1.0, 'images': 80} for r in PIXELS}
  results = {'method': 'rsnet', 'resolutions': rows, 'ensemble': {'top1': 0.2, 'top5': 1.0}, 'params': 1}
  report.write(results | {'train_seconds': 1.0, 'versions': {}, 'config': meta['config']}, tmp_path / 'run')
  return tmp_path / 'run'


def test_the_command_writes_a_page_and_its_numbers(workdir, tmp_path, capsys):
  out = tmp_path / 'page.html'
  arguments = [f'--workdir={workdir}', f'--out={out}', '--rounds=1', '--images=40', '--max-batch=8']
  cli.main(['report', *arguments])
  found = json.loads(out.with_suffix('.json').read_text())
  assert found['calibration']['origin'] == 'every second image' and not (workdir / 'dial.npz').exists()
  assert found['changed']['batch_size'] == 16 and 'seed' not in found['changed'] and found['config']['seed'] == 0
  assert found['setting']['router'] == 'cascade' and found['setting']['how'] == 'budget 0.5'
  assert found['reported'] == {'pyramid': 'host', 'images': 80, 'top1': {'16': 0.16, '8': 0.08}}
  html = out.read_text()
  assert '<h1>rsnet, resnet_small, fake</h1>' in html and '--images=40' in html
  assert str(out.with_suffix('.json')) in capsys.readouterr().out


@pytest.mark.parametrize(
  ('argument', 'message'),
  [
    ('--out={}/none/page.html', 'error: .*no folder .*expected one to write to'),
    ('--budget=much', "error: budget: got 'much', expected a share such as 0.6"),
    ('--budget=0.001', 'error: budget: got .* expected .* to .* with router'),
  ],
)
def test_what_is_wrong_ends_in_one_line(workdir, tmp_path, argument, message):
  with pytest.raises(SystemExit, match=message):
    cli.main(['report', f'--workdir={workdir}', '--images=40', '--max-batch=8', argument.format(tmp_path)])


def test_a_split_for_it_calibrates_once(classifier, tmp_path):
  config, made = make_config(), Classifier(classifier.network, workdir=tmp_path, max_batch=8)
  assert study.reference_of(made, config) == (None, 'every second image')
  config.eval.calibration_split = 'calibration'
  table, origin = study.reference_of(made, config, images=20)
  assert origin == "split 'calibration'" and len(table['energy']) == 20 and (tmp_path / 'dial.npz').is_file()
  again, origin = study.reference_of(made, config)
  assert again is table and origin == 'dial.npz'


def test_the_command_says_what_the_calibration_was_made_on(workdir, capsys, monkeypatch):
  options = [f'--workdir={workdir}', '--max-batch=8']
  cli.main(['calibrate', *options])

  def stopped(*args, **fields):
    raise ValueError('enough')

  monkeypatch.setattr(study, 'study', stopped)
  with pytest.raises(SystemExit, match='enough'):
    cli.main(['report', *options])
  assert 'calibration: dial.npz, made on 80 images of split validation\n' in capsys.readouterr().err
  with pytest.raises(SystemExit, match='enough'):
    cli.main(['report', *options, '--config.data.size=90'])
  assert 'images of split validation (others by now: ' in capsys.readouterr().err
