"""Metrics read back by the tools that users read them with; progress as it is printed."""

import importlib
import io
import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from resjax.training import metrics


def read_lines(workdir):
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def read_events(workdir):
  return EventAccumulator(str(workdir / 'tensorboard')).Reload()


def test_scalars_stand_in_both_files(tmp_path):
  with metrics.MetricWriter(tmp_path) as writer:
    writer.scalars(50, {'train/loss_224': jnp.float32(1.25), 'train/loss_96': np.float64(2.5)})
    writer.scalars(100, {'train/loss_224': 1})
  assert (tmp_path / 'metrics.jsonl').read_text() == (
    '{"step": 50, "train/loss_224": 1.25, "train/loss_96": 2.5}\n{"step": 100, "train/loss_224": 1.0}\n'
  )
  events = read_events(tmp_path)
  assert set(events.Tags()['scalars']) == {'train/loss_224', 'train/loss_96'}
  assert [(e.step, e.value) for e in events.Scalars('train/loss_224')] == [(50, 1.25), (100, 1.0)]
  assert [(e.step, e.value) for e in events.Scalars('train/loss_96')] == [(50, 2.5)]


def test_a_line_is_on_disk_before_the_writer_closes(tmp_path):
  with metrics.MetricWriter(tmp_path) as writer:
    writer.scalars(1, {'loss': 3.0})
    assert read_lines(tmp_path) == [{'step': 1, 'loss': 3.0}]


def test_what_is_not_finite_stays_json_and_reads_back(tmp_path):
  def refuse(word):
    raise AssertionError(f'{word} is not JSON')

  with metrics.MetricWriter(tmp_path) as writer:
    writer.scalars(7, {'a': float('nan'), 'b': jnp.inf, 'c': -np.inf})
  line = json.loads((tmp_path / 'metrics.jsonl').read_text(), parse_constant=refuse)
  assert line == {'step': 7, 'a': 'NaN', 'b': 'Infinity', 'c': '-Infinity'}
  assert np.isnan(float(line['a'])) and float(line['b']) == np.inf and float(line['c']) == -np.inf
  assert np.isnan(read_events(tmp_path).Scalars('a')[0].value)


def test_resume_drops_what_a_former_life_wrote_later(tmp_path):
  with metrics.MetricWriter(tmp_path) as writer:
    for step in (10, 20, 30):
      writer.scalars(step, {'loss': float(step)})
  with metrics.MetricWriter(tmp_path, resume_step=20) as writer:
    for step in (30, 40):
      writer.scalars(step, {'loss': step + 0.5})
  expected = [(10, 10.0), (20, 20.0), (30, 30.5), (40, 40.5)]
  assert [(line['step'], line['loss']) for line in read_lines(tmp_path)] == expected
  assert [(e.step, e.value) for e in read_events(tmp_path).Scalars('loss')] == expected


def test_a_new_run_in_an_old_folder_starts_anew(tmp_path):
  for loss in (1.0, 2.0):
    with metrics.MetricWriter(tmp_path) as writer:
      writer.scalars(0, {'loss': loss})
  assert read_lines(tmp_path) == [{'step': 0, 'loss': 2.0}]
  assert [e.value for e in read_events(tmp_path).Scalars('loss')] == [2.0]


def test_resume_drops_a_line_that_was_cut_short(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
  with metrics.MetricWriter(tmp_path, resume_step=5) as writer:
    writer.scalars(6, {'loss': 1.0})
  assert read_lines(tmp_path) == [{'step': 1, 'loss': 2.0}, {'step': 6, 'loss': 1.0}]


@pytest.mark.parametrize(
  'line',
  [
    b'not json',
    b'{"loss": 1.0}',
    b'[1]',
    b'{"step": "2"}',
    pytest.param(b'[' * 10_000, id='nested'),
    b'{"step\xf5": 2}',
  ],
)
def test_a_foreign_line_is_refused_and_kept(tmp_path, line):
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(b'{"step": 1}\n' + line + b'\n')
  with pytest.raises(ValueError, match=r'metrics\.jsonl, line 2: expected a JSON object') as error:
    metrics.MetricWriter(tmp_path, resume_step=5)
  assert '\n' not in str(error.value)
  assert path.read_bytes() == b'{"step": 1}\n' + line + b'\n'


def test_an_image_reads_back(tmp_path):
  image = np.zeros((4, 6, 3), np.uint8)
  image[1, 2] = (255, 128, 0)
  with metrics.MetricWriter(tmp_path) as writer:
    writer.image(3, 'batch', image)
    writer.image(3, 'float', image / np.float32(255))
  from PIL import Image

  for name in ('batch', 'float'):
    (event,) = read_events(tmp_path).Images(name)
    decoded = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert('RGB'))
    assert event.step == 3
    np.testing.assert_allclose(decoded, image, atol=1)


@pytest.mark.parametrize(
  ('image', 'complaint'),
  [
    (np.zeros((4, 4), np.uint8), r"image 'x': expected \[H, W, 1, 3 or 4\], got shape \(4, 4\)"),
    (np.zeros((3, 4, 5), np.uint8), r'got shape \(3, 4, 5\)'),
    (np.zeros((4, 4, 3), np.int32), r"image 'x': expected uint8 or floating point, got int32"),
  ],
)
def test_a_wrong_image_is_refused(tmp_path, image, complaint):
  with metrics.MetricWriter(tmp_path) as writer, pytest.raises(ValueError, match=complaint):
    writer.image(0, 'x', image)


def test_a_metric_that_is_no_scalar_is_refused_and_nothing_is_written(tmp_path):
  with metrics.MetricWriter(tmp_path) as writer:
    with pytest.raises(ValueError, match=r"metric 'v': expected a scalar, got shape \(2,\)"):
      writer.scalars(1, {'a': 1.0, 'v': np.ones(2)})
    assert read_lines(tmp_path) == []


def test_a_disabled_writer_makes_no_file_and_touches_none(tmp_path):
  with metrics.MetricWriter(tmp_path / 'new', enabled=False) as writer:
    writer.scalars(1, {'a': 1.0})
    writer.image(1, 'x', np.zeros((2, 2, 3), np.uint8))
  assert list(tmp_path.iterdir()) == []


def test_close_twice_is_close_once(tmp_path):
  writer = metrics.MetricWriter(tmp_path)
  writer.scalars(1, {'a': 1.0})
  writer.close()
  writer.close()
  writer.scalars(2, {'a': 1.0})
  assert [line['step'] for line in read_lines(tmp_path)] == [1]


@pytest.fixture
def clock(monkeypatch):
  """Seconds that pass only when told to: `clock.now += 1`."""

  class Clock:
    now = 100.0

    def monotonic(self):
      return self.now

  clock = Clock()
  monkeypatch.setattr(metrics, 'time', clock)
  return clock


def plain_console():
  return Console(file=io.StringIO(), width=80, force_terminal=False)


def test_progress_prints_lines_where_there_is_no_terminal(clock):
  console = plain_console()
  with metrics.Progress(30, 10, 64, every_seconds=5, console=console) as progress:
    for step in range(1, 31):
      clock.now += 2
      progress.update(step, note='loss 1.23' if step == 3 else None)
  lines = console.file.getvalue().splitlines()
  assert lines[0] == 'epoch 1/3  step 1/30'
  assert lines[1] == 'epoch 1/3  step 4/30  32 images/s  0:00:52 left  loss 1.23'
  assert lines[4] == 'epoch 2/3  step 13/30  32 images/s  0:00:34 left  loss 1.23'
  assert lines[-1] == 'epoch 3/3  step 30/30  32 images/s  0:00:00 left  loss 1.23'
  assert len(lines) == 11  # steps 1, 4, 7, ..., 28 and the last one


def test_progress_after_a_resume_counts_only_what_this_life_did(clock):
  console = plain_console()
  with metrics.Progress(1000, 100, 8, start_step=500, every_seconds=0, console=console) as progress:
    for step in (501, 502):
      clock.now += 4
      progress.update(step)
  last = console.file.getvalue().splitlines()[-1]
  assert last == 'epoch 6/10  step 502/1000  2 images/s  0:33:12 left'


def test_a_pause_counts_for_neither_speed_nor_time_left(clock):
  progress = metrics.Progress(10, 5, 100, console=plain_console())
  for step in (1, 2, 3, 4):
    clock.now += 1
    progress.update(step)
    if step == 2:
      with progress.pause('evaluating'):
        clock.now += 60
  assert progress.images_per_second == pytest.approx(100)


def test_speed_follows_the_last_hundred_updates(clock):
  progress = metrics.Progress(1000, 100, 10, console=plain_console())
  assert progress.images_per_second is None
  for step in range(1, 202):
    clock.now += 1 if step <= 101 else 0.1
    progress.update(step)
  assert progress.images_per_second == pytest.approx(100)


def test_progress_draws_one_line_with_a_bar_on_a_terminal(clock):
  console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
  with metrics.Progress(300_000, 5004, 256, console=console) as progress:
    for step in (123_455, 123_456):
      clock.now += 1
      progress.update(step, note='loss 1.234')
  *frames, last = console.file.getvalue().splitlines()
  assert last == '\x1b[?25h'  # the cursor is back
  shown = frames[-1].split('\x1b[2K')[-1]
  assert shown.startswith('━')
  assert shown.endswith(' epoch 25/60  step 123456/300000  256 images/s  49:02:24 left  loss 1.234')


def test_a_pause_is_shown_by_its_name(clock):
  console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
  with metrics.Progress(10, 5, 256, console=console) as progress:
    progress.update(1, note='loss 1.234')
    with progress.pause('evaluating'):
      progress._bar.refresh()
    progress._bar.refresh()
  frames = [frame for frame in console.file.getvalue().split('\x1b[2K') if 'step 1/10' in frame]
  assert frames[0].rstrip('\r').endswith('step 1/10  evaluating')
  assert 'step 1/10  loss 1.234' in frames[-1]


def test_a_disabled_progress_is_silent():
  console = plain_console()
  with metrics.Progress(2, 1, 1, enabled=False, every_seconds=0, console=console) as progress:
    progress.update(1)
    with progress.pause('evaluating'):
      progress.update(2)
  assert console.file.getvalue() == ''


@pytest.mark.parametrize('module', ['colorsys', 'json'])
def test_a_module_that_is_not_needed_is_not_imported_meanwhile(module, monkeypatch):
  if module == 'colorsys':
    monkeypatch.delitem(sys.modules, module, raising=False)
  before = dict(sys.modules)
  with metrics._without(module):
    if module == 'colorsys':
      with pytest.raises(ImportError):
        importlib.import_module(module)
    else:
      assert importlib.import_module(module) is json
  assert dict(sys.modules) == before
  importlib.import_module(module)


def test_a_run_begins_without_torch_and_pictures(tmp_path):
  code = 'import sys; from resjax.training import loop, metrics; metrics.MetricWriter(sys.argv[1]).close()'
  code += "; print(*{'torch', 'matplotlib', 'tensorflow', 'tensorboardX'} & sys.modules.keys())"
  done = subprocess.run([sys.executable, '-c', code, tmp_path], check=True, stdout=subprocess.PIPE, text=True)
  assert done.stdout.split() == ['tensorboardX']
