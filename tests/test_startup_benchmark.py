"""The benchmark of starts in small form, and the table of its figures."""

import json
import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / 'benchmarks'
sys.path.insert(0, str(BENCHMARKS))
import tables  # noqa: E402


def measured(tmp_path, ways, *others):
  out = tmp_path / 'figures.json'
  command = [sys.executable, BENCHMARKS / 'startup.py', '--rounds=1', '--model=resnet_small', f'--ways={ways}']
  run = subprocess.run([*command, f'--json={out}', *others], capture_output=True, text=True)
  assert run.returncode == 0, run.stderr
  return json.loads(out.read_text())


def test_starts_are_timed_beside_another_checkout_and_kept(tmp_path):
  figures = measured(tmp_path, 'import resjax', f'--before={BENCHMARKS.parent}')
  (row,) = figures['rows']
  assert 0 < row['cpu']['now']['median'] and 0.2 < row['cpu_ratio']['median'] < 5
  text = '\n'.join(tables.startup(figures | {'rows': [row, row | {'way': 'x', 'cpu_ratio': None}]}))
  assert '| import resjax |' in text and '| x |' in text and '| – | 1 |' in text and figures['machine'] in text


@pytest.mark.slow
def test_every_way_ends(tmp_path):
  figures = measured(tmp_path, 'train, first;train, another seed and rate;predict, first;predict, again')
  seconds = {row['way']: row['cpu']['now']['median'] for row in figures['rows']}
  assert seconds['train, another seed and rate'] < seconds['train, first']
  assert len(seconds) == 4 and figures['rows'][0]['seconds_ratio'] is None
