"""Results written and read, the table as it is printed, the picture as it is drawn."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from resjax import formats
from resjax.report import plot, results, table
from resjax.routing import ROUTERS


def make(**changes):
  """Results of three resolutions; the changes replace entries."""
  return {
    'method': 'rsnet',
    'resolutions': {
      '32': {'macs': 12_345_678, 'top1': 0.967, 'top5': 0.9991, 'images': 10_000},
      '16': {'macs': 3_086_419, 'top1': 0.8944, 'top5': 0.99, 'images': 10_000},
      '8': {'macs': 771_604, 'top1': 0.642, 'top5': 0.91, 'images': 10_000},
    },
    'ensemble': {'top1': 0.961, 'top5': 0.998},
    'params': 77_418,
    'train_seconds': 84.2,
    'versions': {'jax': '0.10.2'},
    'config': {
      'model': {'name': 'resnet_small'},
      'data': {'source': 'scaled_digits', 'name': 'imagenet2012'},
      'eval': {'pyramid': 'host'},
    },
  } | changes


def one_resolution():
  return make(resolutions={'224': {'macs': 1.8e9, 'top1': 0.7, 'top5': 0.9, 'images': 50_000}})


def print_table(found, **options):
  console = Console(file=io.StringIO(), width=80, **options)
  table.show(found, console)
  return console.file.getvalue()


# --- results.json ---


def test_results_read_back_as_written_highest_resolution_first(tmp_path):
  path = results.write(make(), tmp_path / 'runs' / 'new')
  assert path == tmp_path / 'runs' / 'new' / 'results.json'
  assert results.read(path.parent) == make()
  assert list(json.loads(path.read_text())['resolutions']) == ['32', '16', '8']
  assert [file.name for file in path.parent.iterdir()] == ['results.json']


def test_no_results_are_none(tmp_path):
  assert results.read(tmp_path) is None


def test_a_result_of_a_newer_version_is_refused_in_one_line_and_not_to_be_deleted(tmp_path):
  (tmp_path / 'results.json').write_text(json.dumps({'format': formats.FORMAT + 1}))
  with pytest.raises(
    ValueError, match=r'results\.json: got format 2, expected at most 1: a newer resjax wrote it'
  ) as e:
    results.read(tmp_path)
  assert 'delete' not in str(e.value) and '\n' not in str(e.value)


def test_numbers_of_numpy_and_jax_are_written_as_numbers(tmp_path):
  results.write(make(params=np.int64(5), alpha=jnp.ones(2), train_seconds=np.float32(0.5)), tmp_path)
  read = results.read(tmp_path)
  assert (read['params'], read['alpha'], read['train_seconds']) == (5, [1.0, 1.0], 0.5)


def test_entries_of_other_methods_are_kept(tmp_path):
  routers = {'oracle': {'macs': 1e6, 'top1': 0.99, 'share': {'32': 0.5, '8': 0.5}}}
  results.write(make(routers=routers), tmp_path)
  assert results.read(tmp_path)['routers'] == routers


@pytest.mark.parametrize(
  ('changes', 'complaint'),
  [
    ({'ensemble': {'top1': 96.1, 'top5': 1.0}}, 'ensemble.top1 is 96.1, expected a fraction of 0..1'),
    ({'ensemble': {'top1': 0.9}}, 'ensemble.top5 is nothing, expected a fraction of 0..1'),
    ({'ensemble': {'top1': float('nan'), 'top5': 1.0}}, 'ensemble.top1 is nan'),
    ({'resolutions': {}}, 'resolutions is empty, expected at least one'),
    (
      {'resolutions': {'8': {'macs': 0, 'top1': 0.5, 'top5': 0.5, 'images': 3}}},
      'resolutions.8 is .*, expected macs and images above 0',
    ),
    (
      {'resolutions': {'8': {'macs': 5, 'top1': 0.5, 'top5': 0.5}}},
      'resolutions.8 is .*, expected macs and images above 0',
    ),
    ({'train_seconds': float('inf')}, 'expected what JSON can hold'),
    ({'config': {'tx': object()}}, 'expected what JSON can hold: object <object'),
  ],
)
def test_results_that_make_no_sense_are_refused_and_the_old_ones_stay(tmp_path, changes, complaint):
  results.write(make(), tmp_path)
  with pytest.raises(ValueError, match=f'^results: .*{complaint}') as error:
    results.write(make(**changes), tmp_path)
  assert '\n' not in str(error.value)
  assert results.read(tmp_path) == make()


def test_missing_entries_are_named(tmp_path):
  found = make()
  del found['params'], found['config']
  with pytest.raises(ValueError, match=r'^results: params, config missing, expected method, '):
    results.write(found, tmp_path)


@pytest.mark.parametrize('content', [b'{"method": "rs', b'{}', b'[]', b'null', b'', b'\xff\xfe\x00'])
def test_a_broken_file_is_named(tmp_path, content):
  (tmp_path / 'results.json').write_bytes(content)
  with pytest.raises(ValueError, match=r'results\.json: '):
    results.read(tmp_path)


def test_versions_name_the_libraries_and_the_devices():
  found = results.versions()
  assert found['jax'] == jax.__version__
  assert found['numpy'] == np.__version__
  assert (found['platform'], found['devices']) == ('cpu', len(jax.devices()))
  assert set(found) >= {'python', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'resjax', 'device'}


# --- the table ---


def test_the_table_as_it_is_printed():
  lines = [line.rstrip() for line in print_table(make()).splitlines()]
  assert lines == [
    '',
    'rsnet, resnet_small, scaled_digits',
    '',
    '  resolution   multiply-adds   top-1 %   top-5 %',
    ' ────────────────────────────────────────────────',
    '          32         12.35 M      96.7      99.9',
    '          16          3.09 M      89.4      99.0',
    '           8          0.77 M      64.2      91.0',
    '',
    '    ensemble         16.20 M      96.1      99.8',
    '',
    '77,418 parameters; trained in 1 min 24 s',
    'evaluated on 10,000 images, each resolution from the full image (host)',
  ]


def test_the_table_says_where_evaluation_took_the_lower_resolutions_from():
  config = make()['config'] | {'eval': {'pyramid': 'device'}}
  last = print_table(make(config=config)).splitlines()[-1]
  assert last == 'evaluated on 10,000 images, the lower resolutions from the largest crop (device)'


def test_the_table_counts_what_could_not_be_read():
  assert 'unreadable' not in print_table(make(unreadable=0))
  assert print_table(make(unreadable=1200)).splitlines()[-1] == '1,200 unreadable images were not scored'


def test_one_resolution_has_no_ensemble_and_no_lower_ones():
  printed = print_table(one_resolution())
  assert 'ensemble' not in printed
  assert printed.splitlines()[-1] == 'evaluated on 50,000 images'


def test_routers_stand_below_the_ensemble():
  routers = {'oracle': {'macs': 2e9, 'top1': 0.991}, 'cascade': {'macs': 5e6, 'top1': 0.9, 'top5': 1}}
  lines = [line.split() for line in print_table(make(routers=routers)).splitlines()]
  start = next(number for number, words in enumerate(lines) if words[:1] == ['ensemble'])
  assert lines[start + 1 : start + 3] == [
    ['oracle', '2.00', 'G', '99.1'],
    ['cascade', '5.00', 'M', '90.0', '100.0'],
  ]


def routed():
  """What DRNet adds to the results."""
  share = {'32': 0.3, '16': 0.3, '8': 0.4}
  return {
    'routers': {
      'predictor': {'macs': 5.2e6, 'top1': 0.97, 'share': share},
      'random': {'macs': 5.2e6, 'top1': 0.9, 'top1_sd': 0.002, 'share': share},
    },
    'cascade_curve': [[8e5, 0.7], [1.6e7, 0.99]],
    'predictor': {'macs': 2e5, 'mean_macs_without': 5e6, 'budget': 6e6},
    'needed': {'agreement': 0.8, 'agreement_or_right': 0.985, 'share': {'16': share}},
    'share_by_class': {'cat': share},
    'warnings': ['it does not pay'],
  }


def test_what_was_sent_where_is_a_table():
  printed = print_table(make(**routed()))
  lines = [line.split() for line in printed.splitlines()]
  assert ['random', '5.20', 'M', '90.0', '±', '0.2'] in lines
  start = lines.index(['by', '32', '16', '8'])
  rows = [words for words in lines[start + 1 :] if words[-3:] == ['30.0', '30.0', '40.0']]
  assert [words[:-3] for words in rows] == [['predictor'], ['random'], ['needs', '16'], ['class', 'cat']]
  assert 'multiply-adds per image: 5.00 M, 5.20 M with the predictor; budget 6.00 M' in printed
  assert 'sent to the resolution that is needed: 80.0 %, or to one that is right: 98.5 %' in printed
  assert 'warning: it does not pay' in printed


def test_the_cascade_at_other_thresholds_is_a_dotted_line():
  (axes,) = plot.draw(make(**routed())).axes
  (line,) = [line for line in axes.lines if line.get_linestyle() == ':']
  np.testing.assert_allclose(line.get_xydata(), [[8e5, 70], [1.6e7, 99]])


def test_groups_of_images_are_a_second_table():
  groups = {
    '8 px': {'32': 0.95, '16': 0.743, '8': 0.216},
    '28 px': {'32': 0.979, '16': 0.986, '8': 0.972},
  }
  lines = [line.split() for line in print_table(make(groups=groups)).splitlines()]
  start = lines.index(['resolution', '8', 'px', '28', 'px'])
  assert lines[start + 2 : start + 5] == [
    ['32', '95.0', '97.9'],
    ['16', '74.3', '98.6'],
    ['8', '21.6', '97.2'],
  ]


def test_tfds_data_are_called_by_their_name():
  config = make()['config'] | {'data': {'source': 'tfds', 'name': 'imagenet2012'}}
  assert results.title(make(config=config)) == 'rsnet, resnet_small, imagenet2012'


def test_long_training_is_told_in_hours():
  assert 'trained in 34 h 17 min' in print_table(make(train_seconds=123_456))


def test_the_table_stays_within_80_columns_and_prints_where_only_ascii_can():
  raw = io.BytesIO()
  file = io.TextIOWrapper(raw, encoding='ascii')
  table.show(make(routers={'oracle': {'macs': 2e9, 'top1': 0.9}}), Console(file=file, width=80))
  file.flush()
  assert max(map(len, raw.getvalue().decode().splitlines())) <= 80
  assert '|' in raw.getvalue().decode()


@pytest.mark.parametrize(
  ('macs', 'text'),
  [(771_604, '0.77 M'), (333_615_104, '333.62 M'), (1_814_073_344, '1.81 G'), (10**9, '1.00 G')],
)
def test_multiply_adds_as_text(macs, text):
  assert table.macs_text(macs) == text


# --- the picture ---


def points(axes):
  """The markers drawn: `[(x, y), ...]` of each, in order."""
  lines = [line for line in axes.lines if line.get_marker() != 'None']
  return [list(zip(line.get_xdata(), line.get_ydata())) for line in lines]


def test_the_picture_has_every_resolution_and_the_ensemble_at_its_place():
  (axes,) = plot.draw(make()).axes
  resolutions, ensemble = points(axes)
  assert resolutions == [(12_345_678, 96.7), (3_086_419, 89.44), (771_604, 64.2)]
  assert ensemble == [(16_203_701, 96.1)]
  assert [text.get_text() for text in axes.texts] == ['32 px', '16 px', '8 px', 'ensemble']
  assert axes.get_title(loc='left') == 'rsnet, resnet_small, scaled_digits'
  assert axes.get_xscale() == 'log'
  assert axes.get_legend() is None


def test_the_axis_of_multiply_adds_is_linear_where_they_differ_little():
  resolutions = {
    name: {'macs': macs, 'top1': 0.5, 'top5': 0.9, 'images': 7} for name, macs in (('32', 4e6), ('28', 3e6))
  }
  (axes,) = plot.draw(make(resolutions=resolutions)).axes
  assert axes.get_xscale() == 'linear'


def test_routers_have_markers_and_a_legend():
  routers = {name: {'macs': 1e6 * size, 'top1': 0.9} for size, name in enumerate(ROUTERS, 1)}
  (axes,) = plot.draw(make(routers=routers)).axes
  assert points(axes)[2:] == [[(1e6 * size, 90.0)] for size in range(1, 1 + len(ROUTERS))]
  assert [text.get_text() for text in axes.get_legend().get_texts()] == list(ROUTERS)


@pytest.mark.parametrize('found', [make(), one_resolution()])
def test_the_picture_is_saved(tmp_path, found):
  plot.accuracy_against_macs(found, tmp_path / 'accuracy.png')
  with Image.open(tmp_path / 'accuracy.png') as image:
    assert image.format == 'PNG' and image.size == (1050, 675)
    assert len(np.unique(np.asarray(image).reshape(-1, 4), axis=0)) > 50  # not a blank page
