"""`resjax benchmark`: the arithmetic on made-up seconds, the mix, both kinds of networks, and what is refused."""

import json
import pathlib
import sys

import jax
import networks
import numpy as np
import pytest
from PIL import Image

from resjax import cli
from resjax.commands import options as shared
from resjax.data.decode import decode
from resjax.inference import Classifier, images
from resjax.measuring import benchmark
from resjax.measuring.pool import Pool, photographs

sys.path.append(str(pathlib.Path(__file__).parents[1] / 'benchmarks'))
import cpu_tables

COMMAND = [
  'benchmark',
  '--config=configs/quickstart.py',
  '--config.model.width=0.25',
  '--config.drnet.predictor.size=8',
  '--resolutions=16,8',
  '--batches=1,4',
  '--rounds=2',
  '--round-images=4',
  '--max-batch=8',
]


@pytest.fixture(scope='module')
def classifier():
  """A fresh network with a predictor, calibrated on noise of rising contrast, and those images."""
  rng = np.random.default_rng(0)
  pixels = [rng.integers(0, 20 + 5 * i, (20, 20, 3), np.uint8) for i in range(40)]
  made = Classifier(networks.tiny('drnet', noise=0.0), max_batch=8, threads=2)
  made.calibrate(pixels)
  return made, pixels


def seconds(*rounds):
  """Calls of made-up wall seconds, and half as many CPU seconds."""
  wall = np.array(rounds, float)
  return benchmark.Seconds(wall, wall / 2)


def test_real_over_theoretical_is_the_median_of_the_rounds_ratios():
  largest = seconds([4, 4], [5, 5], [6, 6])  # 8, 10, 12 s a round
  routed = seconds([2, 2], [3, 1], [4, 4])  # 4, 4, 8: ratios 2, 2.5, 1.5
  found = benchmark.saving(largest, routed, theoretical=2.5)
  assert found['theoretical_speedup'] == 2.5
  assert found['speedup'] == 2.0  # the ratio of the medians would be 2.5
  assert found['real_over_theoretical'] == found['cpu_over_theoretical'] == 0.8
  assert found['real_over_theoretical_quartiles'] == pytest.approx([0.7, 0.9], rel=1e-12)


def test_rates_are_of_rounds_and_latencies_of_calls():
  found = benchmark.summary(seconds([0.1, 0.3], [0.1, 0.1], [0.1, 0.9]), images=8)
  assert found['images_per_second'] == pytest.approx(20, rel=1e-12)  # of 20, 40 and 8
  assert found['images_per_second_quartiles'] == pytest.approx([14, 30], rel=1e-12)
  assert found['p50_ms'] == pytest.approx(100, rel=1e-12)
  assert found['p95_ms'] == pytest.approx(750, rel=1e-12)  # three quarters of the way from 300 to 900
  assert found['calls'] == 6
  assert found['cpu_ms_per_image'] == pytest.approx(25, rel=1e-12)  # 0.2, 0.1 and 0.5 s for 8 images


@pytest.mark.parametrize(
  ('count', 'mix', 'expected'),
  [(10, (0.4, 0.3, 0.3), [4, 3, 3]), (1, (0.4, 0.3, 0.3), [0, 1, 0]), (32, (1, 0), [32, 0]), (7, (0.5, 0.5), [4, 3])],
)
def test_a_mix_is_met_by_counts(count, mix, expected):
  assert np.bincount(benchmark.mixed(count, mix), minlength=len(mix)).tolist() == expected


def test_the_mix_runs_exactly_and_with_the_predictors_cost(classifier):
  engines = classifier[0].engines
  alone, end_to_end = (benchmark.by_mix(engines, (0.25, 0.75), scope, 8) for scope in ('network', 'arrays'))
  high, low = engines.macs
  assert alone.macs == 0.25 * high + 0.75 * low
  assert end_to_end.macs == alone.macs + engines.predictor_macs
  before = engines.engine.counts.images, engines.scorer.counts.images
  crops = np.zeros((8, 16, 16, 3), np.uint8)
  alone.run(crops, np.arange(8))
  assert (engines.engine.counts.images, engines.scorer.counts.images) == (before[0] + 8, before[1])
  end_to_end.run(crops, np.arange(8))
  assert (engines.engine.counts.images, engines.scorer.counts.images) == (before[0] + 16, before[1] + 8)


def test_the_planned_seconds_follow_the_cost_table(classifier):
  engine = classifier[0].engines.engine
  assert engine.buckets == (8,)
  high, low = engine.costs.seconds[:, 0]
  choice = np.repeat([0, 1], [1, 15])  # one of the two batches of 8 is of the lower resolution alone
  expected = min(high + low, high) + min(low, high)
  assert benchmark.planned(engine, choice, 16) == pytest.approx(expected, rel=1e-12)


def test_fewer_images_than_a_round_takes_come_again(classifier):
  made, pixels = classifier
  pool = Pool(images.items(pixels[:3]), made.network, threads=2)
  assert pool.crops.shape == (3, 16, 16, 3)
  np.testing.assert_array_equal(pool.decoded(np.array([4, 0, 5])), pool.crops[[1, 0, 2]])


def test_an_image_that_cannot_be_read_is_named(classifier, tmp_path):
  (tmp_path / 'bad.jpg').write_bytes(b'no image')
  with pytest.raises(ValueError, match=r'bad\.jpg: not an image file'):
    Pool(images.items(tmp_path), classifier[0].network, threads=1)


def test_photographs_have_the_usual_size_and_differ():
  found = photographs(224, 3)
  pictures = [decode(item.content) for item in found]
  assert {p.shape for p in pictures} == {(375, 500, 3)}
  assert all(p.std() > 10 for p in pictures) and (pictures[0] != pictures[2]).any()


@pytest.mark.parametrize('name', ['predictor', 'cascade', 'detail', 'random'])
def test_a_router_costs_what_it_chose(classifier, name):
  made, pixels = classifier
  pool = Pool(images.items(pixels), made.network, threads=2)
  rule = made.router(name, 0.9)
  ways = {way.scope: way for way in benchmark.by_router(made.engines, pool, rule, False, 40)}
  assert ways.keys() == {'arrays', 'encoded'} | ({'network'} if name != 'cascade' else set())
  way, slots = ways['arrays'], np.random.default_rng(1).permutation(40)[:16]
  found = way.run(pool.crops[slots], slots)
  np.testing.assert_array_equal(found.places, way.choice[slots])
  assert way.macs == pytest.approx(rule.charged[way.choice].mean(), rel=1e-12)


def test_a_run_measures_what_it_says(classifier):
  made, pixels = classifier
  engines = made.engines
  pool = Pool(images.items(pixels), made.network, threads=2)
  ways = lambda count: [benchmark.by_mix(engines, (0.5, 0.5), scope, count) for scope in benchmark.SCOPES]
  found = benchmark.run(engines, pool, ways, scopes=['network', 'arrays'], batches=[3, 8], rounds=2, images=5)
  static, routed = found['static'], found['routed']
  assert [(e['scope'], e['resolution'], e['batch'], e['calls']) for e in static] == [
    (scope, resolution, batch, calls)
    for batch, calls in ((3, 4), (8, 2))
    for scope, resolution in (('network', 16), ('network', 8), ('arrays', 16))
  ]
  assert [(e['scope'], e['router'], e['batch']) for e in routed] == [
    (scope, 'mix', batch) for batch in (3, 8) for scope in ('network', 'arrays')
  ]
  for entry in routed:
    assert entry['theoretical_speedup'] == engines.macs[0] / entry['macs']
    assert entry['real_over_theoretical'] == pytest.approx(entry['speedup'] / entry['theoretical_speedup'], rel=1e-12)
    assert entry['share'] == pytest.approx({'16': 0.5, '8': 0.5}, abs=1e-12)
    assert ('planned_over_theoretical' in entry) == (entry['scope'] == 'network')


def test_the_command_without_a_training(tmp_path, capsys):
  file = tmp_path / 'figures.json'
  cli.main([*COMMAND, '--mix=0.25,0.75', f'--json={file}'])
  result = json.loads(file.read_text())
  assert len(result['static']) == 2 * (2 + 1 + 1) and len(result['routed']) == 2 * 3
  kinds = {
    **dict.fromkeys(['router', 'scope'], str),
    **dict.fromkeys(['batch', 'calls'], int),
    **dict.fromkeys(['images_per_second', 'p50_ms', 'p95_ms', 'macs', 'real_over_theoretical', 'speedup'], float),
  }
  for entry in result['routed']:
    assert {name: type(entry[name]) for name in kinds} == kinds
    assert entry['images_per_second'] > 0 and 0 < entry['p50_ms'] <= entry['p95_ms']
  assert (result['mix'], result['rounds'], result['warm_up_rounds'], result['dtype']) == ('0.25,0.75', 2, 1, 'float32')
  assert result['versions']['jax'] == jax.__version__ and result['machine']['processors'] > 0
  shown = capsys.readouterr().out
  assert 'real / theory' in shown and 'its choice is replaced by the mix' in shown
  lines = cpu_tables.routing([result])
  assert lines[0].startswith('a freshly initialised resnet') and f'{result["machine"]["processors"]} proc' in lines[0]
  assert [line.split(' | ')[:2] for line in lines[4:]] == [
    [f'| {e["scope"]}', str(e['batch'])] for e in result['routed']
  ]


def test_the_command_on_a_trained_network(classifier, tmp_path, monkeypatch, capsys):
  made, pixels = classifier
  for i, image in enumerate(pixels[:4]):
    Image.fromarray(image).save(tmp_path / f'{i}.png')
  monkeypatch.setattr(shared, 'load', lambda options: (made, None))
  few = ['--batches=4', '--rounds=2', '--round-images=4', '--scopes=arrays']
  cli.main(
    ['benchmark', '--workdir=runs/x', '--routers=predictor,cascade', '--budget=0.9', f'--images={tmp_path}', *few]
  )
  shown = capsys.readouterr().out
  assert 'runs/x, budget 0.9, 4 images' in shown and 'predictor' in shown and 'cascade' in shown
  assert 'random' not in shown


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--mix=0.5,0.4'], '--mix: got 0.5,0.4, which sums to 0.9, expected 1'),
    (['--mix=0.5,0.25,0.25'], r'--mix: got 3 shares, expected one for each resolution of \(16, 8\)'),
    (['--mix=1.5,-0.5'], "--mix: got '1.5,-0.5', expected shares such as 0.4,0.3,0.3"),
    (['--mix=a,b'], "--mix: got 'a,b', expected shares"),
    (['--batches=0'], "--batches: got '0', expected positive integers"),
    (['--resolutions=16,x'], "--resolutions: got '16,x', expected pixels"),
    (['--resolutions=8,16'], 'config.resolutions: got .8, 16., expected the highest first'),
    (['--scopes=disk'], "--scopes: got 'disk', expected some of network,arrays,encoded"),
    (['--budget=0.6'], '--budget: got 0.6 with --config'),
    (['--json=/nowhere/x.json'], '/nowhere/x.json: no folder /nowhere'),
    (['--images=/nowhere/x.jpg'], 'No such file'),
  ],
)
def test_bad_input_of_a_fresh_network_is_one_line(arguments, message):
  with pytest.raises(SystemExit, match=message) as error:
    cli.main([*COMMAND, *arguments])
  assert str(error.value).startswith('error: ') and '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--routers=predictor,best'], "--routers: got 'best', expected some of predictor,cascade,detail,random"),
    (['--budget=much'], "budget: got 'much', expected a share"),
    (['--mix=0.5,0.5'], '--mix: got 0.5,0.5 with --workdir'),
    (['--config.batch_size=8'], '--config.batch_size=8: got with --workdir'),
    ([], 'nothing'),
  ],
)
def test_bad_input_of_a_trained_network_is_one_line(arguments, message, tmp_path):
  with pytest.raises(SystemExit, match=message) as error:
    cli.main(['benchmark', f'--workdir={tmp_path / "nothing"}', *arguments])
  assert str(error.value).startswith('error: ') and '\n' not in str(error.value)


def test_a_recipe_whose_largest_size_is_below_the_predictors_is_measured_all_the_same():
  """An RS-Net's recipe says nothing of a predictor: it looks at the largest size. Here the mix is what is refused."""
  with pytest.raises(
    SystemExit, match=r'^error: --mix: got 2 shares, expected one for each resolution of \(32, 16, 8\)$'
  ):
    cli.main(['benchmark', '--config=quickstart', '--mix=0.5,0.5'])
