"""Flips, normalisation and other sizes on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from resjax import preprocess, resize

RESOLUTIONS = (16, 12, 8)


@pytest.fixture(scope='module')
def crop():
  return np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)


def test_the_device_makes_the_lower_resolutions(crop):
  got = preprocess.prepare((crop,), RESOLUTIONS, 'unit')
  for a, b in zip(got, resize.pyramid(jnp.asarray(crop), RESOLUTIONS), strict=True):
    assert a.dtype == jnp.float32
    np.testing.assert_allclose(a, b / 255, rtol=0, atol=1e-6)


def test_images_of_the_host_pyramid_are_taken_as_they_are(crop):
  sizes = tuple(crop[:, :r, :r] for r in RESOLUTIONS)
  for a, b in zip(preprocess.prepare(sizes, RESOLUTIONS, 'unit'), sizes, strict=True):
    np.testing.assert_allclose(a, b / 255.0, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
  ('name', 'mean', 'std'),
  [
    ('imagenet', [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ('unit', [0, 0, 0], [1, 1, 1]),
    ('signed', [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
  ],
)
def test_normalisation(crop, name, mean, std):
  (got,) = preprocess.prepare((crop,), (16,), name)
  np.testing.assert_allclose(got, (crop / 255.0 - mean) / std, rtol=0, atol=1e-5)


def test_a_flip_mirrors_left_to_right(crop):
  flips = np.zeros((1, 5), bool)
  flips[0, 2] = True
  (plain,), (flipped,) = (preprocess.prepare((crop,), (16,), 'unit', f) for f in (None, jnp.asarray(flips)))
  np.testing.assert_array_equal(flipped[2], plain[2, :, ::-1])
  np.testing.assert_array_equal(np.delete(flipped, 2, 0), np.delete(plain, 2, 0))


def test_branches_that_see_the_same_are_told_of():
  config = default.get_config()
  config.resolutions = (16, 16, 8)
  for fields, told in (
    ({}, True),
    ({'data.flip': 'none'}, True),
    ({'data.flip': 'independent'}, False),
    ({'data.flip': 'shared', 'data.crops': 'different'}, False),
    ({'data.crops': 'same', 'resolutions': (16, 8)}, False),
  ):
    config.update_from_flattened_dict(fields)
    note = preprocess.alike_note(config)
    assert (note is not None) == told
    assert not told or note.startswith(f'config.resolutions: got (16, 16, 8) with data.flip={config.data.flip!r} and')


def test_flips_are_drawn_per_example_not_per_place_in_the_batch():
  key, index = jax.random.key(3), jnp.arange(4000)
  draw = jax.jit(preprocess.draw_flips, static_argnums=(2, 3))
  assert draw(key, index, RESOLUTIONS, 'none') is None
  shared = draw(key, index, RESOLUTIONS, 'shared')
  assert shared.shape == (3, 4000) and (shared == shared[:1]).all()
  independent = draw(key, index, RESOLUTIONS, 'independent')
  np.testing.assert_array_equal(draw(key, index[::-1], RESOLUTIONS, 'independent'), independent[:, ::-1])
  # 4000 fair coins: a standard deviation is 0.8 %; resolutions agree in half of the cases.
  for row in (shared[0], *independent, independent[0] == independent[1], independent[1] == independent[2]):
    assert abs(float(row.mean()) - 0.5) < 0.04


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'normalize': 'none'},
      "normalize: got 'none', expected one of imagenet, unit, signed, or three means and three deviations",
    ),
    ({'interpolation': 'nearest'}, "interpolation: got 'nearest', expected one of bilinear, bicubic"),
    ({'crop_fraction': 0.0}, 'crop_fraction: got 0.0, expected more than 0, at most 1'),
    ({'crop_fraction': 1.1}, 'crop_fraction: got 1.1, expected more than 0, at most 1'),
    ({'max_pixels': 0}, 'max_pixels: got 0, expected more than 0'),
  ],
)
def test_a_preprocessing_that_is_none_is_refused_in_one_line(fields, message):
  with pytest.raises(ValueError, match=f'^{message}$'):
    preprocess.Preprocessing(**fields)


def test_a_runs_preprocessing_is_that_of_its_evaluation():
  config = default.get_config()
  config.data.normalize, config.data.max_pixels, config.eval.crop_fraction = 'unit', 1000, 0.9
  found = preprocess.Preprocessing.of_config(config)
  assert found == preprocess.Preprocessing('unit', 'bilinear', 0.9, 1000)


def test_lower_resolutions_are_made_with_the_interpolation(crop):
  linear, cubic = (preprocess.prepare((crop,), (16, 8), 'unit', interpolation=k)[1] for k in ('bilinear', 'bicubic'))
  np.testing.assert_allclose(cubic, resize.resize(jnp.asarray(crop), 8, 'bicubic') / 255, rtol=0, atol=1e-6)
  assert np.abs(linear - cubic).max() > 0.01
