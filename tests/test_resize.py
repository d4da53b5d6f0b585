import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from resjax.resize import pyramid, resize

# PIL rounds to integers after each axis: half a level in the first, half in the second, and the
# rounding of its fixed-point weights.
GREY_LEVEL = 1.0 + 1e-3
# Cubic weights are negative too: the first axis' half a level counts by the sum of their absolute values, at most 1.25.
CUBIC_LEVEL = 0.5 * 1.25 + 0.5 + 1e-2


@pytest.fixture(scope='module')
def photographs():
  """Two real photographs of 427 x 640, cut to save time: [2, 300, 400, 3] uint8."""
  return np.stack([image[60:360, 100:500] for image in load_sample_images().images])


@pytest.mark.parametrize('size', [(224, 224), (96, 96), (47, 333), (300, 90), (300, 400), (431, 577), (700, 123)])
def test_within_one_grey_level_of_pil(photographs, size):
  ours = np.asarray(resize(photographs, size))
  pil = np.stack([Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR) for image in photographs])
  difference = np.abs(ours - pil)
  assert ours.dtype == np.float32
  assert difference.max() <= GREY_LEVEL
  assert difference.mean() <= 0.3  # rounding alone, no shift
  if size == (300, 400):
    assert difference.max() == 0


@pytest.mark.parametrize('size', [(224, 224), (47, 133), (431, 577)])
def test_bicubic_is_within_one_grey_level_of_pil(photographs, size):
  ours = np.asarray(resize(photographs, size, 'bicubic'))
  pil = np.stack([Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC) for image in photographs])
  difference = np.abs(ours - pil)
  assert difference.max() <= CUBIC_LEVEL and difference.mean() <= 0.3
  assert np.abs(np.asarray(resize(photographs, size)) - pil).max() > 3  # the other kernel is another image


def test_bicubic_keeps_pixels_within_their_range_and_leaves_numbers_alone():
  edge = np.where(np.arange(16) < 8, 0, 255).astype(np.uint8).reshape(1, 1, 16, 1)  # one axis is resized
  cut, whole = (np.asarray(resize(images, (1, 40), 'bicubic')) for images in (edge, edge.astype(np.float32)))
  assert cut.min() == 0 and cut.max() == 255 and whole.min() < -5 and whole.max() > 260
  np.testing.assert_array_equal(cut, np.clip(whole, 0, 255))


def test_within_one_grey_level_of_pil_on_more_photographs(shared_data):
  files = sorted(shared_data.glob('photos152/images/*.png'))[::12]
  files += sorted(shared_data.glob('trashnet256/val/*/*.jpg'))[::40]
  images = np.stack([np.asarray(Image.open(file).convert('RGB'))[:256, :256] for file in files])
  for size in (160, 300):
    pil = np.stack([Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR) for image in images])
    assert np.abs(np.asarray(resize(images, size)) - pil).max() <= GREY_LEVEL


def test_golden_weights():
  # 4 -> 2: centres 1 and 3 of pixels at .5, 1.5, 2.5, 3.5; triangles of half-width 2.
  step = jnp.array([0.0, 8.0, 16.0, 24.0]).reshape(1, 1, 4, 1)
  weights = np.array([[0.75, 0.75, 0.25, 0.0], [0.0, 0.25, 0.75, 0.75]])
  expected = weights @ [0, 8, 16, 24] / 1.75
  np.testing.assert_allclose(resize(step, (1, 2))[0, 0, :, 0], expected, rtol=1e-6)
  # 2 -> 4: ordinary bilinear interpolation, the border repeated.
  up = resize(jnp.array([0.0, 8.0]).reshape(1, 2, 1, 1), (4, 1))
  np.testing.assert_allclose(up[0, :, 0, 0], [0, 2, 6, 8], rtol=1e-6)


def test_pyramid_order_and_passing_through(photographs):
  images = photographs[:, :224, :224]
  resolutions = (224, 96, 160)
  results = pyramid(images, resolutions)
  assert [r.shape for r in results] == [(2, size, size, 3) for size in resolutions]
  np.testing.assert_array_equal(results[0], images)
  np.testing.assert_array_equal(results[1], resize(images, 96))


def test_every_image_by_itself_under_jit(photographs):
  shrink = jax.jit(lambda images: resize(images, 64))
  np.testing.assert_allclose(np.asarray(shrink(photographs))[1:], resize(photographs[1:], 64), atol=1e-3)
  other = photographs.copy()
  other[0] = 255 - other[0]
  np.testing.assert_array_equal(shrink(photographs)[1], shrink(other)[1])


def test_differentiable(photographs):
  # The resize is linear: its gradient is the transpose, and the weights of each result sum to 1.
  images = jnp.asarray(photographs[:1, :20, :30], jnp.float32)
  gradient = jax.grad(lambda x: resize(x, (7, 11)).sum())(images)
  assert gradient.shape == images.shape
  np.testing.assert_allclose(gradient.sum(), 7 * 11 * 3, rtol=1e-5)


def test_wrong_input_is_refused():
  with pytest.raises(ValueError, match=r'images: got float32 \(4, 4, 3\), expected \[B, H, W, C\]'):
    resize(jnp.zeros((4, 4, 3)), 2)
  with pytest.raises(ValueError, match='size: got 0, expected a positive integer'):
    resize(jnp.zeros((1, 4, 4, 3)), 0)
