"""An archive in batches: the rows are `predict`'s, what can't be read is a row, a predictor travels and loads once."""

import io
import pickle
import threading

import networks
import numpy as np
import pytest
from PIL import Image

import resjax
from resjax.exporting import bundle
from resjax.inference import bulk
from resjax.routing import Budget

TYPES = {'class': 'i', 'probability': 'f', 'cost': 'f', 'path': 'U', 'name': 'U', 'resolution': 'U', 'error': 'U'}


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('bundles') / 'bundle'
  bundle.write(networks.tiny(), folder, knobs={('cascade', Budget.parse('0.6')): 0.5})
  return folder


@pytest.fixture
def loads(monkeypatch):
  """What was loaded."""
  found, load = [], resjax.Classifier.load
  bulk._loaded.cache_clear()
  monkeypatch.setattr(resjax.Classifier, 'load', lambda *args, **options: found.append(args) or load(*args, **options))
  return found


def encoded(seed, kind='png'):
  buffer = io.BytesIO()
  pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)
  Image.fromarray(pixels).save(buffer, kind)
  return buffer.getvalue()


def batch(contents):
  held = np.empty(len(contents), object)
  held[:] = contents
  return {'path': np.array([f'{i}.png' for i in range(len(contents))]), 'bytes': held}


@pytest.mark.parametrize('way', [{}, {'resolution': 8}, {'budget': 0.6, 'router': 'cascade'}])
def test_the_rows_are_what_predict_says(workdir, way):
  contents = [encoded(i) for i in range(10)]
  expected = resjax.Classifier.load(workdir, max_batch=4).predict(contents, **way)
  found = resjax.BatchPredictor(workdir, max_batch=4, **way)(batch(contents))
  assert list(found) == ['path', 'class', 'name', 'probability', 'resolution', 'cost', 'error']
  assert found['path'].tolist() == [f'{i}.png' for i in range(10)] and set(found['error']) == {''}
  for column, values in {
    'class': [p.class_index for p in expected],
    'name': [p.label for p in expected],
    'probability': [p.probability for p in expected],
    'resolution': [str(p.resolution) for p in expected],
    'cost': [p.macs for p in expected],
  }.items():
    np.testing.assert_array_equal(found[column], values)


def test_what_is_no_image_is_a_row_and_its_neighbours_are_as_without_it(workdir):
  good = encoded(0)
  bad = [b'', b'no image', good[:40], None, 7, good[:-30], encoded(1, 'jpeg')[:300]]
  predictor = resjax.BatchPredictor(workdir, max_batch=4)
  found, alone = predictor(batch([good, *bad, bytearray(good)])), predictor(batch([good]))
  unread = found['class'] == -1
  assert unread.tolist() == [False, *[True] * len(bad), False]
  for column, values in found.items():
    assert values.dtype.kind == TYPES[column] and len(values) == len(bad) + 2
    if column not in ('path', 'error'):
      assert values[0] == values[-1] == alone[column][0]
  assert all(found['error'][unread]) and found['error'][4] == 'got NoneType, expected an encoded image'
  assert np.isnan(found['cost'][unread]).all() and np.isnan(found['probability'][unread]).all()
  assert set(found['name'][unread]) == set(found['resolution'][unread]) == set(found['error'][~unread]) == {''}


@pytest.mark.parametrize('contents', [[], [b'no image']])
def test_the_types_of_the_columns_do_not_depend_on_the_images(workdir, contents):
  found = resjax.BatchPredictor(workdir, max_batch=4)(batch(contents))
  assert {column: values.dtype.kind for column, values in found.items()} == TYPES
  assert {len(values) for values in found.values()} == {len(contents)}


def test_it_travels_and_loads_once_in_each_process(workdir, loads):
  predictor = resjax.BatchPredictor(str(workdir), max_batch=4, resolution=8)
  sent = pickle.dumps(predictor)
  assert len(sent) < 400 and not loads
  others = [pickle.loads(sent) for _ in range(4)]
  found = []
  threads = [threading.Thread(target=lambda p=p: found.append(p(batch([encoded(0)])))) for p in others]
  [thread.start() for thread in threads]
  [thread.join() for thread in threads]
  assert len(found) == 4 and len(loads) == 1
  resjax.BatchPredictor(workdir, max_batch=4)(batch([encoded(0)]))  # asks for other predictions of the same programs
  assert len(loads) == 1
  resjax.BatchPredictor(workdir, max_batch=2)(batch([encoded(0)]))
  assert len(loads) == 2
  assert repr(predictor) == f'BatchPredictor({str(workdir)!r}, max_batch=4, resolution=8)'


@pytest.mark.parametrize(
  ('options', 'error', 'message'),
  [
    ({'resolutoin': 8}, TypeError, r'^resolutoin: got it for a BatchPredictor, expected options of Classifier'),
    ({'follow': True}, ValueError, r'^follow: got True for a BatchPredictor, expected none: batches come in no order$'),
    ({'top_k': 5}, ValueError, r'^top_k: got 5 for a BatchPredictor, expected none: a row names one class$'),
    ({'runtime': dict}, ValueError, r"^runtime: got <class 'dict'> for a BatchPredictor, expected a name$"),
    ({'budget': 'much'}, ValueError, r'^budget: got .*much'),
    ({'resolution': 'large'}, ValueError, r"^resolution: got 'large'"),
    ({'resolution': 8, 'budget': 0.5}, ValueError, r'^resolution: got 8 with a budget or router, expected one or'),
    ({'unseen_by': 'luck'}, ValueError, r"^unseen_by: got 'luck', expected one of interpolate, nearest"),
  ],
)
def test_what_is_not_possible_is_said_before_anything_travels(options, error, message):
  with pytest.raises(error, match=message):
    resjax.BatchPredictor('runs/mine', **options)


def test_a_missing_column_is_named(workdir):
  with pytest.raises(ValueError, match=r"^batch: no column 'path' among bytes, expected path and bytes, as of Ray"):
    resjax.BatchPredictor(workdir)({'bytes': [b'']})
