import json
from types import SimpleNamespace

import numpy as np
import pytest

from resjax import checksums, formats
from resjax.inference import timing
from resjax.inference.runtime import Identity

PRICE = (0.04, 0.01)  # seconds of an image at each resolution
BUCKETS = (1, 2, 4, 8, 16, 32)


class Clocked:
  """A runtime whose programs take as long as their images cost, by a clock of its own."""

  def __init__(self, machine='one', late=()):
    self.resolutions, self.shape, self.num_classes, self.multiple = ((8, 12), 8), (8, 12, 3), 2, 1
    self.identity = Identity('clocked', machine, 1, 'clock', 1, 'nothing', 'float32', self.shape)
    self.now, self.calls, self.late = 0.0, [], set(late)

  def price(self, place, bucket):
    return PRICE[place] * bucket

  def put(self, images):
    assert images.dtype == np.uint8 and images.shape[1:] == self.shape
    return images

  def dispatch(self, batch, place, bucket, rows):
    assert len(batch) == bucket == len(rows)
    self.now += self.price(place, bucket) * (10 if len(self.calls) in self.late else 1)
    self.calls.append((place, bucket))
    return np.zeros((bucket, 2), np.float32)


@pytest.fixture
def clocked(monkeypatch):
  def make(**options):
    runtime = Clocked(**options)
    monkeypatch.setattr(timing, 'time', SimpleNamespace(perf_counter=lambda: runtime.now))
    return runtime

  return make


def test_every_program_is_measured_but_those_that_take_too_long(clocked):
  runtime = clocked()
  found = timing.measure(runtime, BUCKETS, longest=0.5)
  np.testing.assert_allclose(found.seconds, np.outer(PRICE, BUCKETS), rtol=1e-9)
  np.testing.assert_array_equal(found.measured, [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
  assert {b for p, b in runtime.calls if p == 0} == {1, 2, 4, 8}  # 16 would have taken 0.64 s


def test_the_smallest_bucket_is_measured_however_long_it_takes(clocked):
  found = timing.measure(clocked(), BUCKETS, longest=1e-9)
  np.testing.assert_array_equal(found.measured, [[1] + [0] * 5] * 2)
  np.testing.assert_allclose(found.seconds, np.outer(PRICE, BUCKETS), rtol=1e-9)


def test_images_of_a_bucket_that_is_not_run_cost_what_they_cost_in_the_best(clocked):
  runtime = clocked()
  runtime.price = lambda place, bucket: PRICE[place] * (bucket if bucket != 4 else 6)
  found = timing.measure(runtime, BUCKETS, longest=0.25)
  np.testing.assert_array_equal(found.measured[0], [1, 1, 1, 0, 0, 0])
  np.testing.assert_allclose(found.seconds[0], PRICE[0] * np.array([1, 2, 6, 8, 16, 32]), rtol=1e-9)


def test_late_calls_do_not_count(clocked):
  calls = 2 * 12  # first calls and those that give the expected time
  found = timing.measure(clocked(late=range(calls, calls + 24)), BUCKETS, longest=100)
  np.testing.assert_allclose(found.seconds, np.outer(PRICE, BUCKETS), rtol=1e-9)


def test_a_second_start_measures_nothing(clocked, tmp_path):
  path = tmp_path / 'costs.json'
  first = timing.costs(clocked(), BUCKETS, path)
  runtime = clocked()
  second = timing.costs(runtime, BUCKETS, path)
  assert runtime.calls == []
  np.testing.assert_array_equal(first.seconds, second.seconds)
  np.testing.assert_array_equal(first.measured, second.measured)
  assert second.measured.dtype == bool


def test_another_machine_or_other_buckets_are_measured_and_kept_beside(clocked, tmp_path):
  path = tmp_path / 'costs.json'
  timing.costs(clocked(), BUCKETS, path)
  for machine, sizes in ('two', BUCKETS), ('one', BUCKETS[:2]):
    runtime = clocked(machine=machine)
    timing.costs(runtime, sizes, path)
    assert runtime.calls
  assert len(json.loads(path.read_text())['tables']) == 3
  runtime = clocked()
  timing.costs(runtime, BUCKETS, path)
  assert runtime.calls == []


TABLE = '{"of": {"resolutions": [8], "buckets": [1]}, "seconds": [[1]]}'
WHOLE = f'{{"format": 1, "tables": [{TABLE[:-1]}, "measured": [[true]]}}]}}'


@pytest.mark.parametrize(
  'text',
  [
    '{',
    '{}x',
    '{}',
    '1',
    '"x"',
    '{"format": 1, "tables": [1]}',
    f'{{"format": 1, "tables": [{TABLE}]}}',
    '\xff\xfe\x00',
  ]
  + [WHOLE.replace('[[1]]', seconds) for seconds in ('[[-1]]', '[[NaN]]', '[["a"]]', 'null', '[[1, 2]]')]
  + [WHOLE.replace('[[true]]', '[[1]]'), WHOLE[:-20]],
)
def test_a_damaged_file_is_refused_in_one_line(clocked, tmp_path, text):
  path = tmp_path / 'costs.json'
  path.write_text(text, encoding='latin-1')
  message = r'costs.json: not a file of cost tables \(.*\), expected one written by resjax; delete it$'
  with pytest.raises(ValueError, match=message) as error:
    timing.costs(clocked(), BUCKETS, path)
  assert '\n' not in str(error.value)


def test_a_table_of_another_shape_is_refused(clocked, tmp_path):
  path = tmp_path / 'costs.json'
  timing.costs(clocked(), BUCKETS, path)
  stored = checksums.of_json(path.read_bytes())
  stored['tables'][0]['seconds'] = stored['tables'][0]['seconds'][:1]
  path.write_bytes(checksums.to_json(stored))
  with pytest.raises(ValueError, match=r'not a file of cost tables \(ValueError: a table of another shape\)'):
    timing.costs(clocked(), BUCKETS, path)


def test_tables_of_version_0_1_are_measured_again_and_replaced(clocked, tmp_path):
  path = tmp_path / 'costs.json'
  path.write_text(f'[{TABLE}]')
  runtime = clocked()
  timing.costs(runtime, BUCKETS, path)
  assert runtime.calls and json.loads(path.read_text())['format'] == formats.FORMAT


def test_a_file_of_a_newer_version_is_refused_in_its_own_words(clocked, tmp_path):
  path = tmp_path / 'costs.json'
  path.write_text(json.dumps({'format': formats.FORMAT + 1, 'tables': []}))
  with pytest.raises(ValueError, match=rf'^{path}: .*newer resjax') as error:
    timing.costs(clocked(), BUCKETS, path)
  assert 'not a file of cost tables' not in str(error.value)


def test_a_folder_that_cannot_be_written_costs_a_warning(clocked, tmp_path, caplog):
  (tmp_path / 'file').write_text('')
  found = timing.costs(clocked(), BUCKETS, tmp_path / 'file' / 'costs.json')
  assert found.seconds.shape == (2, 6)
  assert 'cost table not kept' in caplog.text


def test_a_program_that_does_less_never_costs_more():
  busy = np.array([[1.0, 9.0, 4.0], [2.0, 1.5, 3.0], [0.1, 0.2, 9.0]])
  expected = [[1.0, 4.0, 4.0], [1.0, 1.5, 3.0], [0.1, 0.2, 3.0]]
  np.testing.assert_array_equal(timing.plausible(busy), expected)
  np.testing.assert_array_equal(timing.plausible(np.array(expected)), expected)
