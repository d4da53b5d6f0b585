"""Finished runs as small files."""

import json

import numpy as np
import pytest

from resjax import config as configuration
from resjax.evidence import Arm, Study, jobs, records
from resjax.evidence.running import Kept


@pytest.fixture
def run():
  (found,) = jobs.of_study(Study('A study', 'quickstart', {'plain': Arm()}, ()), [2])
  return found


def about(run, **more):
  return {
    'arm': run.arm, 'seed': run.seed, 'config': configuration.to_json(run.config), 'start': None,
    'sizes': [], 'fractions': [], 'images': 13, 'seconds': 4.5, 'data': {'eval': {'digest': 'x', 'entries': 1}},
    'epochs': 3.5, 'params': 7, 'machine': 'M', 'date': '2026-01-01', 'versions': {'jax': '1'},
  } | more  # fmt: skip


def bits(seed=0, count=13):
  return np.random.default_rng(seed).random(count) < 0.7


def test_every_bit_comes_back_and_the_run_is_found_by_its_key(run, tmp_path):
  ways = {'32': records.Way(bits(), 12.0), 'ensemble': records.Way(bits(1), 15.5)}
  records.write(tmp_path / 'new' / 'a.json', ways, about(run))
  found = Kept(tmp_path / 'new').find(run.key)
  assert list(found.ways) == ['32', 'ensemble'] and found.about['seconds'] == 4.5
  for name, way in ways.items():
    np.testing.assert_array_equal(found.ways[name].right, way.right)
    assert found.ways[name].macs == way.macs
  assert Kept(tmp_path / 'new').find('other') is None and Kept(tmp_path / 'nowhere').all() == {}


def test_what_another_process_writes_is_found_later(run, tmp_path):
  kept = Kept(tmp_path)
  assert kept.find(run.key) is None
  records.write(tmp_path / 'a.json', {'32': records.Way(bits(), 1)}, about(run))
  assert kept.find(run.key).about['arm'] == 'plain'


def test_ten_thousand_images_in_four_ways_are_some_ten_kilobytes(run, tmp_path):
  rng = np.random.default_rng(0)
  ways = {str(way): records.Way(rng.random(10_000) < right, 1) for way, right in enumerate((0.97, 0.92, 0.67, 0.97))}
  records.write(tmp_path / 'a.json', ways, about(run, images=10_000))
  assert (tmp_path / 'a.json').stat().st_size < 10_000
  assert records.read(tmp_path / 'a.json').ways['2'].right.mean() == ways['2'].right.mean()


@pytest.mark.parametrize(
  ('spoil', 'message'),
  [
    (lambda content: content['ways']['32'].update(right='AAAA'), 'right: damaged'),
    (lambda content: content.update(images=20), 'right: got 2 bytes, expected those of 20 images'),
    (lambda content: content.pop('seconds'), 'seconds missing'),
    (lambda content: content.pop('config'), 'config missing'),
    (lambda content: content.update(format=99), 'a newer resjax wrote it'),
    (lambda content: content['config'].update(model=3), 'expected a finished run'),
  ],
)
def test_damage_is_named(run, tmp_path, spoil, message):
  path = tmp_path / 'a.json'
  records.write(path, {'32': records.Way(bits(), 1)}, about(run))
  content = json.loads(path.read_text())
  del content['checksum']
  spoil(content)
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match=f'^{path}: .*{message}'):
    records.read(path)


def test_a_bit_that_has_flipped_is_found(run, tmp_path):
  path = tmp_path / 'a.json'
  records.write(path, {'32': records.Way(bits(), 1)}, about(run))
  path.write_bytes(path.read_bytes().replace(b'"seed": 2', b'"seed": 3', 1))
  with pytest.raises(ValueError, match='got checksum'):
    records.read(path)
