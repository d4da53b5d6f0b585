"""Flips, normalisation and other sizes on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
