"""Routers of a classifier: set to a budget once, noted once where they miss it; a new one is a class and an entry."""

import dataclasses
import logging
from typing import ClassVar

import networks
import numpy as np
import pytest

from resjax import routing
from resjax.inference import Classifier, calibrating
from resjax.routing import dial
from resjax.routing.dial import mean_cost
from resjax.routing.random import even_draws
from resjax.routing.router import Dialled


@pytest.fixture(scope='module', params=['rsnet', 'drnet'])
def network(request):
  """One whose BatchNorm sets differ."""
  return networks.tiny(request.param)


@pytest.fixture(scope='module')
def photographs():
  """Of many sizes."""
  rng = np.random.default_rng(0)
  return [rng.integers(0, 256, (*rng.integers(14, 40, 2), 3), np.uint8) for _ in range(60)]


def test_milliseconds_are_a_budget(network, photographs):
  classifier = Classifier(network, max_batch=8, threads=2, promote=False)
  classifier.calibrate(photographs)
  classifier.engines.engine.costs.seconds[:, -1] = [0.8, 0.08]  # of eight images
  for engine in filter(None, [classifier.engines.scorer]):
    engine.costs.seconds[:, -1] = 0.008
  router = classifier.router('random', '55ms')
  assert router.costs == pytest.approx((100, 10)) and router.charged.tolist() == pytest.approx([100, 10])
  assert mean_cost(router, even_draws(1000)) == pytest.approx(55, abs=1.5)  # one of 60 images: 1.5
  assert classifier.router('random', ' 55 ms') is router is classifier.router('random', routing.Budget(55, 'ms'))
  if network.predictor is not None:
    assert classifier.router('predictor', '55ms').own == pytest.approx(1)
  with pytest.raises(ValueError, match=r"^budget: got 120ms, expected 10ms to 100ms with router 'random'$"):
    classifier.router('random', '120ms')
  high, low = classifier.network.macs
  with pytest.raises(ValueError, match=rf"^budget: got 0\.1, expected {low / high:g} to 1 with router 'random'$"):
    classifier.router('random', 0.1)
  with pytest.raises(ValueError, match=rf"^budget: got 12, expected {low:g} to {high:g} with router 'random'$"):
    classifier.router('random', 12)


def test_a_dialled_router_is_made_once(network, photographs):
  classifier = Classifier(network, max_batch=8, threads=2)
  classifier.calibrate(photographs)
  for name in classifier.engines.routers:
    router = classifier.router(name, 0.6)
    assert classifier.router(name, 0.6) is router is classifier.router(name, '0.6')
    assert classifier.router(name, 0.7) is not router
  assert classifier.router(None, 0.6) is classifier.router(classifier.engines.routers[0], 0.6)
  before = classifier.router('cascade', 0.6)
  classifier.calibrate(photographs[:30])
  assert classifier.router('cascade', 0.6) is not before


def test_a_budget_that_is_missed_is_noted_once(network, photographs, caplog):
  """Three images alike: no knob comes near to what was asked, and that is said, but not 50 times."""
  classifier = Classifier(network, max_batch=8, threads=2)
  classifier.calibrate([photographs[0]] * 3)
  with caplog.at_level(logging.WARNING):
    for _ in range(50):
      classifier.predict(photographs[:1], router='cascade', budget=0.7)
  (note,) = classifier.notes
  assert note.startswith("budget 0.7: on the 3 calibration images router 'cascade' comes to ")
  assert note.endswith(' of it and no nearer; more, or more varied, images would help')
  assert caplog.text.count('and no nearer') == 1


def test_of_many_notes_the_latest_are_kept(network, photographs):
  classifier = Classifier(network, max_batch=8, threads=2)
  classifier.calibrate([photographs[0]] * 3)
  for share in np.linspace(0.5, 0.9, 80):
    classifier.router('cascade', share)
  assert len(classifier.notes) == 64 and classifier.notes[-1].startswith('budget 0.9: ')


def test_to_follow_a_budget_no_router_is_dialled_again(network, photographs, monkeypatch):
  """One chunk needs the knob that the budget set; a second one the knob that the first asks for."""
  classifier = Classifier(network, max_batch=8, threads=2)
  classifier.calibrate(photographs)
  router, dialled = classifier.router('cascade', 0.6), []
  monkeypatch.setattr(dial, 'dialled', lambda *arguments: dialled.append(arguments) or router)
  for _ in range(3):
    classifier.predict(photographs[:32], router='cascade', budget=0.6, follow=True)
  assert not dialled
  classifier.predict(photographs[:33], router='cascade', budget=0.6, follow=True)
  assert len(dialled) == 1


@dataclasses.dataclass(frozen=True)
class Brightest(Dialled):
  """Sends bright images up: it looks for what no other router reads."""

  name: ClassVar[str] = 'brightest'
  help: ClassVar[str] = 'a toy'
  style: ClassVar[tuple[str, str]] = ('#000000', 'x')
  reads: ClassVar[str] = 'brightness'
  look = staticmethod(lambda crops: crops.mean((1, 2, 3)))

  costs: tuple[float, ...]
  knob: float = 0.0

  def choose(self, column):
    return (column / 255 < self.knob).astype(int)


def test_a_new_router_is_a_class_and_an_entry(network, photographs, monkeypatch, tmp_path):
  """Of a classifier that is there already, too; what it looks for is kept with the calibration."""
  classifier = Classifier(network, workdir=tmp_path, max_batch=8, threads=2, promote=False)
  classifier.calibrate(photographs)
  monkeypatch.setitem(routing.ROUTERS, 'brightest', Brightest)
  assert classifier.engines.routers[-1] == 'brightest'
  with pytest.raises(
    FileNotFoundError, match=r"^column 'brightness': none, expected one for router 'brightest': calib"
  ):
    classifier.predict(photographs, router='brightest', budget=0.6)
  classifier.calibrate(photographs)
  predictions = classifier.predict(photographs, router='brightest', budget=0.6)
  brightness = classifier.calibrated['brightness']
  knob = classifier.router('brightest', 0.6).knob
  assert [p.resolution for p in predictions] == [8 if b / 255 < knob else 16 for b in brightness]
  largest = classifier.network.macs[0]
  assert np.mean([p.macs for p in predictions]) == pytest.approx(0.6 * largest, abs=largest / 60)
  kept = calibrating.read(tmp_path, network)
  np.testing.assert_array_equal(kept['brightness'], brightness)
  calibrating.write(tmp_path, network, kept | {'brightness': brightness[1:]})
  with pytest.raises(ValueError, match=r'dial.npz: damaged .brightness: got float64 .59,., expected numbers .60, '):
    calibrating.read(tmp_path, network)


def test_a_router_that_is_made_runs_as_it_is(network, photographs):
  classifier = Classifier(network, max_batch=8, threads=2)
  classifier.calibrate(photographs)
  router = classifier.router('cascade', 0.6)
  found, named = (
    [(p.class_index, p.resolution, p.macs) for p in classifier.predict(photographs, **options)]
    for options in ({'router': router}, {'router': 'cascade', 'budget': 0.6})
  )
  assert found == named and len({resolution for _, resolution, _ in found}) == 2
  lowest = len(network.resolutions) - 1
  low = routing.fixed.Fixed(router.costs, lowest)
  assert {p.resolution for p in classifier.predict(photographs, router=low)} == {network.resolutions[-1]}
  with pytest.raises(ValueError, match=r'^budget: got 0\.6 with a router that is made, expected one or the other$'):
    classifier.predict(photographs, router=low, budget=0.6)
  with pytest.raises(ValueError, match='^resolution: got 8 with a budget or router'):
    classifier.predict(photographs, router=low, resolution=8)
