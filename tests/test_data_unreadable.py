"""Images that can't be read and labels that can't be: replaced, masked, counted, refused."""

import numpy as np
import pytest
from numbered import Numbered, equal, jpeg, make_config, rows_of, take, train

from resjax.data import loader, sources


def test_bad_images_in_training_are_replaced_and_counted(caplog):
  source, config = Numbered(40, bad=(3, 4, 39)), make_config(data__max_bad_images=3)
  batches = loader.train_batches(source, config, local_devices=1)
  index = np.concatenate([next(batches)['index'] for _ in range(5)])
  unread = 'not an image file (8 bytes)'
  assert batches.bad == dict.fromkeys((f'numbered {i}' for i in (3, 4, 39)), unread)
  batches.close()
  clean = np.concatenate([b['index'] for b in train(Numbered(40), config, 5)])
  np.testing.assert_array_equal(index, [{3: 5, 4: 5, 39: 0}.get(i, i) for i in clean.tolist()])
  lines = [r.message for r in caplog.records if 'unreadable' in r.message]
  assert sorted(lines) == sorted(
    f'unreadable image {name}: {why} ({n} of at most {batches._max_bad})'
    for n, (name, why) in enumerate(batches.bad.items(), 1)
  )
  # Resuming and other hosts give the same.
  equal(train(source, config, 5)[2:], train(source, config, 3, start=2))
  halves = [train(source, config, 5, host=h, hosts=2) for h in (0, 1)]
  np.testing.assert_array_equal(np.stack([np.concatenate(rows_of(h, 'index')) for h in halves], 1).ravel(), index)


def test_too_many_bad_images_stop_the_run():
  batches = loader.train_batches(Numbered(40, bad=(3, 4, 39)), make_config(data__max_bad_images=2))
  with pytest.raises(ValueError) as error:
    take(batches, 5)
  message = str(error.value)
  assert message.startswith('config.data.max_bad_images: 2, but 3 unreadable: ')
  assert all(f'numbered {i}: not an image file' in message for i in (3, 4, 39))
  with pytest.raises(ValueError, match='max_bad_images: 0, but 1 unreadable'):
    take(loader.train_batches(Numbered(40, bad=[7]), make_config()), 3)
  with pytest.raises(ValueError, match='max_bad_images: 5, but .* unreadable'):
    take(loader.train_batches(Numbered(40, bad=range(40)), make_config(data__max_bad_images=5)), 1)
  with pytest.raises(ValueError, match='numbered 0 and the 39 others: no readable image'):
    take(loader.train_batches(Numbered(40, bad=range(40)), make_config(data__max_bad_images=99)), 1)


def test_bad_images_in_evaluation_are_masked_and_counted():
  config = make_config(data__max_bad_images=2)
  batches = loader.eval_batches(Numbered(20, bad=(3, 17)), config, local_devices=1)
  first, second = batches
  assert list(batches.bad) == ['numbered 3', 'numbered 17']
  np.testing.assert_array_equal(first['mask'], [1, 1, 1, 0] + [1] * 12)
  np.testing.assert_array_equal(first['index'], np.arange(16))
  np.testing.assert_array_equal(second['mask'], [1, 0, 1, 1] + [0] * 12)
  with pytest.raises(ValueError, match='max_bad_images: 1, but 2 unreadable: numbered 3: .*; numbered 17'):
    list(loader.eval_batches(Numbered(20, bad=(3, 17)), make_config(data__max_bad_images=1)))


def test_corrupt_files_of_a_folder(tmp_path):
  for i in range(16):
    path = tmp_path / 'train' / 'ab'[i % 2] / f'{i:02}.jpg'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(i))
  lost, cut = tmp_path / 'train/a/00.jpg', tmp_path / 'train/b/05.jpg'
  cut.write_bytes(jpeg(5)[:-200])
  config = make_config(data__source='folder', data__dir=str(tmp_path), data__max_bad_images=2)
  config.model.num_classes = 2
  source = sources.create(config, 'train')
  lost.unlink()
  batches = loader.train_batches(source, config, local_devices=1)
  assert 0 not in next(batches)['index']
  assert set(batches.bad) == {str(lost), str(cut)}
  assert batches.bad[str(lost)] == 'No such file or directory'
  batches.close()
  config.data.max_bad_images = 1
  with pytest.raises(ValueError, match='max_bad_images: 1, but 2 unreadable') as error:
    take(loader.train_batches(source, config), 1)
  assert str(lost) in str(error.value) and str(cut) in str(error.value)


def test_label_outside_the_classes():
  config = make_config()
  config.model.num_classes = 6
  message = r'^numbered \d+: label 6, expected 0 to 5 \(config.model.num_classes = 6\)$'
  with pytest.raises(ValueError, match=message):
    take(loader.train_batches(Numbered(40), config), 5)
  with pytest.raises(ValueError, match=message):
    list(loader.eval_batches(Numbered(40), config))
