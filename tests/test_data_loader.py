"""The loader's batches: what is in them, their order, their shares for hosts and devices."""

import numpy as np
import pytest
from numbered import Numbered, equal, evaluate, jpeg, make_config, rows_of, take, train

from resjax.data import loader, sources, workers


def test_what_is_in_a_batch():
  batch = train(Numbered(40), make_config(), 1)[0]
  assert set(batch) == {'images', 'label', 'index'}
  assert [(x.shape, x.dtype) for x in batch['images']] == [((16, 8, 8, 3), np.uint8)]
  assert (batch['label'].dtype, batch['index'].dtype) == (np.int32, np.int32)
  np.testing.assert_array_equal(batch['images'][0][:, 3, 3, 1], batch['index'])
  np.testing.assert_array_equal(batch['label'], batch['index'] % 7)
  host = train(Numbered(40), make_config(data__pyramid='host'), 1)[0]
  assert [x.shape for x in host['images']] == [(16, 8, 8, 3), (16, 4, 4, 3)]
  np.testing.assert_array_equal(host['images'][1][:, 3, 3, 1], host['index'])


def test_evaluation_batches():
  batches = evaluate(Numbered(20), make_config())
  assert [set(b) for b in batches] == [{'images', 'label', 'index', 'mask'}] * 2
  assert [x.shape for x in batches[0]['images']] == [(16, 8, 8, 3), (16, 4, 4, 3)]
  assert batches[0]['mask'].dtype == np.float32
  np.testing.assert_array_equal(batches[1]['index'], [16, 17, 18, 19] + [-1] * 12)
  np.testing.assert_array_equal(batches[1]['mask'], [1] * 4 + [0] * 12)
  np.testing.assert_array_equal(batches[1]['label'], [2, 3, 4, 5] + [0] * 12)
  assert not batches[1]['images'][0][4:].any()
  device = evaluate(Numbered(20), make_config(eval__pyramid='device'))
  assert [x.shape for x in device[0]['images']] == [(16, 8, 8, 3)]


def test_every_image_once_per_epoch_in_another_order():
  n = 50
  index = np.concatenate([b['index'] for b in train(Numbered(n), make_config(), 10)])
  epochs = [index[i : i + n] for i in (0, n, 2 * n)]
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(n))
    assert np.sum(epoch == np.arange(n)) < 8  # shuffled
  assert not np.array_equal(epochs[0], epochs[1])
  other = np.concatenate([b['index'] for b in train(Numbered(n), make_config(seed=1), 10)])
  assert not np.array_equal(other[:n], epochs[0])


def test_golden_order():
  # Frozen: a checkpoint goes on in the middle of this very order.
  index = train(Numbered(20), make_config(seed=3), 1)[0]['index']
  np.testing.assert_array_equal(index, np.random.RandomState([3, 0, 0]).permutation(20)[:16])
  assert index.tolist() == [12, 15, 5, 8, 17, 18, 2, 3, 4, 1, 19, 9, 14, 6, 16, 7]


def test_random_crops_depend_on_the_position_alone():
  config = make_config(data__crop='random_resized', data__pyramid='host', data__crops='different')
  source = sources.FakeSource('train', 24, 7, 12)
  batches = train(source, config, 6)
  equal(batches, train(source, config, 6))
  # The same image in the next epoch is cropped otherwise.
  images = {}
  for batch in batches:
    for i, index in enumerate(batch['index'].tolist()):
      images.setdefault(index, []).append(batch['images'][0][i])
  assert all(len(x) >= 3 and not np.array_equal(x[0], x[1]) for x in images.values())
  other = train(source, make_config(data__crop='random_resized', seed=1), 6)
  assert not np.array_equal(other[0]['images'][0], batches[0]['images'][0])


@pytest.mark.parametrize('start', [1, 2, 7])
def test_resuming_is_the_uninterrupted_stream(start):
  config = make_config(data__crop='random_resized')
  source = sources.FakeSource('train', 40, 7, 8)  # 2.5 batches: epochs end within batches
  equal(train(source, config, 9)[start:], train(source, config, 9 - start, start))


@pytest.mark.parametrize(('hosts', 'devices'), [(1, 4), (2, 1), (2, 4), (4, 2)])
def test_devices_get_strided_slices_of_the_global_batch(hosts, devices):
  config = make_config(data__crop='random_resized')
  source = sources.FakeSource('train', 40, 7, 8)
  whole = train(source, config, 4)
  for host in range(hosts):
    part = train(source, config, 4, host=host, hosts=hosts, devices=devices)
    for key in ('index', 'label', 'images'):
      for global_rows, rows in zip(rows_of(whole, key), rows_of(part, key), strict=True):
        for device, share in enumerate(np.split(rows, devices)):
          np.testing.assert_array_equal(share, global_rows[host + hosts * device :: hosts * devices])


@pytest.mark.parametrize('hosts', [1, 2, 4])
@pytest.mark.parametrize('size', [1, 15, 16, 17, 50])
def test_evaluation_scores_every_image_once(hosts, size):
  parts = [evaluate(Numbered(size), make_config(), host, hosts, devices=2) for host in range(hosts)]
  steps = {len(part) for part in parts}
  assert steps == {-(-size // 16)}
  seen = np.concatenate([b['index'][b['mask'] > 0] for part in parts for b in part])
  np.testing.assert_array_equal(np.sort(seen), np.arange(size))
  for part in parts:
    for batch in part:
      assert batch['index'].shape == (16 // hosts,)
      np.testing.assert_array_equal(batch['mask'], batch['index'] >= 0)


def test_sizes_that_do_not_fit():
  source = Numbered(40)
  assert loader.steps_per_epoch(source, make_config()) == 2
  with pytest.raises(ValueError, match=r'config.batch_size: 41, expected at most the 40 training images'):
    loader.steps_per_epoch(source, make_config(batch_size=41))
  with pytest.raises(ValueError, match=r'config.batch_size: 41, expected at most'):
    loader.train_batches(source, make_config(batch_size=41))
  with pytest.raises(ValueError, match=r'config.batch_size: 12, expected a multiple of the 8 devices'):
    loader.train_batches(source, make_config(batch_size=12))  # the 8 virtual devices


def test_an_evaluation_batch_grows_to_a_multiple_of_the_devices():
  config, seen = make_config(eval__batch_size=12), []
  for host in (0, 1):
    sharding = {'process_count': 2, 'process_index': host, 'local_devices': 4}
    found = take(loader.eval_batches(Numbered(40), config, **sharding), 99)
    assert [len(batch['index']) for batch in found] == [8, 8, 8]
    seen += [i for batch in found for i in batch['index'].tolist() if i >= 0]
  assert sorted(seen) == list(range(40))


def test_an_end_is_an_end():
  batches = loader.eval_batches(Numbered(5), make_config())
  assert len(list(batches)) == 1
  assert list(batches) == []
  batches.close()
  batches.close()


def test_small_runs_start_no_process_and_training_counts_all_its_epochs(monkeypatch):
  made, config = [], make_config(data__source='folder', data__workers=-1, epochs=500.0)
  monkeypatch.setattr(workers, 'processors', lambda: 96)
  monkeypatch.setattr(loader, 'Batches', lambda config, make, steps, count: made.append(count))
  source = sources.FakeSource('train', 40, 7, 8)
  for epochs in (499.0, 500.0):
    config.epochs = epochs
    loader.train_batches(source, config, local_devices=1)
  loader.eval_batches(source, config, local_devices=1)
  assert made == [0, 48, 0]


@pytest.mark.slow
def test_worker_processes_give_the_same_stream(tmp_path):
  config = make_config(data__crop='random_resized')
  source = sources.FakeSource('train', 40, 7, 8)
  expected = train(source, config, 6)
  config.data.workers = 2
  equal(train(source, config, 6), expected)
  equal(train(source, config, 3, start=3), expected[3:])
  config.data.workers, config.data.source, config.data.threads = -1, 'folder', 1
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(workers, '_FEW', 0)
    patch.setattr(workers, 'processors', lambda: 2)
    assert workers.processes(config, 1) == 2
    equal(train(source, config, 6), expected)
  # Failures come out of the workers as they are.
  config.model.num_classes = 3
  with pytest.raises(
    ValueError, match=r'^fake/train \d+: label [3-6], expected 0 to 2 \(config.model.num_classes = 3\)$'
  ):
    train(source, config, 5)
  evaluation = make_config(data__workers=2)
  assert sum(b['mask'].sum() for b in evaluate(sources.FakeSource('val', 20, 7, 8), evaluation)) == 20
  # Unreadable files are counted in the main process.
  for i in range(16):
    path = tmp_path / 'train' / 'ab'[i % 2] / f'{i:02}.jpg'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(i) if i != 6 else b'nothing')
  config = make_config(data__source='folder', data__dir=str(tmp_path), data__workers=2, data__max_bad_images=1)
  config.model.num_classes = 2
  batches = loader.train_batches(sources.create(config, 'train'), config, local_devices=1)
  next(batches)
  assert batches.bad == {str(tmp_path / 'train/a/06.jpg'): 'not an image file (7 bytes)'}
  batches.close()
