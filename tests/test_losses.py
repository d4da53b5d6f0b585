"""RS-Net's losses against exact answers (float64, checked with finite differences)."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resjax import losses

CASES = json.loads((pathlib.Path(__file__).parent / 'reference' / 'losses.json').read_text())['cases']

# One tolerance for all answers of the file: the worst entry, relative to the array's largest.
TOLERANCE = {np.float64: 1e-9, np.float32: 1e-5}


def arrays(case, dtype):
  return (
    jnp.asarray(np.array(case['logits'], dtype)),
    jnp.asarray(np.array(case['labels'], np.int32)),
    jnp.asarray(np.array(case['alpha'], dtype)),
  )


def check(got, expected, dtype):
  got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
  assert got.shape == expected.shape
  scale = max(1.0, np.abs(expected).max()) if dtype == np.float64 else np.abs(expected).max()
  np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE[dtype] * scale)


def check_case(name, dtype):
  case = CASES[name]
  logits, labels, alpha = arrays(case, dtype)
  for kind in ('vanilla', 'full'):
    loss = functools.partial(losses.rsnet_loss, kind=kind)
    differentiated = jax.jit(
      jax.value_and_grad(lambda z, a, loss=loss: loss(z, labels, a), argnums=(0, 1), has_aux=True)
    )
    (total, terms), (by_logits, by_alpha) = differentiated(logits, alpha)
    check(terms['cross_entropy'], case['cross_entropy'], dtype)
    check(terms['cross_entropy'].sum(), case['classification'], dtype)
    check(terms['ensemble'], case['ensemble'], dtype)
    check(terms['distillation'].sum(), case[f'distillation_{kind}'], dtype)
    check(total, case[f'total_{kind}'], dtype)
    check(by_logits, case[f'grad_logits_{kind}'], dtype)
    check(by_alpha, case['grad_alpha'], dtype)


@pytest.mark.parametrize('name', CASES)
def test_exact_answers_in_double_precision(name, x64):
  check_case(name, np.float64)


@pytest.mark.parametrize('name', CASES)
def test_exact_answers_in_single_precision(name):
  check_case(name, np.float32)


def test_totals_as_printed_in_the_reference(x64):
  three, five = CASES['three_resolutions'], CASES['five_resolutions']
  assert np.array(three['logits']).tolist() == [
    [[2, 0, -1], [0.5, 1.5, -0.5]],
    [[1, 0.5, -0.5], [0, 1, 0.5]],
    [[0.5, 0.5, 0], [1, 0, 0.5]],
  ]
  loss, terms = losses.rsnet_loss(*arrays(three, np.float64), kind='full')
  np.testing.assert_allclose(terms['cross_entropy'], [0.2887259920, 0.6422001380, 1.3191448793], atol=1e-10)
  np.testing.assert_allclose(loss, 3.4876769505, atol=1e-10)
  s, n, k = np.ogrid[:5, :4, :10]
  z = 2 * np.sin(1 + 0.7 * s + 1.3 * n + 0.9 * k + 0.4 * s * k)
  labels, alpha = jnp.array([0, 3, 6, 9]), jnp.ones(5)
  np.testing.assert_allclose(z, five['logits'], atol=1e-12)
  for kind, expected in (('full', 23.7685662424), ('vanilla', 20.8756634780)):
    np.testing.assert_allclose(losses.rsnet_loss(jnp.array(z), labels, alpha, kind=kind)[0], expected, atol=1e-10)


@pytest.mark.parametrize('name', CASES)
def test_parts_of_full_distillation_add_up_to_it(name, x64):
  """Terms that are left out leave the others as they weigh in 'full'; values and gradients."""
  logits, _, alpha = arrays(CASES[name], np.float64)
  count = len(logits)

  def of(kind):
    def terms(z):
      return losses.distillation(z, losses.ensemble_logits(z, alpha), kind)

    return terms(logits), jax.grad(lambda z: terms(z).sum())(logits)

  full, ensemble, larger = of('full'), of('without_larger'), of('without_ensemble')
  for whole, one, other, vanilla in zip(full, ensemble, larger, of('vanilla')):
    np.testing.assert_allclose(one + other, whole, atol=1e-12)
    np.testing.assert_allclose(one, 2 / (count + 1) * vanilla, atol=1e-12)
  assert larger[0][0] == 0 and not larger[1][0].any()  # nobody teaches the largest
  if count > 1:
    one = losses.kl_divergence(logits[0][None], logits)
    np.testing.assert_allclose(of('without_smaller')[0], ensemble[0] + 2 / (count + 1) * one, atol=1e-12)


def test_teachers_are_detached(x64):
  logits, labels, alpha = arrays(CASES['five_resolutions'], np.float64)

  def ensemble_loss(z):
    return losses.cross_entropy(losses.ensemble_logits(z, alpha), labels)

  def distillation(z, a):
    return losses.distillation(z, losses.ensemble_logits(z, a), 'full')

  assert not jax.grad(ensemble_loss)(logits).any()
  assert not jax.grad(lambda a: distillation(logits, a).sum())(alpha).any()
  # Gradient of the sum with respect to z_t: the largest learns from the ensemble only, the smallest from all.
  by_logits = jax.grad(lambda z: distillation(z, alpha).sum())(logits)
  p = jax.nn.softmax(logits)
  p0 = jax.nn.softmax(losses.ensemble_logits(logits, alpha))
  batch = logits.shape[1]
  np.testing.assert_allclose(by_logits[0], (p[0] - p0) * 2 / 6 / batch, atol=1e-12)
  teachers = jnp.stack([p0, *p[:4]])
  np.testing.assert_allclose(by_logits[4], (p[4][None] - teachers).sum(0) * 2 / 6 / batch, atol=1e-12)


def test_alpha_gradient_has_its_closed_form(x64):
  case = CASES['three_resolutions_alpha']
  logits, labels, alpha = arrays(case, np.float64)
  got = jax.grad(lambda a: losses.rsnet_loss(logits, labels, a)[0])(alpha)
  a, z0 = jax.nn.softmax(alpha), losses.ensemble_logits(logits, alpha)
  error = jax.nn.softmax(z0) - jax.nn.one_hot(labels, z0.shape[-1])
  expected = a * jnp.einsum('bk,rbk->rb', error, logits - z0[None]).mean(-1)
  np.testing.assert_allclose(got, expected, atol=1e-12)
  np.testing.assert_allclose(got.sum(), 0, atol=1e-12)


def test_one_resolution_trains_as_cross_entropy_does(x64):
  logits, labels, _ = arrays(CASES['five_resolutions'], np.float64)
  one = logits[:1]
  got = jax.grad(lambda z: losses.rsnet_loss(z, labels, jnp.ones(1))[0])(one)
  expected = jax.grad(lambda z: losses.cross_entropy(z, labels)[0])(one)
  np.testing.assert_allclose(got, expected, atol=1e-12)


def test_label_smoothing_is_cross_entropy_with_a_smoothed_target(x64):
  logits, labels, _ = arrays(CASES['three_resolutions'], np.float64)
  target = 0.9 * jax.nn.one_hot(labels, 3) + 0.1 / 3
  expected = -(target[None] * jax.nn.log_softmax(logits)).sum(-1).mean(-1)
  np.testing.assert_allclose(losses.cross_entropy(logits, labels, 0.1), expected, atol=1e-12)


def test_unknown_distillation_is_refused():
  with pytest.raises(ValueError, match=r"distillation: got 'chain', expected one of full, vanilla, none"):
    losses.rsnet_loss(jnp.zeros((2, 1, 3)), jnp.zeros(1, int), jnp.ones(2), kind='chain')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      {'logits': jnp.zeros((4, 3))},
      r'logits: got float32 \(4, 3\), expected floating \[R, B, K\], resolution, batch, class',
    ),
    (
      {'labels': jnp.zeros((4, 3))},
      r'labels: got float32 \(4, 3\), expected integer \[4\], the numbers of the classes .*one-hot',
    ),
    ({'labels': jnp.zeros(4)}, r'labels: got float32 \(4,\), expected integer \[4\]'),
    ({'labels': jnp.zeros(1, int)}, r'labels: got int32 \(1,\), expected integer \[4\]'),
    ({'alpha': jnp.ones(1)}, r'alpha: got float32 \(1,\), expected floating \[2\], a number for each resolution'),
    ({'labels': None}, r'labels: got None and no teacher, expected one of them to learn from'),
    ({'teacher': jnp.zeros((4, 2))}, r'teacher: got float32 \(4, 2\), expected floating \[4, 3\], logits for the same'),
  ],
)
def test_shapes_that_do_not_fit_are_refused_in_one_line(change, message):
  arguments = {'logits': jnp.zeros((2, 4, 3)), 'labels': jnp.zeros(4, int), 'alpha': jnp.ones(2)}
  with pytest.raises(ValueError, match=f'^{message}'):
    losses.rsnet_loss(**arguments | change)


def test_a_teachers_term_has_its_closed_form(x64):
  """Of `w T^2 KL(p_t || p_s)` softened by T: its value, and the gradients of logits and alpha."""
  rng = np.random.default_rng(0)
  z, t, alpha = rng.normal(size=(3, 4, 5)), 2 * rng.normal(size=(4, 5)), np.array([0.5, -1.0, 0.25])
  weight, temperature = 0.7, 3.0
  of = functools.partial(losses.rsnet_loss, kind='none', teacher_weight=weight, temperature=temperature)
  softened = lambda x: np.exp(x / temperature) / np.exp(x / temperature).sum(-1, keepdims=True)
  share = np.exp(alpha) / np.exp(alpha).sum()
  z0 = np.einsum('r,rbk->bk', share, z)
  p_t, everyone = softened(t), softened(np.concatenate([z, z0[None]]))
  expected = weight * temperature**2 * (p_t * np.log(p_t / everyone)).sum(-1).mean(-1)
  loss, terms = of(jnp.array(z), None, jnp.array(alpha), teacher=jnp.array(t))
  assert set(terms) == {'distillation', 'teacher'}
  np.testing.assert_allclose(terms['teacher'], expected, rtol=1e-12)
  np.testing.assert_allclose(loss, expected.sum(), rtol=1e-12)
  by_logits, by_alpha, by_teacher = jax.grad(lambda z, a, t: of(z, None, a, teacher=t)[0], argnums=(0, 1, 2))(
    jnp.array(z), jnp.array(alpha), jnp.array(t)
  )
  np.testing.assert_allclose(by_logits, weight * temperature * (everyone[:3] - p_t) / 4, atol=1e-12)
  error = weight * temperature * (everyone[3] - p_t)
  np.testing.assert_allclose(by_alpha, share * np.einsum('bk,rbk->rb', error, z - z0).mean(-1), atol=1e-12)
  assert not by_teacher.any()


def test_a_teacher_stands_beside_labels_and_all_terms_add_up(x64):
  logits, labels, alpha = arrays(CASES['five_resolutions'], np.float64)
  plain, _ = losses.rsnet_loss(logits, labels, alpha)
  total, terms = losses.rsnet_loss(logits, labels, alpha, teacher=logits[0])
  assert set(terms) == {'cross_entropy', 'ensemble', 'distillation', 'teacher'}
  np.testing.assert_allclose(total, plain + terms['teacher'].sum(), rtol=1e-12)
  np.testing.assert_allclose(total, sum(term.sum() for term in terms.values()), rtol=1e-12)
  np.testing.assert_allclose(terms['teacher'][0], 0, atol=1e-12)  # it is its own teacher


def test_the_weight_of_the_distillation_scales_its_terms_alone(x64):
  logits, labels, alpha = arrays(CASES['three_resolutions'], np.float64)
  (plain, terms), (total, scaled) = (losses.rsnet_loss(logits, labels, alpha, weight=w) for w in (1.0, 0.25))
  np.testing.assert_allclose(scaled['distillation'], 0.25 * terms['distillation'], rtol=1e-12)
  np.testing.assert_allclose(total, plain - 0.75 * terms['distillation'].sum(), rtol=1e-12)
  assert losses.rsnet_loss(logits, labels, alpha)[0] == plain
