"""The GPU's script in small form on a CPU: its parts, what it does when one fails, and the tables of its figures."""

import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.append(str(ROOT / 'benchmarks'))

import gpu  # noqa: E402
import gpu_parts  # noqa: E402
import tables  # noqa: E402
from gpu_figures import FIGURE  # noqa: E402

SMALL = {part.name: part for part in gpu.small()}


def figures_of(name, capsys):
  """What a part of the small form prints."""
  part = SMALL[name]
  gpu_parts.PARTS[part.child](part.options)
  lines = capsys.readouterr().out.splitlines()
  return [json.loads(line.removeprefix(FIGURE)) for line in lines if line.startswith(FIGURE)]


def test_ceiling(capsys):
  *products, copy = figures_of('ceiling', capsys)
  assert [figure['kind'] for figure in products] == ['bfloat16', 'float32', 'float32, highest']
  assert all(0 < figure['flops']['low'] <= figure['flops']['high'] for figure in products)
  assert copy['bytes']['median'] > 0


def test_layers_run_both_ways(capsys):
  found = [(figure['what'], figure['own']) for figure in figures_of('layers', capsys)]
  assert found == [(what, own) for what in ('max_pool 3x3 / 2', 'depthwise 3x3') for own in (False, True)]


def test_the_training_step_its_work_and_its_way_from_the_host(capsys, shallow):
  step, loader, profile = figures_of('train resnet_small', capsys)
  rate, work = step['images_per_s']['median'], step['flops']['median']
  # A 3x3 stem of 3 to 16 channels, two convolutions of 16 to 16, the head; at 16 and 8 px.
  macs = (16**2 + 8**2) * 9 * (3 * 16 + 2 * 16 * 16) + 2 * 16 * 5
  assert work / rate == pytest.approx(3 * 2 * macs)
  assert step['loss'][0] > 0 and step['way'] == 'joint' and step['planned_bytes'] > 0
  assert loader['source'] == 'fake' and loader['idle_share'] < 1 and loader['host_images_per_s'] > 0
  assert 'all' in profile['ms']


def test_routing(capsys, shallow):
  ready, routed = figures_of('routing resnet_small', capsys)
  assert ready['buckets'] == [1, 4]
  (mix,) = routed['routed']
  assert mix['batch'] == 4 and mix['theoretical_speedup'] > 1 and len(routed['static']) == 2


def test_the_full_form_asks_for_what_the_parts_read():
  parts = gpu.full('somewhere')
  assert len({part.name for part in parts}) == len(parts)
  small = {part.child: set(part.options) for part in SMALL.values()}
  optional = {'loader', 'loader_steps', 'profile', 'way', 'config', 'data'}
  for part in parts:
    assert small[part.child] - optional <= set(part.options), part.name
    assert part.least <= part.most


CHILD = """
import json, sys, time
name, options = sys.argv[1], json.loads(sys.argv[2])
print('FIGURE {"what": "%s"}' % name, flush=True)
if name == 'fails':
  raise ValueError('this one does')
if name == 'hangs':
  time.sleep(60)
if name == 'waits':
  print('READY', flush=True)
  sys.stdin.readline()
  print('FIGURE {"what": "after"}', flush=True)
"""


@pytest.fixture
def measure(tmp_path, monkeypatch):
  child, file = tmp_path / 'child.py', tmp_path / 'out.json'
  child.write_text(CHILD)
  monkeypatch.setattr(gpu, 'CHILD', child)
  monkeypatch.setattr(gpu, 'machine', lambda: {'gpu': 'one'})

  def run(*parts, seconds=60, others=()):
    gpu.measure([gpu.Part(name, name, {}, **fields) for name, fields in parts], file, seconds, {}, others)
    return json.loads(file.read_text())

  return run


def test_a_part_that_fails_or_hangs_is_told_and_the_others_go_on(measure):
  found = measure(
    ('waits', {'beside': True}),
    ('fails', {}),
    ('hangs', {'most': 1}),
    ('works', {'alone': True}),
    ('dear', {'least': 99}),
  )['parts']
  assert found['fails']['error'] == 'exit code 1: ValueError: this one does'
  assert found['hangs']['error'].startswith('not done after')
  assert found['dear']['skipped'].startswith('no time')
  assert [figure['what'] for figure in found['waits']['figures']] == ['waits', 'after']
  for name in ('fails', 'hangs', 'works'):
    assert found[name]['figures'] == [{'what': name}]
  assert not {'error', 'skipped'} & found['works'].keys()


def test_another_run_adds_to_the_file_and_loses_nothing_to_what_is_left_out(measure, monkeypatch):
  measure(('works', {}))
  found = measure(('works', {'least': 99}), ('other', {}), others=('third', 'works'))['parts']
  assert found['works']['figures'] and found['other']['figures'] and found['third'] == {'skipped': 'not tried'}
  assert 'skipped' not in measure(('third', {}))['parts']['third']
  assert measure(('hangs', {'most': 1}))['parts']['hangs']['error']
  gpu.CHILD.write_text(CHILD.replace('time.sleep(60)', 'pass'))
  assert 'error' not in measure(('hangs', {}))['parts']['hangs']
  gpu.CHILD.write_text(CHILD)
  assert 'error' not in measure(('hangs', {'most': 1}))['parts']['hangs']  # half of it is not worth all of it
  monkeypatch.setattr(gpu, 'machine', lambda: {'gpu': 'another'})
  assert measure(('other', {}))['parts'].keys() == {'other'}


def three(median):
  return {'median': median, 'low': 0.9 * median, 'high': 1.1 * median}


def step(way, ms, **fields):
  rate = 256 / ms * 1e3
  figure = {'what': 'step', 'way': way, 'batch': 256, 'ms': three(ms), 'images_per_s': three(rate), 'start_s': 60.4}
  return figure | {'peak_bytes': 3 * 2**30} | fields


FOUND = {
  'machine': {'gpu': 'A card, 1, 2 MiB', 'cpu': 'a', 'cpus': 16, 'versions': {'jax': '1'}, 'flags': ''},
  'parts': {
    'ceiling': {
      'figures': [{'what': 'matmul', 'kind': 'bfloat16', 'size': 8192, 'flops': three(800e12)}],
      'options': {},
    },
    'train resnet18': {'figures': [step('joint', 100, flops=three(200e12))], 'options': {'model': 'resnet18'}},
    'torch resnet18': {'figures': [step('eager', 125)], 'options': {'model': 'resnet18'}, 'error': 'not done, 9 s'},
    'drnet': {'skipped': 'no time: 3 s left'},
  },
}


def test_the_tables_say_what_was_found():
  lines = tables.gpu(FOUND)
  assert lines[0].startswith('A card, 1, 2 MiB (name, driver, memory); 16 processors, a; jax 1.')
  assert '| resnet18 | 256 | joint | 100.0 [90.0, 110.0] | 2,560 | 1.00 | 25% | 60 | 3.0 |' in lines
  assert '| resnet18 | 256 | PyTorch, eager | 125.0 [112.5, 137.5] | 2,048 | 0.80 | 20% | 60 | 3.0 |' in lines
  assert lines[-1] == 'Not measured: torch resnet18, after its rows (not done, 9 s); drnet (no time: 3 s left).'


@pytest.mark.parametrize('document', tables.DOCUMENTS, ids=lambda path: path.name)
def test_the_documents_have_the_tables_that_their_figures_make(document):
  text = document.read_text()
  assert tables.filled(text, tables.DOCUMENTS[document], tables.MEASURED) == text


def test_every_table_and_all_figures_are_of_a_document():
  named = [name for names in tables.DOCUMENTS.values() for name in names]
  assert sorted(named) == sorted(tables.TABLES)
  for file in tables.MEASURED.glob('*.json'):
    own = {'retarget', 'routers'}  # their scripts make their tables
    assert file.stem.split('-')[0] in {*named, *own}, file.name


def test_a_table_is_made_of_all_files_of_its_name(tmp_path):
  (document, names), *_ = tables.DOCUMENTS.items()
  text = document.read_text()
  (tmp_path / 'gpu.json').write_text(json.dumps(FOUND))
  for name in ('startup', 'runtimes-a', 'runtimes-b'):
    kept = name.partition('-')[0]
    (tmp_path / f'{name}.json').write_text((tables.MEASURED / f'{kept}.json').read_text())
  changed = tables.filled(text, names, tmp_path)
  assert '25%' in changed and tables.filled(changed, names, tables.MEASURED) == text
  assert changed.count('| network | input | batch | runtime |') == 2 and 'Not measured so far.' in changed
  with pytest.raises(ValueError, match='gpu: begin'):
    tables.filled('nothing', names, tmp_path)
