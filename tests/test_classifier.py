"""From a checkpoint and images to predictions: the evaluation's crops, every router, budgets, what can't be read."""

import io
import logging

import jax
import networks
import numpy as np
import pytest
from networks import NAMES
from PIL import Image

from resjax import preprocess
from resjax.data.crops import centre_crops
from resjax.inference import Classifier
from resjax.inference.images import items
from resjax.routing import Budget
from resjax.routing.dial import at_knob

# The same sums in another order, of logits of order 1.
TOLERANCE = 1e-5


@pytest.fixture(scope='module', params=['rsnet', 'drnet'])
def network(request):
  """One whose BatchNorm sets differ."""
  return networks.tiny(request.param)


@pytest.fixture(scope='module')
def photographs():
  """Of many sizes."""
  rng = np.random.default_rng(0)
  return [rng.integers(0, 256, (*rng.integers(14, 40, 2), 3), np.uint8) for _ in range(60)]


@pytest.fixture(scope='module')
def classifier(network):
  return Classifier(network, max_batch=8, threads=2, promote=False)


class Wrapped:
  """A network of another kind: what predicting takes of one, and nothing else."""

  runtime = 'onnx'
  knobs = {('cascade', Budget.parse('0.6')): 0.5}  # noqa: RUF012

  def __init__(self, network):
    for name in ('resolutions', 'preprocessing', 'class_names', 'num_classes', 'macs', 'digest', 'predictor'):
      setattr(self, name, getattr(network, name))
    for name in ('function', 'scoring'):
      setattr(self, name, getattr(network, name))

  def with_dtype(self, dtype):
    return self


def test_whatever_predicts_is_taken(network, photographs, classifier):
  found = Classifier(Wrapped(network), max_batch=8, promote=False)
  knob = at_knob(classifier.engines.router('cascade'), 0.5)
  for way, same in [({'router': 'cascade', 'budget': 0.6}, {'router': knob})]:
    expected = [(p.label, p.resolution) for p in classifier.predict(photographs, **same)]
    assert [(p.label, p.resolution) for p in found.predict(photographs, **way)] == expected
  assert 'onnxruntime' in found.engines.engine.runtime.identity.runtime
  with pytest.raises(TypeError, match=r'^network: got str, expected a Network'):
    Classifier('runs/quickstart')


def crop_of(network, image, size):
  """As evaluation crops it."""
  preprocessing = network.preprocessing
  return centre_crops(image, (size,), preprocessing.crop_fraction, preprocessing.max_pixels)[0]


def logits_of(network, photographs, resolution, crop_size):
  """By the plain network, one image at a time."""
  apply = jax.jit(lambda view, images: network.model.apply(view, images, train=False))
  view = network.view(resolution)
  found = []
  for image in photographs:
    crop = crop_of(network, image, crop_size)
    (inputs,) = preprocess.prepare((crop[None],), (resolution,), network.preprocessing.normalize)
    found.append(np.asarray(apply(view, inputs))[0])
  return np.stack(found)


def check(predictions, logits, rows=None):
  rows = range(len(predictions)) if rows is None else rows
  for p, row in zip(predictions, rows):
    soft = np.exp(logits[row] - logits[row].max())
    assert (p.class_index, p.label) == (soft.argmax(), NAMES[soft.argmax()])
    assert p.probability == pytest.approx(soft.max() / soft.sum(), abs=TOLERANCE)


@pytest.mark.parametrize('resolution', [16, 8])
def test_a_fixed_resolution_is_the_reference_evaluation(network, photographs, classifier, resolution):
  predictions = classifier.predict(photographs, resolution=resolution)
  check(predictions, logits_of(network, photographs, resolution, crop_size=resolution))
  assert [p.image for p in predictions] == [str(i) for i in range(60)]
  place = (16, 8).index(resolution)
  assert {(p.resolution, p.macs) for p in predictions} == {(resolution, classifier.network.macs[place])}


def test_columns_are_what_the_network_says_at_each_resolution(network, photographs, classifier):
  table, readable = classifier.columns(photographs)
  assert readable.all()
  for place, resolution in enumerate((16, 8)):
    logits = logits_of(network, photographs, resolution, crop_size=16).astype(float)
    soft = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_array_equal(table['guess'][:, place], logits.argmax(1))
    np.testing.assert_allclose(table['confidence'][:, place], soft.max(1), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(table['odds'][:, place], np.log(soft.max(1) / (1 - soft.max(1))), rtol=0, atol=1e-4)


@pytest.mark.parametrize('name', ['predictor', 'cascade', 'detail', 'random'])
def test_a_budget_is_met_and_every_image_has_the_logits_of_its_resolution(network, photographs, classifier, name):
  classifier.calibrate(photographs)
  if name not in classifier.engines.routers:
    with pytest.raises(ValueError, match=r"router: got 'predictor', expected one of cascade, detail, random"):
      classifier.predict(photographs, router=name, budget=0.6)
    return
  predictions = classifier.predict(photographs, router=name, budget=0.6)
  places = np.array([(16, 8).index(p.resolution) for p in predictions])
  assert set(places) == {0, 1}
  for place, resolution in enumerate((16, 8)):
    rows = np.flatnonzero(places == place)
    check([predictions[r] for r in rows], logits_of(network, photographs, resolution, crop_size=16), rows)
  costs = np.array(classifier.network.macs, float)
  ran = costs + costs[1] * np.array([1, 0]) if name == 'cascade' else costs
  own = classifier.engines.predictor_macs if name == 'predictor' else 0
  np.testing.assert_allclose([p.macs for p in predictions], ran[places] + own)
  slack = 0.15 if name == 'random' else 1 / 60  # 60 draws of two resolutions; else one image
  assert np.mean([p.macs for p in predictions]) == pytest.approx(0.6 * costs[0], abs=slack * ran.max())


def test_following_keeps_images_unlike_the_calibration_on_the_budget(network, photographs):
  classifier = Classifier(network, max_batch=2)  # a chunk is eight images
  flat = [np.full((20, 20, 3), 100, np.uint8) + np.uint8(i) for i in range(60)]
  classifier.calibrate(flat)
  largest = classifier.network.macs[0]
  alone, followed = (
    np.mean([p.macs for p in classifier.predict(photographs, router='cascade', budget=0.7, follow=follow)]) / largest
    for follow in (False, True)
  )
  assert abs(alone - 0.7) > 2 * abs(followed - 0.7) and followed == pytest.approx(0.7, abs=0.15)


def test_without_options_the_predictor_chooses_or_the_largest_runs(network, photographs, classifier):
  predictions = classifier.predict(photographs)
  if network.predictor is None:
    assert {p.resolution for p in predictions} == {16}
    return
  crops = np.stack([crop_of(network, image, 16) for image in photographs])
  inputs = preprocess.prepare((crops,), (16,), network.preprocessing.normalize)
  scores, _ = network.predictor.scores(network.predictor_variables, inputs[0], train=False)
  assert [p.resolution for p in predictions] == [(16, 8)[place] for place in np.asarray(scores).argmax(1)]


@pytest.mark.parametrize('arguments', [(1,), ('variables', 'config', NAMES)])
def test_what_version_0_1_took_is_refused_with_what_to_type_instead(network, arguments):
  for first in (network, network.model):
    with pytest.raises(
      TypeError,
      match=rf'^network: got {type(first).__name__}, expected a Network: Classifier\(resjax.Network\(model, variables, '
      r'resolutions, preprocessing, class_names\)\)$',
    ):
      Classifier(first, *arguments)


def test_a_config_is_refused_with_what_to_type_instead(classifier):
  with pytest.raises(AttributeError, match=r'^config: .* type resjax.trained.read\(workdir\).config$'):
    _ = classifier.config


def test_a_classifier_has_the_networks_names_and_resolutions(network):
  classifier = Classifier(network.replace(class_names=('a', 'b')))
  assert classifier.class_names == ('a', 'b', '2', '3', '4') and classifier.resolutions == (16, 8)


def test_another_dtype_is_the_networks(network):
  assert Classifier(network, dtype='bfloat16').network.model.dtype == 'bfloat16'
  with pytest.raises(ValueError, match="dtype: got 'float16', expected 'float32' or 'bfloat16'"):
    Classifier(network, dtype='float16')


def test_sizes_that_were_not_trained_are_served_and_named(photographs, classifier, caplog):
  with caplog.at_level(logging.WARNING):
    predictions = classifier.predict(photographs[:9], resolution=12)
  assert {p.resolution for p in predictions} == {12}
  assert '12 px: BatchNorm interpolated between 8 and 16 px' in caplog.text
  assert classifier.notes[-1] == '12 px: BatchNorm interpolated between 8 and 16 px'
  assert {p.resolution for p in classifier.predict(photographs[:9], resolution=(8, 16))} == {(8, 16)}
  assert '8x16' in classifier.notes[-1]


def test_statistics_of_given_images_serve_a_size(network, photographs):
  classifier = Classifier(network, max_batch=8)
  before = classifier.predict(photographs, resolution=8)
  classifier.recalibrate([8, 8], photographs)
  after = classifier.predict(photographs, resolution=(8, 8))
  assert '8 px: BatchNorm statistics from 60 images, few to go by: expected 64 or more' in classifier.notes
  assert {p.resolution for p in after} == {8}
  assert max(abs(a.probability - b.probability) for a, b in zip(after, before)) > 1e-3


def test_without_a_budget_the_predictor_is_what_it_was_trained_to_be(network, photographs):
  if network.predictor is not None:
    eager = Classifier(network, max_batch=8)
    eager.predict(photographs)
    assert eager.counts.images == 60 and eager.counts.promoted == 0


def test_files_folders_bytes_and_what_can_not_be_read(photographs, classifier, tmp_path):
  folder = tmp_path / 'photographs'
  (folder / 'more').mkdir(parents=True)
  Image.fromarray(photographs[0]).save(folder / 'b.png')
  Image.fromarray(photographs[1]).save(folder / 'more' / 'a.PNG')
  (folder / 'note.txt').write_text('no image')
  (folder / 'a.jpg').write_bytes(b'no JPEG')
  buffer = io.BytesIO()
  Image.fromarray(photographs[2]).save(buffer, 'PNG')
  found = classifier.predict([folder, buffer.getvalue(), folder / 'none.png', photographs[3]], resolution=16)
  names = [str(folder / 'a.jpg'), str(folder / 'b.png'), str(folder / 'more' / 'a.PNG'), '3', str(folder / 'none.png')]
  assert [p.image for p in found] == [*names, '5']
  assert [p.error is None for p in found] == [False, True, True, True, False, True]
  assert 'No such file' in found[4].error and found[0].class_index is None
  whole = classifier.predict(photographs[:4], resolution=16)
  assert [p.probability for p in found if p.error is None] == pytest.approx([p.probability for p in whole], abs=1e-6)


@pytest.mark.parametrize(
  ('images', 'options', 'message'),
  [
    (np.zeros((4, 4, 3)), {}, r'images: got float64 \(4, 4, 3\), expected uint8 \[H, W, 3\] or \[N, H, W, 3\]'),
    (7, {}, 'images: got int, expected files, folders or arrays'),
    ([], {'resolution': 8, 'budget': 0.5}, 'resolution: got 8 with a budget or router, expected one or the other'),
    ([], {'router': 'cascade'}, "budget: missing, expected one to set the knob of router 'cascade'"),
    ([], {'budget': 'much'}, "budget: got 'much', expected a share such as 0.6, multiply-adds such as 9e8, or mill"),
    ([], {'budget': 0.001, 'router': 'cascade'}, 'budget: got .* expected .* to .* with router'),
    ([], {'resolution': 0}, 'resolution'),
    ([], {'router': 'best', 'budget': 0.5}, "router: got 'best', expected one of predictor, cascade, detail, random"),
    ([], {'follow': True}, 'follow: got True without a budget, expected a budget to follow'),
    ([], {'unseen_by': 'magic'}, "unseen_by: got 'magic', expected one of interpolate, nearest"),
  ],
)
def test_what_is_wrong_is_named_in_one_line(photographs, classifier, images, options, message):
  classifier.calibrate(photographs[:8])
  with pytest.raises(ValueError, match=message) as error:
    classifier.predict(images, **options)
  assert '\n' not in str(error.value)


def test_a_budget_needs_a_calibration(network, photographs):
  fresh = Classifier(network, max_batch=8)
  with pytest.raises(FileNotFoundError, match=r'calibration: none yet, expected a call of calibrate\(images\)'):
    fresh.predict(photographs, budget=0.5, router='cascade')


def test_a_calibration_in_the_workdir_serves_the_weights_that_it_was_made_with(network, photographs, tmp_path):
  of = lambda made: Classifier(made, workdir=tmp_path, max_batch=8)
  first = of(network)
  first.calibrate(photographs)
  again = of(network.replace(variables=jax.tree.map(jax.numpy.asarray, network.variables))).calibrated
  assert again.keys() == first.calibrated.keys()
  for name, column in first.calibrated.items():
    np.testing.assert_array_equal(again[name], column)
  variables = network.variables
  changed = variables | {'batch_stats': jax.tree.map(lambda x: x * 1.001, variables['batch_stats'])}
  with pytest.raises(ValueError, match=r'dial\.npz: made with other weights, expected those .*; calibrate first'):
    _ = of(network.replace(variables=changed)).calibrated
  (tmp_path / 'dial.npz').write_bytes(b'PK')
  with pytest.raises(ValueError, match=r'dial\.npz: damaged .*; calibrate first: classifier'):
    _ = of(network).calibrated


def test_no_images_are_no_predictions(classifier):
  assert classifier.predict([], resolution=8) == [] and items([]) == []
