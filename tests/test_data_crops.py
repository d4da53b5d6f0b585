import dataclasses
import io
import math

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from resjax.data.crops import Region, centre_crops, evaluation_crops, random_region, train_crops
from resjax.data.decode import BadImage
from resjax.preprocess import Preprocessing
from resjax.resize import resize

LIMIT = 50_000_000
RESOLUTIONS = (224, 192, 160, 128, 96)


@pytest.fixture(scope='module')
def photograph():
  """A real photograph, 427 x 640."""
  return load_sample_images().images[1]


def bilinear(picture, width, height):
  return picture.resize((width, height), Image.Resampling.BILINEAR)


def test_region_follows_torchvision(photograph):
  # The rule, written down again in torchvision's words and order of draws.
  def torchvision(rng, height, width, scale, ratio):
    for _ in range(10):
      target = height * width * rng.uniform(*scale)
      aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
      w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
      if 0 < w <= width and 0 < h <= height:
        return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
    in_ratio = width / height
    if in_ratio < min(ratio):
      w, h = width, round(width / min(ratio))
    elif in_ratio > max(ratio):
      h, w = height, round(height * max(ratio))
    else:
      w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w

  for height, width in ((375, 500), (500, 375), (64, 64), (40, 900), (900, 40), (1, 1)):
    for seed in range(50):
      area = (0.08, 1.0) if seed % 2 else (0.9, 1.0)
      mine = random_region(np.random.default_rng(seed), height, width, area)
      assert mine == torchvision(np.random.default_rng(seed), height, width, area, (3 / 4, 4 / 3))
      top, left, h, w = mine
      assert 0 <= top <= top + h <= height
      assert 0 <= left <= left + w <= width


def test_region_statistics():
  rng = np.random.default_rng(0)
  regions = [random_region(rng, 1000, 1000) for _ in range(2000)]
  areas = np.array([r.height * r.width for r in regions]) / 1e6
  ratios = np.array([r.width / r.height for r in regions])
  assert 0.075 < areas.min() < 0.1
  assert areas.max() <= 1
  assert 3 / 4 - 0.01 < ratios.min() < 0.77
  assert 1.3 < ratios.max() < 4 / 3 + 0.01
  assert abs(np.log(ratios).mean()) < 0.02
  assert len({(r.top, r.left) for r in regions}) > 1500


def test_fallback_is_the_centre():
  assert random_region(np.random.default_rng(0), 30, 900) == Region(0, 430, 30, 40)
  assert random_region(np.random.default_rng(0), 900, 30) == Region(430, 0, 40, 30)


def test_training_crops_are_pils(photograph):
  rng = np.random.default_rng(3)
  top, left, height, width = random_region(np.random.default_rng(3), *photograph.shape[:2])
  part = Image.fromarray(photograph).crop((left, top, left + width, top + height))
  crops = train_crops(photograph, RESOLUTIONS, rng)
  for size, crop in zip(RESOLUTIONS, crops, strict=True):
    np.testing.assert_array_equal(crop, bilinear(part, size, size))
  # The device pyramid asks for the largest alone and gets the same one.
  np.testing.assert_array_equal(train_crops(photograph, (224,), np.random.default_rng(3))[0], crops[0])


def test_area_and_ratio_are_used(photograph):
  whole = train_crops(photograph, (64,), np.random.default_rng(0), area=(1.0, 1.0), ratio=(640 / 427, 640 / 427))
  np.testing.assert_array_equal(whole[0], bilinear(Image.fromarray(photograph), 64, 64))


def test_different_crops_draw_one_region_each(photograph):
  crops = train_crops(photograph, (96, 64), np.random.default_rng(5), crops='different')
  rng = np.random.default_rng(5)
  for size, crop in zip((96, 64), crops, strict=True):
    top, left, height, width = random_region(rng, *photograph.shape[:2])
    part = Image.fromarray(photograph[top : top + height, left : left + width])
    np.testing.assert_array_equal(crop, bilinear(part, size, size))


def test_full_crop_is_the_whole_image(photograph):
  crops = train_crops(photograph, (64, 32), None, crop='full')
  for size, crop in zip((64, 32), crops, strict=True):
    np.testing.assert_array_equal(crop, bilinear(Image.fromarray(photograph), size, size))
  square = photograph[:32, :32]
  np.testing.assert_array_equal(train_crops(square, (32,), None, crop='full')[0], square)


@pytest.mark.parametrize('fraction', [0.875, 1.0])
@pytest.mark.parametrize('shape', [(427, 640), (427, 301), (300, 300), (97, 256), (60, 90)])
def test_evaluation_crops_are_torchvisions(photograph, shape, fraction):
  image = np.ascontiguousarray(photograph[: shape[0], : shape[1]])
  crops = centre_crops(image, RESOLUTIONS, fraction, LIMIT)
  shorts = {224: 256, 192: 219, 160: 182, 128: 146, 96: 109} if fraction == 0.875 else {}
  for size, crop in zip(RESOLUTIONS, crops, strict=True):
    short = shorts.get(size, size)
    height, width = shape
    if height <= width:
      h, w = short, int(short * width / height)
    else:
      h, w = int(short * height / width), short
    resized = bilinear(Image.fromarray(image), w, h)
    top, left = round((h - size) / 2.0), round((w - size) / 2.0)
    np.testing.assert_array_equal(crop, resized.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
def test_the_networks_preprocessing_crops_evaluation_images(photograph, interpolation):
  preprocessing = Preprocessing(interpolation=interpolation, crop_fraction=0.9, max_pixels=427 * 640)
  large, small = evaluation_crops(preprocessing, (96, (48, 64)))(photograph)
  kind = Image.Resampling[interpolation.upper()]
  resized = Image.fromarray(photograph).resize((158, 106), kind)  # int(96 / 0.9) = 106; 106 * 640 / 427 = 158.9
  left, top = round((158 - 96) / 2), round((106 - 96) / 2)
  np.testing.assert_array_equal(large, resized.crop((left, top, left + 96, top + 96)))
  resized = Image.fromarray(photograph).resize((79, 53), kind)  # int(48 / 0.9) = 53 high covers: 79 wide, above 71
  np.testing.assert_array_equal(small, resized.crop((8, 2, 72, 50)))
  with pytest.raises(BadImage, match='640 x 427 pixels, more than'):
    evaluation_crops(dataclasses.replace(preprocessing, max_pixels=427 * 640 - 1), (96,))(photograph)


def test_bicubic_crops_are_another_image_within_reach_of_the_devices(photograph):
  linear, cubic = (centre_crops(photograph, (96,), 0.875, LIMIT, kind)[0] for kind in ('bilinear', 'bicubic'))
  assert np.abs(linear.astype(int) - cubic).max() > 3
  device = np.asarray(resize(photograph[None], (109, 163), 'bicubic'))[0, 6:102, 34:130]
  # PIL rounds after each axis; cubic weights are negative too: half a level of the first axis counts 1.25 times.
  assert np.abs(device - cubic).max() <= 0.5 * 1.25 + 0.5 + 1e-2


@pytest.mark.parametrize(
  ('size', 'width', 'height'),  # of the resized photograph, worked out by hand from its 640 x 427
  [
    ((128, 160), 218, 146),  # int(128 / 0.875) = 146 high covers: 146 * 640 / 427 = 218.8, above int(182.9)
    ((160, 128), 272, 182),
    ((96, 224), 256, 170),  # int(224 / 0.875) = 256 wide covers: 256 * 427 / 640 = 170.8, above int(109.7)
    ((64, 64), 109, 73),
  ],
)
def test_evaluation_crops_that_are_not_square(photograph, size, width, height):
  (crop,) = centre_crops(photograph, (size,), 0.875, LIMIT)
  resized = bilinear(Image.fromarray(photograph), width, height)
  top, left = round((height - size[0]) / 2), round((width - size[1]) / 2)
  np.testing.assert_array_equal(crop, resized.crop((left, top, left + size[1], top + size[0])))


def test_dct_scaled_decoding_stays_near_the_full_decode(photograph):
  """Mean difference below 1.5 grey levels in every image: less than what two-step resizing changes."""
  buffer = io.BytesIO()
  Image.fromarray(photograph).save(buffer, 'JPEG', quality=90)
  data = buffer.getvalue()
  means, shrunk = [], 0
  for seed in range(20):
    size = 64  # crops of at least 192 pixels are decoded at half size
    full = train_crops(data, (size,), np.random.default_rng(seed))[0].astype(int)
    fast = train_crops(data, (size,), np.random.default_rng(seed), may_shrink=True)[0].astype(int)
    region = random_region(np.random.default_rng(seed), *photograph.shape[:2])
    if min(region.height, region.width) < 3 * size:
      np.testing.assert_array_equal(full, fast)
      continue
    shrunk += 1
    means.append(np.abs(full - fast).mean())
    # Not shifted: no shift by a pixel is nearer.
    inner = np.s_[2:-2, 2:-2]
    for shift in ((0, 1), (1, 0), (0, -1), (-1, 0)):
      assert means[-1] < np.abs(full[inner] - np.roll(fast, shift, (0, 1))[inner]).mean()
  assert shrunk >= 4
  assert max(means) < 1.5
  assert max(means) > 0  # it did something


def test_dct_scaled_decoding_keeps_places():
  """On ramps, grey levels are places: a shift of one pixel changes the value by 0.4 to 0.6."""
  y, x = np.mgrid[:427, :640]
  buffer = io.BytesIO()
  ramps = np.stack([x * 255 / 639, y * 255 / 426, 0 * x], -1).round().astype(np.uint8)
  Image.fromarray(ramps).save(buffer, 'JPEG', quality=100, subsampling=0)
  for seed in range(10):
    full, fast = (
      train_crops(buffer.getvalue(), (8,), np.random.default_rng(seed), may_shrink=fast)[0].astype(int)
      for fast in (False, True)
    )
    assert np.abs(full - fast)[1:-1, 1:-1].max() <= 1  # rounding, up to 8 times smaller


def test_refused_and_broken_images(photograph):
  for make in (
    lambda image, limit: train_crops(image, (8,), np.random.default_rng(0), max_pixels=limit),
    lambda image, limit: centre_crops(image, (8,), 0.875, limit),
  ):
    with pytest.raises(BadImage, match='640 x 427 pixels, more than'):
      make(photograph, 427 * 640 - 1)
    with pytest.raises(BadImage):
      make(b'\xff\xd8\xff broken', LIMIT)
  ribbon = np.zeros((1, 5000, 3), np.uint8)
  with pytest.raises(BadImage, match='5000 x 1 pixels: too long, 1280000 x 256 when resized'):
    centre_crops(ribbon, (224,), 0.875, LIMIT)
