"""docs/evidence.md and docs/drnet.md are what the records say."""

import json
import pathlib
import re

import numpy as np
import pytest

from benchmarks import evidence as script
from resjax import config as configuration
from resjax.evidence import definition, jobs, records

ROOT = pathlib.Path(__file__).parents[1]
BEGIN = '<!-- study configs/studies/two_resolutions.py made -->\n'


@pytest.mark.parametrize('page', script.PAGES, ids=lambda page: page.stem)
def test_the_tables_are_those_of_the_records(page):
  text = page.read_text(encoding='utf-8')
  assert '<!-- study ' in text
  assert script.written(text, page.parent) == text, 'python benchmarks/evidence.py writes them'


def test_each_study_is_on_the_page():
  text = (ROOT / 'docs' / 'evidence.md').read_text(encoding='utf-8')
  shown = set(re.findall(r'<!-- study configs/studies/(\w+)\.py ', text))
  there = {path.stem for path in (ROOT / 'configs' / 'studies').glob('*.py')} - {'__init__', 'scales'}
  assert shown == there


def test_a_record_is_a_bit_for_each_image_and_way_and_little_else():
  for path in (ROOT / 'docs' / 'evidence').rglob('*.json'):
    record = json.loads(path.read_text(encoding='utf-8'))
    bits = len(record['ways']) * record['images']
    assert path.stat().st_size < 8_000 + bits / 6 + 100 * len(record['ways']), path  # a letter of base64 is six


def test_a_table_is_made_from_records_and_the_rest_of_the_page_stays(tmp_path):
  study = definition.read(ROOT / 'configs' / 'studies' / 'two_resolutions.py')
  rng = np.random.default_rng(0)
  for job in jobs.of_study(study, range(3), ['I-Net 32', '32 and 16']):
    right = rng.random(500) < (0.95 if ' and ' in job.arm else 0.7)
    ways = {str(size): records.Way(right, 1e6) for size in job.config.resolutions}
    about = {'arm': job.arm, 'seed': job.seed, 'config': configuration.to_json(job.config), 'start': None, 'sizes': [],
             'fractions': [], 'images': 500, 'seconds': 60, 'data': {}, 'machine': '2 × M', 'date': '2026-01-01',
             'epochs': 1, 'params': 1, 'versions': {'jax': '1', 'flax': '2', 'python': '3'}}  # fmt: skip
    records.write(tmp_path / 'made' / f'{job.key}.json', ways, about)
  page = f'Before.\n{BEGIN}old\n<!-- end of study -->\nAfter.\n'
  text = script.written(page, tmp_path)
  assert text.startswith(f'Before.\n{BEGIN}**Two') and text.endswith('<!-- end of study -->\nAfter.\n')
  assert 'old' not in text and script.written(text, tmp_path) == text
  assert re.search(r'32 and 16 > I-Net 32, at 32 .* \| 3 of 3 \| shown \|', text) and 'not run' in text
  assert re.search(r'\| I-Net 32 \| 3 \| [67]\d\.\d ± \d\.\d \|', text) and '6 runs, 6 min of training' in text


def test_a_page_that_is_behind_is_an_error(tmp_path, monkeypatch):
  (tmp_path / 'page.md').write_text(f'{BEGIN}<!-- end of study -->\n')
  monkeypatch.setattr('sys.argv', ['evidence.py', f'--page={tmp_path / "page.md"}', '--check'])
  with pytest.raises(SystemExit, match='is not what its records say'):
    script.main()
  monkeypatch.setattr('sys.argv', ['evidence.py', f'--page={tmp_path / "page.md"}'])
  script.main()
  assert 'Not run yet.' in (tmp_path / 'page.md').read_text()


NO_END, NO_WORD = f'{BEGIN}a\n{BEGIN}b\n<!-- end of study -->\n', f'{BEGIN[:-5]} router -->\n<!-- end of study -->'


@pytest.mark.parametrize('page', [BEGIN, NO_END, NO_WORD])
def test_a_table_that_is_not_found_is_an_error(tmp_path, page):
  with pytest.raises(ValueError, match=r'^got \d tables, expected each "<!-- study"'):
    script.written(page, tmp_path)


def test_routers_have_a_table_of_their_own():
  begin, end = '<!-- study configs/studies/drnet.py evidence/digits routers -->\n', '<!-- end of study -->'
  text = script.written(begin + end, ROOT / 'docs')
  assert re.search(r'\| frozen: [^|]*\| 46 \| \d\d\.\d ± \d\.\d \|', text) and 'RS-Net:' not in text
  none = begin.replace('evidence/digits', 'none')
  assert script.written(none + end, ROOT / 'docs') == f'{none}Not run yet.\n{end}'
