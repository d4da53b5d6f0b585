"""The dial's steps, and batches that are classified at them: in this process, without a server."""

import dataclasses
import itertools
import time

import msgspec
import networks
import numpy as np
import pytest

from resjax.inference import Classifier
from resjax.routing.dial import mean_cost
from resjax.routing.predictor import Predictor
from resjax.serving import slo
from resjax.serving.classifying import Classifying
from resjax.serving.messages import Cut, Reply
from resjax.serving.settings import Depth, Settings
from resjax.serving.steps import Highest, ladder

SIZES = (16, 12, 8)


def photographs(count, seed):
  rng = np.random.default_rng(seed)
  return [rng.integers(0, 256, (*rng.integers(14, 40, 2), 3), np.uint8) for _ in range(count)]


def make(method='rsnet', calibrated=True):
  """A classifier of three resolutions whose times are known."""
  network = networks.tiny(method)
  if method == 'rsnet':
    variables = network.at(12)[0].variables
    params = variables['params'] | {'alpha': np.zeros(3, np.float32)}
    network = network.replace(resolutions=SIZES, variables=variables | {'params': params})
  classifier = Classifier(network, max_batch=4, promote=False)
  costs = classifier.engines.engine.costs
  seconds = (
    0.004 * np.array([[1.0], [0.6], [0.3]][: len(network.resolutions)]) * np.array(classifier.engines.engine.buckets)
  )
  classifier.engines.engine.costs = costs._replace(seconds=seconds)
  if calibrated:
    classifier.calibrate(photographs(80, 1))
  return classifier


@pytest.fixture(scope='module')
def calibrated():
  return make()


@pytest.fixture(scope='module')
def plain():
  return make(calibrated=False)


@pytest.fixture(scope='module')
def crops(plain):
  return np.stack([plain.crop(image) for image in photographs(12, 0)])


def test_without_a_calibration_the_resolutions_are_the_steps(plain):
  steps = ladder(plain)
  assert [(step.name, round(step.seconds, 6)) for step in steps] == [
    ('16 px', 0.004),
    ('12 px', 0.0024),
    ('8 px', 0.0012),
  ]
  assert [step.name for step in ladder(plain, lowest=12)] == ['16 px', '12 px']
  assert [step.name for step in ladder(plain, lowest=16)] == ['16 px']
  with pytest.raises(
    ValueError, match=r"^router: got 'cascade' without a calibration, expected static: calibration: n"
  ):
    ladder(plain, 'cascade')
  with pytest.raises(ValueError, match=r'^min-resolution: got 10, expected one of 16, 12, 8$'):
    ladder(plain, lowest=10)


def test_a_resolution_takes_no_less_than_its_share_of_the_multiply_adds(plain, monkeypatch):
  engine, macs = plain.engines.engine, plain.engines.macs
  hasty = np.array([[0.004], [0.0001], [0.0012]]) * np.array(engine.buckets)  # measured while others worked
  monkeypatch.setattr(engine, 'costs', engine.costs._replace(seconds=hasty))
  seconds = [step.seconds for step in ladder(plain)]
  np.testing.assert_allclose(seconds, [0.004, 0.004 * macs[1] / macs[0], max(0.0012, 0.004 * macs[2] / macs[0])])


@pytest.mark.parametrize('router', ['cascade', 'detail', 'random'])
def test_with_a_calibration_budgets_stand_between_the_largest_and_the_lowest(calibrated, router):
  steps = ladder(calibrated, router)
  assert len(steps) > 3 and (steps[0].name, steps[-1].name) == ('16 px', '8 px')
  assert all(step.name.startswith(router) for step in steps[1:-1])
  seconds = [step.seconds for step in steps]
  assert all(after < 0.94 * before for before, after in itertools.pairwise(seconds[:-1])) and seconds[-1] < seconds[-2]
  with pytest.raises(ValueError, match=r"^router: got 'predictor', expected one of static, cascade, detail, random wi"):
    ladder(calibrated, 'predictor')


@pytest.mark.parametrize('router', ['cascade', 'detail', 'random'])
@pytest.mark.parametrize('lowest', [12, 8])
def test_no_step_runs_an_image_below_the_lowest_resolution_that_is_allowed(calibrated, crops, router, lowest):
  seen = []
  for step in ladder(calibrated, router, lowest):
    found = calibrated.predict_crops(crops, router=step.router)
    seen.append({p.resolution for p in found})
    assert min(seen[-1]) >= lowest
  assert seen[0] == {16} and seen[-1] == {lowest}
  assert any(len(sizes) > 1 for sizes in seen)


def test_resolutions_are_the_steps_unless_a_router_is_named_or_there_is_a_predictor(calibrated):
  assert [step.name for step in ladder(calibrated)] == ['16 px', '12 px', '8 px']
  assert [step.name for step in ladder(calibrated, 'static', 12)] == ['16 px', '12 px']


def test_at_a_step_images_of_the_calibration_cost_what_it_says(calibrated):
  for step in ladder(calibrated, 'detail')[1:-1]:
    rule = step.router._router
    cost = mean_cost(rule, rule.read(calibrated.calibrated))
    assert cost / calibrated.network.macs[0] == pytest.approx(float(step.name.split()[1]), abs=0.02)


def test_the_predictor_of_a_drnet_is_its_dial(crops):
  classifier = make('drnet')
  steps = ladder(classifier)
  assert {step.name.split()[0] for step in steps[1:-1]} <= {'predictor'} and len(steps) >= 2
  for step in steps:
    assert classifier.predict_crops(crops, router=step.router)


def test_a_router_of_the_highest_resolutions_sees_these_alone():
  class Seen:
    """Images whose scores are for the lowest resolution."""

    spent = np.zeros(2)
    __len__ = lambda self: 2
    __contains__ = lambda self, column: column == 'scores'
    __getitem__ = lambda self, column: np.array([[0.2, 0.1, 0.9], [0.1, 0.3, 0.9]])
    run = lambda self, choice, rows=None, promote=True: (np.zeros((2, 5)), choice)

  found = Highest(Predictor((3.0, 2.0))).run(Seen())
  assert found.places.tolist() == [0, 1] and found.macs is Seen.spent


def cuts(crops, waited=0.0, budgets=(None,)):
  return [Cut(crop, time.monotonic() - waited, budgets[i % len(budgets)]) for i, crop in enumerate(crops)]


def test_a_queue_turns_the_dial_of_the_classifying_process(calibrated, crops):
  depth = [1]
  settings = Settings('', p95=0.1, min_resolution='12', router='detail')
  classifying = Classifying(calibrated, settings, lambda: depth[0])
  assert [step.name for step in classifying.steps][-1] == '12 px'
  calm = classifying.replies(cuts(crops[:2]))
  assert {reply.prediction['resolution'] for reply in calm} == {'16'} and calm[0].dial == '16 px'
  assert msgspec.json.decode(msgspec.json.encode(calm[0]), type=Reply) == calm[0]  # as it is sent
  depth[0] = 400
  busy = classifying.replies(cuts(crops))
  assert {reply.prediction['resolution'] for reply in busy} == {'12'} and busy[0].dial == '12 px'
  late = Classifying(calibrated, settings)
  assert late.replies(cuts(crops[:1], waited=0.09))[0].dial == '12 px'  # it waited too long, however few there are
  assert busy[0].seconds == pytest.approx(classifying.steps[-1].seconds * classifying.dial.pace)
  assert dataclasses.replace(classifying.dial, pace=1.0) != slo.Dial()


def test_images_of_several_budgets_in_a_batch_get_each_its_own(calibrated, crops):
  classifying = Classifying(calibrated, Settings('', top_k=2))
  budgets = (None, '0.5', '0.7', '0.001')
  found = classifying.replies(cuts(crops, budgets=budgets))
  for place, asked in enumerate(({'resolution': 16}, {'budget': 0.5}, {'budget': 0.7})):
    expected = calibrated.predict_crops(crops[place::4], top_k=2, **asked)
    got = [reply.prediction for reply in found[place::4]]
    assert [(g['label'], g['resolution'], g['macs']) for g in got] == [
      (p.label, str(p.resolution), p.macs) for p in expected
    ]
    assert [g['top'] for g in got] == [[pytest.approx(guess._asdict()) for guess in p.top] for p in expected]
  assert all(reply.error.startswith('budget: got 0.001, expected') and not reply.prediction for reply in found[3::4])


def test_one_resolution_for_all_is_run_as_predict_runs_it(plain):
  classifying = Classifying(plain, Settings('', resolution='8'))
  image = np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)
  assert classifying.described()['size'] == 8
  (found,) = classifying.replies(cuts([plain.crop(image, 8)]))
  (expected,) = plain.predict(image, resolution=8)
  assert found.prediction['probability'] == pytest.approx(expected.probability)
  assert (found.prediction['label'], found.prediction['macs']) == (expected.label, expected.macs)


def test_the_depth_that_is_written_is_read_elsewhere(tmp_path):
  first, second = Depth(tmp_path), Depth(tmp_path)
  assert second.images == 0
  first.images = 70
  assert second.images == 70
