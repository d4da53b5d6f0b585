"""Operations on crops, by hand; drawn from the position alone; the same at every resolution."""

import numpy as np
import pytest
from numbered import equal, make_config, train
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images

from resjax import config as configuration
from resjax.data import augment, crops, sources

# Crops of one photograph at two sizes, compared at the smaller: what resizing twice and the borders change, in grey
# levels in the mean; the last two go by the histogram, which resizing narrows.
ALIKE = dict.fromkeys(augment.OPERATIONS, 5.0) | {'autocontrast': 10.0, 'equalize': 10.0}


@pytest.fixture(scope='module')
def photograph():
  return np.asarray(Image.fromarray(load_sample_images().images[1]).resize((96, 96)))


def one(name, value, crop):
  return augment.apply(crop, [augment.Drawn(name, value)])


def test_operations_by_hand():
  rng = np.random.default_rng(0)
  crop = rng.integers(0, 256, (8, 8, 3), np.uint8)
  np.testing.assert_array_equal(one('identity', 0, crop), crop)
  np.testing.assert_array_equal(one('posterize', 6.0, crop), crop & 0b11000000)
  np.testing.assert_array_equal(one('posterize', 0.0, crop), crop)
  np.testing.assert_array_equal(one('solarize', 0.0, crop), crop)
  np.testing.assert_array_equal(one('solarize', 256.0, crop), 255 - crop)
  np.testing.assert_array_equal(one('solarize', 56.0, crop), np.where(crop < 200, crop, 255 - crop))
  np.testing.assert_array_equal(one('brightness', -1.0, crop), 0)
  np.testing.assert_array_equal(one('brightness', 0.5, crop), np.clip(1.5 * crop, 0, 255).astype(np.uint8))
  grey = np.asarray(Image.fromarray(crop).convert('L'))
  np.testing.assert_array_equal(one('colour', -1.0, crop), np.repeat(grey[..., None], 3, 2))
  np.testing.assert_array_equal(one('contrast', -1.0, crop), int(grey.mean() + 0.5))
  sharper = ImageEnhance.Sharpness(Image.fromarray(crop)).enhance(1.7)
  np.testing.assert_array_equal(one('sharpness', 0.7, crop), np.asarray(sharper))
  np.testing.assert_array_equal(one('rotate', 90.0, crop), np.rot90(crop))
  shifted = one('shift_x', 0.25, crop)  # two of eight pixels to the left
  np.testing.assert_array_equal(shifted[:, :6], crop[:, 2:])
  np.testing.assert_array_equal(shifted[:, 6:], 128)
  shifted = one('shift_y', -0.25, crop)
  np.testing.assert_array_equal(shifted[2:], crop[:6])
  sheared = one('shear_x', 1.0, crop)  # each row half a pixel further to the left, and one more for each row
  for y in range(7):
    wanted = crop[y, y + 1 :].astype(int) + crop[y, y:7]
    np.testing.assert_allclose(sheared[y, : 7 - y], wanted / 2, atol=1)
  flat = np.full((8, 8, 3), 100, np.uint8)
  flat[0, 0], flat[0, 1] = 50, 150
  stretched = one('autocontrast', 0, flat)
  assert stretched[0, 0, 0] == 0 and stretched[0, 1, 0] == 255 and abs(int(stretched[5, 5, 0]) - 127) <= 1
  steps = np.repeat(np.arange(100, 104, dtype=np.uint8), 4096).reshape(128, 128, 1).repeat(3, 2)
  np.testing.assert_allclose(np.unique(one('equalize', 0, steps)), [0, 85, 170, 255], atol=2)


def test_strengths_are_the_papers():
  """The strongest, of 30: TrivialAugment's wide space and RandAugment's."""
  strongest = {name: (o.trivialaugment, o.randaugment) for name, o in augment.OPERATIONS.items()}
  none = dict.fromkeys(('identity', 'autocontrast', 'equalize'), (0, 0))
  enhanced = dict.fromkeys(('brightness', 'colour', 'contrast', 'sharpness'), (0.99, 0.9))
  assert strongest == none | enhanced | {
    'shear_x': (0.99, 0.3), 'shear_y': (0.99, 0.3), 'shift_x': (1 / 7, 150 / 331), 'shift_y': (1 / 7, 150 / 331),
    'rotate': (135, 30), 'posterize': (6, 4), 'solarize': (256, 256),
  }  # fmt: skip


def test_what_is_drawn():
  rng = np.random.default_rng(0)
  trivial = [augment.draw(rng, 'trivialaugment', 2, 9.0) for _ in range(6000)]
  assert {len(drawn) for drawn in trivial} == {1}
  names = [drawn[0].name for drawn in trivial]
  assert all(0.05 < names.count(name) / 6000 < 0.095 for name in augment.OPERATIONS)  # a fourteenth: 0.071
  angles = [drawn[0].value for drawn in trivial if drawn[0].name == 'rotate']
  assert min(angles) == -135 and max(angles) == 135 and len({abs(angle) for angle in angles}) == 31
  assert min(drawn[0].value for drawn in trivial if drawn[0].name == 'solarize') == 0
  random = [augment.draw(rng, 'randaugment', 3, 15.0) for _ in range(500)]
  assert {len(drawn) for drawn in random} == {3}
  assert {d.value for drawn in random for d in drawn if d.name == 'rotate'} == {-15.0, 15.0}
  assert {d.value for drawn in random for d in drawn if d.name == 'posterize'} == {2.0}


@pytest.mark.parametrize('name', [name for name in augment.OPERATIONS if name != 'sharpness'])  # an affair of pixels
def test_an_operation_does_the_same_at_every_resolution(photograph, name):
  operation = augment.OPERATIONS[name]
  small = np.asarray(Image.fromarray(photograph).resize((48, 48), Image.Resampling.BILINEAR))
  value = 0.6 * operation.trivialaugment
  large = Image.fromarray(one(name, value, photograph)).resize((48, 48), Image.Resampling.BILINEAR)
  difference = np.abs(np.asarray(large).astype(int) - one(name, value, small)).mean()
  assert difference < ALIKE[name], difference
  if name not in ('identity', 'posterize', 'autocontrast', 'equalize'):  # and it does more than that
    assert np.abs(one(name, value, small).astype(int) - small).mean() > 2 * ALIKE[name]


@pytest.mark.parametrize('kind', ['trivialaugment', 'randaugment'])
def test_batches_are_the_same_on_any_number_of_hosts_and_when_a_run_goes_on(kind):
  config = make_config(data__augment=kind, data__pyramid='host')
  configuration.validate(config)
  source = sources.FakeSource('train', 40, 7, 16)
  whole = train(source, config, 4)
  equal(train(source, config, 2, start=2), whole[2:])
  parts = [train(source, config, 4, host=host, hosts=2, devices=2) for host in range(2)]
  for host, part in enumerate(parts):
    for mixed, batch in zip(part, whole, strict=True):
      for size in range(2):
        rows = batch['images'][size][host::2]
        np.testing.assert_array_equal(mixed['images'][size], np.concatenate([rows[0::2], rows[1::2]]))
  plain = train(source, make_config(data__pyramid='host'), 4)
  assert np.mean([np.array_equal(a, b) for a, b in zip(whole[0]['images'][0], plain[0]['images'][0])]) < 0.5


def test_the_crop_is_the_one_that_is_drawn_without_it(photograph):
  """Operations are drawn after the region: turning them on moves no crop."""
  draws = lambda: np.random.default_rng(3)
  (plain,) = crops.train_crops(photograph, (32,), draws())
  rng, drawn = draws(), []

  def operations(rng):
    drawn.append(augment.draw(rng, 'randaugment', 2, 9.0))
    return drawn[0]

  (changed,) = crops.train_crops(photograph, (32,), rng, operations=operations)
  np.testing.assert_array_equal(changed, augment.apply(plain, drawn[0]))


@pytest.mark.slow
def test_worker_processes_draw_the_same():
  config = make_config(data__augment='randaugment')
  source = sources.FakeSource('train', 40, 7, 16)
  expected = train(source, config, 2)
  config.data.workers = 2
  equal(train(source, config, 2), expected)


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('augment', 'auto', "config.data.augment: got 'auto', expected one of none, trivialaugment, randaugment"),
    ('randaugment', (0, 9.0), r'config.data.randaugment: got \(0, 9.0\), expected how many operations, 1 or more'),
    ('randaugment', (2, 31.0), r'config.data.randaugment: got \(2, 31.0\), expected how many operations'),
    ('randaugment', (1.5, 9.0), r'config.data.randaugment: got \(1.5, 9.0\), expected'),
    ('erase', 1.5, 'config.data.erase: got 1.5, expected 0 to 1'),
    ('mixup', -0.1, 'config.data.mixup: got -0.1, expected 0 or more'),
  ],
)
def test_fields_that_do_not_fit(field, value, message):
  config = make_config()
  config.data[field] = value
  with pytest.raises(ValueError, match=f'^{message}'):
    configuration.validate(config)
