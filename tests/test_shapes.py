"""What a caller's script gets where arrays do not fit: one line that names them, inside of jit as outside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import resjax
from resjax import losses, preprocess, resize, routing, shapes, switchable

LOGITS, LABELS, ALPHA = jnp.zeros((3, 4, 10)), jnp.zeros(4, int), jnp.ones(3)
MIXED = losses.Mixed(LABELS, LABELS, jnp.ones(4))
COSTS = (4.0, 2.0, 1.0)
PLAIN = {
  'params': {'conv': {'kernel': jnp.ones((3, 3))}, 'bn': {'scale': jnp.ones(3)}},
  'batch_stats': {'bn': {'mean': jnp.ones(3)}},
}
IMAGES = tuple(jnp.zeros((2, r, r, 3)) for r in (32, 16))
ONE_HOT = jnp.zeros((4, 10))


def apply(variables, images, train):
  return images.mean((1, 2)), variables


def forward(images=IMAGES, resolutions=(32, 16), **options):
  return resjax.forward(apply, resjax.share(PLAIN, (32, 16)), images, resolutions, train=True, **options)


CASES = [
  (lambda: losses.cross_entropy(LOGITS, ONE_HOT), r'labels: got float32 \(4, 10\), expected integer \[4\], .*one-hot'),
  (lambda: losses.cross_entropy(LOGITS, jnp.zeros(1, int)), r'labels: got int32 \(1,\), expected integer \[4\]'),
  (lambda: losses.cross_entropy(LOGITS, [0, 1, 2, 3]), r'labels: got list, expected an array, integer \[4\]'),
  (lambda: losses.cross_entropy(LOGITS, MIXED._replace(second=ONE_HOT)), r'labels: got float32 \(4, 10\)'),
  (lambda: losses.cross_entropy(LOGITS, MIXED._replace(share=ALPHA)), r'labels.share: got float32 \(3,\), expected'),
  (lambda: losses.cross_entropy(LOGITS[0, 0], LABELS), r'logits: got float32 \(10,\), expected floating \[..., B, K\]'),
  (lambda: losses.cross_entropy(LOGITS, LABELS, 0.0, ALPHA), r'class_weights: got float32 \(3,\), expected \[10\]'),
  (lambda: losses.hits(LOGITS, LABELS), r'guesses: got float32 \(3, 4, 10\), expected integer \[..., B\]'),
  (
    lambda: losses.ensemble_logits(LOGITS, jnp.ones(4)),
    r'alpha: got float32 \(4,\), expected floating \[3\], ',
  ),
  (lambda: losses.ensemble_logits(LOGITS[0], ALPHA), r'logits: got float32 \(4, 10\), expected floating \[R, B, K\]'),
  (
    lambda: losses.kl_divergence(LOGITS, LOGITS[..., :1]),
    r'student: .* expected floating \[..., 4, 10\], as the teach',
  ),
  (
    lambda: losses.distillation(LOGITS, ONE_HOT[:, :1], 'full'),
    r'ensemble: got float32 \(4, 1\), expected .*\[4, 10\]',
  ),
  (lambda: losses.distillation(LOGITS.astype(int), ONE_HOT, 'full'), r'logits: got int32 \(3, 4, 10\), expected float'),
  (lambda: losses.from_teacher(LOGITS, ONE_HOT, LOGITS, 1.0, 1.0), r'teacher: got .* expected floating \[4, 10\]'),
  (lambda: losses.rsnet_loss(LOGITS, LABELS, [1.0, 1.0, 1.0]), r'alpha: got list, expected an array, floating \[3\]'),
  (lambda: resjax.share(PLAIN, 32), r'resolutions: got 32, expected one or more, such as \(224, 160\)'),
  (lambda: resjax.share(PLAIN, '32'), r"resolutions: got '32', expected one or more"),
  (lambda: resjax.share(resjax.share(PLAIN, (32,)), (32,)), 'variables: shared already'),
  (
    lambda: switchable.with_view(resjax.share(PLAIN, (32,)), 32, {}),
    'plain: no batch_stats, expected what',
  ),
  (lambda: forward(IMAGES[::-1]), r'images: got the sizes \[\(16, 16\), \(32, 32\)\], expected'),
  (lambda: forward(IMAGES[::-1], (16, 32)), r'resolutions: got \(16, 32\), expected one or more, the highest first'),
  (lambda: forward(IMAGES[0]), r'images\[0\]: got float32 \(32, 32, 3\), expected \[B, H, W, C\]'),
  (lambda: forward((IMAGES[0], None)), r'images\[1\]: got NoneType, expected an array'),
  (lambda: forward((IMAGES[0], IMAGES[1][:1])), r'images\[1\]: got float32 \(1, 16, 16, 3\), expected \[2, H, W, C\]'),
  (lambda: forward(resolutions=32), r'resolutions: got 32, expected one or more'),
  (lambda: forward(mask=jnp.ones((2, 3))), r'mask\[0\]: got float32 \(3,\), expected \[2\], one for each image'),
  (lambda: resize.resize(IMAGES[0], 16, 'area'), r"interpolation: got 'area', expected one of bilinear, bicubic"),
  (lambda: resize.resize(IMAGES[0][0], 16), r'images: got float32 \(32, 32, 3\), expected \[B, H, W, C\]'),
  (lambda: resize.resize(IMAGES[0][:, :0], 16), r'images: got \(2, 0, 32, 3\), expected pixels to resize'),
  (lambda: resize.pyramid(IMAGES[0], 16), r'resolutions: got 16, expected one or more'),
  (lambda: resize.pyramid(IMAGES[0], (32,), 'area'), r"interpolation: got 'area'"),
  (
    lambda: preprocess.prepare(IMAGES, (32, 16, 8), 'unit'),
    r'images: got 2 sizes, expected one for each of',
  ),
  (
    lambda: preprocess.draw_flips(jax.random.key(0), LABELS, (32,), 'often'),
    r"kind: got 'often', expected one",
  ),
]

# Of NumPy's arrays alone.
ROUTED = [
  (lambda: routing.Predictor(COSTS).choose(np.zeros((5, 2))), r'scores: got float64 \(5, 2\), expected \[N, 3\]'),
  (lambda: routing.Cascade(COSTS).choose(np.zeros((5, 2))), r'odds: got float64 \(5, 2\), expected \[N, 3\], one for'),
  (lambda: routing.Oracle(COSTS).choose(np.zeros((5, 3))), r'right: got float64 \(5, 3\), expected bool \[N, 3\]'),
  (lambda: routing.Random(COSTS).choose(np.zeros((5, 2))), r'ranks: got float64 \(5, 2\), expected floating \[N\]'),
  (lambda: routing.detail.energy(np.zeros((5, 4, 4, 3))), r'crops: got float64 .*, expected uint8 \[N, H, W, 3\]'),
  (lambda: losses.cross_entropy(LOGITS, jnp.full(4, 10)), r'labels: got 10, expected 0 to 9, a class of the logits'),
  (lambda: losses.rsnet_loss(LOGITS, np.array([1, -1, 2, 3]), ALPHA), r'labels: got -1, expected 0 to 9'),
]


@pytest.mark.parametrize(('call', 'message'), CASES + ROUTED)
def test_what_does_not_fit_is_one_line(call, message):
  with pytest.raises(ValueError, match=f'^{message}') as error:
    call()
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(('call', 'message'), CASES)
def test_inside_of_jit_too(call, message):
  with pytest.raises(ValueError, match=f'^{message}'):
    jax.jit(call)()


def test_labels_of_each_image_or_of_each_of_its_logits():
  logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 10)), jnp.float32)
  labels = jnp.array([1, 2, 3, 4])
  expected = losses.cross_entropy(logits, labels)
  np.testing.assert_array_equal(losses.cross_entropy(logits, jnp.broadcast_to(labels, (3, 4))), expected)
  alone = losses.cross_entropy(logits[0][:, None], labels[:, None])
  np.testing.assert_allclose(alone.mean(), expected[0], rtol=1e-6)
  with pytest.raises(ValueError, match=r'^labels: got int32 .4, 1., expected integer .4.'):
    losses.cross_entropy(logits, labels[:, None])


def test_labels_are_traced_and_classes_unseen_then():
  with jax.debug_nans(False):
    assert jax.jit(losses.cross_entropy)(LOGITS, jnp.full(4, 10)).shape == (3,)
  with pytest.raises(ValueError, match='^labels: got float32'):
    jax.jit(losses.cross_entropy)(LOGITS, ONE_HOT)


@pytest.mark.parametrize(
  ('array', 'kind', 'ok'),
  [
    (jnp.zeros(2, jnp.bfloat16), 'floating', True),
    (np.zeros(2, np.int8), 'integer', True),
    (np.zeros(2, bool), 'integer', False),
    (jnp.zeros(2), 'integer', False),
    (np.zeros(2, np.uint8), 'uint8', True),
    (np.zeros(2, np.int8), 'uint8', False),
    (jax.ShapeDtypeStruct((2,), jnp.float16), 'floating', True),
  ],
)
def test_kinds(array, kind, ok):
  if ok:
    return shapes.check('x', array, ('N',), kind)
  with pytest.raises(ValueError, match=f'^x: got .* expected {kind} .N.$'):
    shapes.check('x', array, ('N',), kind)


@pytest.mark.parametrize(
  ('shape', 'ok'), [((2, 3), True), (('...', 3), True), (('...', 2, 3), True), (('...', 1, 2, 3), False), ((3,), False)]
)
def test_sizes(shape, ok):
  if ok:
    return shapes.check('x', np.zeros((2, 3)), shape)
  with pytest.raises(ValueError, match='^x: got float64'):
    shapes.check('x', np.zeros((2, 3)), shape)
