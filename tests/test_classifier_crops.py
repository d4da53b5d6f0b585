"""Crops in, predictions out: cropped once, as images are; and from many threads at once."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import networks
import numpy as np
import pytest
from PIL import Image

from resjax.data.decode import BadImage
from resjax.inference import Classifier, engines
from resjax.routing.fixed import Fixed


@pytest.fixture(scope='module')
def photographs():
  rng = np.random.default_rng(0)
  return [rng.integers(0, 256, (*rng.integers(14, 40, 2), 3), np.uint8) for _ in range(20)]


@pytest.fixture(scope='module', params=['rsnet', 'drnet'])
def classifier(request, photographs):
  made = Classifier(networks.tiny(request.param), max_batch=2, promote=False)  # a chunk is eight images
  made.calibrate(photographs)
  return made


def encoded(image):
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'PNG')
  return buffer.getvalue()


@pytest.mark.parametrize(
  'asked',
  [{}, {'resolution': 8}, {'resolution': (8, 16)}, {'budget': 0.6}, {'budget': 0.6, 'router': 'cascade', 'top_k': 3}],
)
def test_crops_get_the_predictions_of_their_images(classifier, photographs, asked):
  size = asked.get('resolution')
  crops = np.stack([classifier.crop(image if i % 2 else encoded(image), size) for i, image in enumerate(photographs)])
  assert classifier.predict_crops(crops, **asked) == classifier.predict(photographs, **asked)


def test_a_made_router_takes_crops_too(classifier, photographs):
  crops = np.stack([classifier.crop(image) for image in photographs])
  low = Fixed(tuple(map(float, classifier.network.macs)), 1)
  assert {p.resolution for p in classifier.predict_crops(crops, router=low)} == {8}
  dialled = classifier.router('cascade', 0.6)
  assert classifier.router('cascade', '0.6') is dialled
  assert classifier.predict_crops(crops, router=dialled) == classifier.predict_crops(
    crops, router='cascade', budget=0.6
  )


def test_what_is_no_crop_is_refused(classifier):
  with pytest.raises(ValueError, match=r'^crops: got uint8 \(2, 8, 8, 3\), expected uint8 \[N, 16, 16, 3\]$'):
    classifier.predict_crops(np.zeros((2, 8, 8, 3), np.uint8))
  with pytest.raises(ValueError, match=r'^crops: got float64 \(2, 8, 8, 3\), expected uint8 \[N, 8, 8, 3\]$'):
    classifier.predict_crops(np.zeros((2, 8, 8, 3)), resolution=8)
  with pytest.raises(BadImage, match='not an image file'):
    classifier.crop(b'text')
  assert classifier.predict_crops(np.zeros((0, 16, 16, 3), np.uint8)) == []


def test_threads_predict_at_once_as_one_does(photographs, monkeypatch):
  made, all_there = [], threading.Barrier(4)
  first = engines.Engines.__init__

  def counted(self, *arguments, **options):
    made.append(1)
    first(self, *arguments, **options)

  monkeypatch.setattr(engines.Engines, '__init__', counted)
  network = networks.tiny('drnet')
  alone, shared = Classifier(network, max_batch=4), Classifier(network, max_batch=4, strict=True)
  for each in (alone, shared):
    each.calibrate(photographs)
  ways = [{'budget': 0.6}, {'budget': 0.7}, {'router': 'cascade', 'budget': 0.6}, {'resolution': 8}]
  expected = [alone.predict(photographs, **way) for way in ways]
  begin, made[:] = shared.counts.images, []

  def work(number):
    all_there.wait()
    return [shared.predict(photographs, **ways[(number + turn) % 4]) for turn in range(8)]

  with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(work, range(4)))
  for number, answers in enumerate(found):
    assert answers == [expected[(number + turn) % 4] for turn in range(8)]
  assert len(made) == 1  # the programs at 8 px from crops of that size; the others were there
  cascades = sum(round(p.macs / network.macs[1]) > 1 for p in expected[2])
  assert shared.counts.images - begin == 8 * (20 * 3 + cascades)  # none is lost from the counts
