"""benchmarks/routers.py: budgets are met, on images that say what they need a predictor finds it, and the table."""

import json
import pathlib

import numpy as np
import pytest

from benchmarks import routers

COSTS = (300.0, 220.0, 155.0, 99.0, 56.0)


@pytest.fixture(scope='module')
def columns():
  """80 bright images that need the largest size, 80 dark ones that any will do for; the cascade knows nothing."""
  rng = np.random.default_rng(0)
  bright = rng.permutation(np.arange(160) % 2).astype(bool)
  right = np.ones((160, 5), bool)
  right[bright, 1:] = False
  small = rng.integers(0, 60, (160, 64, 64, 3)) + 150 * bright[:, None, None, None]
  return {
    'right': right,
    'odds': rng.normal(size=(160, 5)),
    'small': small.astype(np.uint8),
    'test': np.arange(160) // 80,
  }


@pytest.fixture(scope='module')
def rows(columns):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(routers, 'STEPS', 30)
    patch.setattr(routers, 'ROWS', 16)
    yield routers.summed('made', [columns], COSTS, 1.0)


def test_every_way_costs_what_the_one_size_does(rows):
  for row in rows:
    assert row['images'] == 80 and set(row['budgets']) == {'192', '160', '128'}
    for place, ways in enumerate(row['budgets'].values(), 1):
      for way, entry in ways.items():
        assert entry['cost'] <= 1.12 * COSTS[place] / COSTS[0], way
        assert way in ('oracle', 'predictor') or entry['cost'] > 0.8 * COSTS[place] / COSTS[0], way


def test_a_predictor_finds_what_images_say(rows, columns):
  for number, row in enumerate(rows):
    need = columns['right'][columns['test'] == number, 1].mean()
    assert row['sizes']['224']['mean'] == 1 and row['sizes']['128']['mean'] == pytest.approx(need)
    ways = row['budgets']['192']  # half of the images at 300 and half at 56 are 178: there is room
    assert ways['static']['top1']['mean'] == pytest.approx(need) and ways['oracle']['top1']['mean'] == 1
    for what in routers.PREDICTORS:
      assert ways[what]['top1']['mean'] > 0.9 and ways[what]['over static']['low'] > 0.2
    assert ways['cascade']['top1']['mean'] < 0.9
    assert ways['static']['over static'] == {'difference': 0, 'low': 0, 'high': 0}


def test_the_table_has_a_line_for_each_budget(rows):
  lines = routers.markdown(rows).splitlines()
  assert len(lines) == 2 + 2 * 3 and lines[2].startswith('| made | nette1000, 80 | 192 px | ')
  assert lines[2].count('|') == lines[0].count('|') == 10


def test_the_page_has_the_measured_table():
  docs = pathlib.Path(__file__).parents[1] / 'docs'
  found = json.loads((docs / 'measured' / 'routers.json').read_text())
  text = (docs / 'retarget.md').read_text(encoding='utf-8')
  assert f'<!-- routers -->\n{routers.markdown(found["rows"])}\n<!-- end of routers -->' in text
