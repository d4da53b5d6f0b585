"""The losses of RS-Net, as the paper writes them: formulas, nothing else.

Logits of all resolutions are stacked in `[R, B, K]` (resolution, batch, class), highest resolution first. Every teacher
is detached. Source: Wang et al., "Resolution Switchable Networks for Runtime Efficient Image Recognition", ECCV 2020.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import stop_gradient

from resjax import shapes

# Who teaches; those 'without' leave out a part of 'full', and the rest weighs what it weighs there.
DISTILLATIONS = ('full', 'vanilla', 'none', 'without_ensemble', 'without_larger', 'without_smaller', 'inplace')


class Mixed(NamedTuple):
  """Labels of images that are mixtures of two: each image's own, and its partner's."""

  first: Array  # int [B]
  second: Array  # int [B]
  share: Array  # float [B], the first one's; the rest is the second's


Labels = Array | Mixed


def cross_entropy(
  logits: Array, labels: Labels, label_smoothing: float = 0.0, class_weights: Array | None = None
) -> Array:
  """Returns H(y, softmax(logits)) as a mean over the batch.

  With class weights `- sum_k w_k y_k log p_k`, as torch's CrossEntropyLoss before it divides.

  Args:
    logits: `[..., B, K]`.
    labels: int `[B]`, or `[..., B]`, in 0..K-1, or of mixtures.
    label_smoothing: Share of the target that is spread evenly over all K classes.
    class_weights: float `[K]`; None: all 1.

  Returns:
    `[...]`.

  Raises:
    ValueError: A shape or type is not that, such as one-hot labels; or a label is no class, where that is known: of
      arrays that hold numbers, outside of jit.
  """
  shapes.check('logits', logits, ('...', 'B', 'K'), 'floating')
  _check_labels(labels, logits.shape[:-1], logits.shape[-1])
  if class_weights is not None:
    shapes.check('class_weights', class_weights, logits.shape[-1:], what='a number for each class')
  log_p = jax.nn.log_softmax(logits)
  if class_weights is not None:
    log_p *= class_weights.reshape((1,) * (log_p.ndim - 1) + (-1,))

  def pick(labels: Array) -> Array:
    return jnp.take_along_axis(log_p, jnp.broadcast_to(labels, log_p.shape[:-1])[..., None], axis=-1)[..., 0]

  if isinstance(labels, Mixed):
    share = jnp.broadcast_to(labels.share, log_p.shape[:-1])
    picked = share * pick(labels.first) + (1 - share) * pick(labels.second)
  else:
    picked = pick(labels)
  smoothed = (1 - label_smoothing) * picked + label_smoothing * log_p.mean(-1)
  return -smoothed.mean(-1)


def hits(guesses: Array, labels: Labels) -> Array:
  """Returns 1 where a guess is right and 0 where it is wrong, of mixtures the share of its class; float `[..., B]`.

  Args:
    guesses: int `[..., B]`.
    labels: As of `cross_entropy`.

  Raises:
    ValueError: A shape or type is not that.
  """
  shapes.check('guesses', guesses, ('...', 'B'), 'integer')
  _check_labels(labels, guesses.shape)

  def right(labels: Array) -> Array:
    return (guesses == jnp.broadcast_to(labels, guesses.shape)).astype(jnp.float32)

  if not isinstance(labels, Mixed):
    return right(labels)
  share = jnp.broadcast_to(labels.share, guesses.shape)
  return share * right(labels.first) + (1 - share) * right(labels.second)


def ensemble_logits(logits: Array, alpha: Array) -> Array:
  """Returns z_0 = sum_s softmax(alpha)_s z_s `[B, K]`, with every z_s detached: only alpha can learn from it.

  Args:
    logits: `[R, B, K]`.
    alpha: `[R]`.

  Raises:
    ValueError: A shape is not that.
  """
  _check_stacked(logits)
  _check_alpha(alpha, logits)
  exact = jax.lax.Precision.HIGHEST  # accelerators round the factors of a product otherwise
  return jnp.einsum('r,rbk->bk', jax.nn.softmax(alpha), stop_gradient(logits), precision=exact)


def kl_divergence(teacher: Array, student: Array) -> Array:
  """Returns KL(p_teacher || p_student) as a mean over the batch; the teacher is detached.

  Args:
    teacher: Logits `[..., B, K]`.
    student: Logits `[..., B, K]`.

  Returns:
    `[...]`.

  Raises:
    ValueError: The logits of one are of other images or classes than those of the other.
  """
  shapes.check('teacher', teacher, ('...', 'B', 'K'), 'floating')
  shapes.check('student', student, ('...', *teacher.shape[-2:]), 'floating', "as the teacher's")
  log_t = stop_gradient(jax.nn.log_softmax(teacher))
  log_s = jax.nn.log_softmax(student)
  return (jnp.exp(log_t) * (log_t - log_s)).sum(-1).mean(-1)


def distillation(logits: Array, ensemble: Array, kind: str) -> Array:
  """Returns what each resolution pays for disagreeing with its teachers; the sum is L_dis (MRED).

  'vanilla': the ensemble teaches every resolution, `KL(p_0 || p_s)`. 'full': the ensemble and every larger resolution
  teach, weighted `2 / (R + 1)`; a dense hierarchy, not a chain. 'without_ensemble', 'without_larger': 'full' but for
  the terms of those teachers, so that the two add up to it; 'without_smaller': of the resolutions the largest alone
  teaches. 'inplace': the largest teaches all others, `KL(p_1 || p_s)` (Yu and Huang, "Universally Slimmable Networks",
  ICCV 2019). 'none': zeros.

  Args:
    logits: `[R, B, K]`, highest resolution first.
    ensemble: z_0, `[B, K]`.
    kind: One of `DISTILLATIONS`.

  Returns:
    `[R]`: entry s is the sum over the teachers of resolution s.

  Raises:
    ValueError: The kind is unknown, or a shape is not that.
  """
  _check_stacked(logits)
  shapes.check('ensemble', ensemble, logits.shape[1:], 'floating')
  if kind not in DISTILLATIONS:
    raise ValueError(f'distillation: got {kind!r}, expected one of {", ".join(DISTILLATIONS)}')
  count = logits.shape[0]
  if kind == 'none':
    return jnp.zeros(count, logits.dtype)
  if kind == 'inplace':
    return jnp.concatenate([jnp.zeros(1, logits.dtype), kl_divergence(logits[:1], logits[1:])])
  from_ensemble = kl_divergence(ensemble[None], logits)
  if kind == 'vanilla':
    return from_ensemble
  if kind == 'without_larger':
    return 2 / (count + 1) * from_ensemble
  teachers = [range(min(s, 1) if kind == 'without_smaller' else s) for s in range(count)]
  zero = jnp.zeros((), logits.dtype)
  from_larger = [sum((kl_divergence(logits[t], logits[s]) for t in teachers[s]), zero) for s in range(count)]
  if kind == 'without_ensemble':
    return 2 / (count + 1) * jnp.stack(from_larger)
  return 2 / (count + 1) * (from_ensemble + jnp.stack(from_larger))


def from_teacher(logits: Array, ensemble: Array, teacher: Array, weight: float, temperature: float) -> Array:
  """Returns `weight T^2 KL(p_t || p_s)` of softened answers `p = softmax(z / T)`, for each s and for the ensemble.

  The square keeps gradients as large at any temperature. Source: Hinton et al., "Distilling the Knowledge in a Neural
  Network", 2015. The ensemble's part teaches alpha alone.

  Args:
    logits: `[R, B, K]`.
    ensemble: z_0, `[B, K]`.
    teacher: Logits `[B, K]` of a frozen network; detached.
    weight: Of all of it.
    temperature: T.

  Returns:
    `[R + 1]`.

  Raises:
    ValueError: A shape is not that.
  """
  _check_stacked(logits)
  shapes.check('ensemble', ensemble, logits.shape[1:], 'floating')
  shapes.check('teacher', teacher, logits.shape[1:], 'floating')
  students = jnp.concatenate([logits, ensemble[None]])
  return weight * temperature**2 * kl_divergence(teacher[None] / temperature, students / temperature)


def rsnet_loss(
  logits: Array,
  labels: Labels | None,
  alpha: Array,
  *,
  kind: str = 'full',
  weight: float = 1.0,
  label_smoothing: float = 0.0,
  class_weights: Array | None = None,
  teacher: Array | None = None,
  teacher_weight: float = 1.0,
  temperature: float = 1.0,
) -> tuple[Array, dict[str, Array]]:
  """Returns `L = L_cls + L_ens + weight L_dis`, plus `L_teacher` where there is a teacher, and its terms.

  Args:
    logits: `[R, B, K]`, highest resolution first.
    labels: int `[B]`, or of mixtures; None with a teacher: there are none, and L_cls and L_ens are left out.
    alpha: `[R]`, the ensemble's weights before the softmax.
    kind: One of `DISTILLATIONS`.
    weight: Of what `distillation` returns; 1: the paper's.
    label_smoothing: Of the classification terms; the distillation has none.
    class_weights: float `[K]`, of the classification terms; None: all 1.
    teacher: Logits `[B, K]` of a frozen network.
    teacher_weight: See `from_teacher`.
    temperature: See `from_teacher`.

  Returns:
    The total, and `cross_entropy` `[R]`, `ensemble` `[]`, `distillation` `[R]` and `teacher` `[R + 1]`, as far as they
    are there, which add up to it; but with 'inplace' the first resolution alone learns from labels, and of
    `cross_entropy` its entry alone is in the total.

  Raises:
    ValueError: A shape or type is not that, such as one-hot labels; the kind is unknown; or there is nothing to learn.
  """
  _check(logits, labels, alpha, teacher)
  ensemble, total, terms = ensemble_logits(logits, alpha), jnp.zeros((), logits.dtype), {}
  if labels is not None:
    terms['cross_entropy'] = cross_entropy(logits, labels, label_smoothing, class_weights)
    terms['ensemble'] = cross_entropy(ensemble, labels, label_smoothing, class_weights)
    own = terms['cross_entropy'][:1] if kind == 'inplace' else terms['cross_entropy']
    total = own.sum() + terms['ensemble']
  terms['distillation'] = distillation(logits, ensemble, kind) * weight
  total += terms['distillation'].sum()
  if teacher is not None:
    terms['teacher'] = from_teacher(logits, ensemble, teacher, teacher_weight, temperature)
    total += terms['teacher'].sum()
  return total, terms


def _check(logits: Array, labels: Labels | None, alpha: Array, teacher: Array | None) -> None:
  """Raises ValueError unless these are what `rsnet_loss` takes."""
  _check_stacked(logits)
  if labels is None and teacher is None:
    raise ValueError('labels: got None and no teacher, expected one of them to learn from')
  if labels is not None:
    _check_labels(labels, logits.shape[1:2], logits.shape[-1])
  _check_alpha(alpha, logits)
  if teacher is not None:
    shapes.check('teacher', teacher, logits.shape[1:], 'floating', 'logits for the same images and classes')


def _check_stacked(logits: Array) -> None:
  """Raises ValueError unless these are logits of several resolutions."""
  shapes.check('logits', logits, ('R', 'B', 'K'), 'floating', 'resolution, batch, class')


def _check_alpha(alpha: Array, logits: Array) -> None:
  """Raises ValueError unless there is a number for each resolution."""
  shapes.check('alpha', alpha, logits.shape[:1], 'floating', 'a number for each resolution')


def _check_labels(labels: Labels, batch: tuple[int, ...], classes: int | None = None) -> None:
  """Raises ValueError unless these are the classes of a batch; which numbers they are is seen outside of jit alone."""
  for part in labels[:2] if isinstance(labels, Mixed) else (labels,):
    got = getattr(part, 'shape', ())
    sizes = got if got and got == batch[-len(got) :] else batch[-1:]  # of each of its logits, or of each image
    shapes.check('labels', part, sizes, 'integer', 'the numbers of the classes (one-hot: argmax(-1))')
    if classes is None or isinstance(part, jax.core.Tracer) or not getattr(part, 'is_fully_addressable', True):
      continue
    numbers = np.asarray(part)  # also a constant of what is being compiled
    wrong = numbers[(numbers < 0) | (numbers >= classes)]
    if wrong.size:
      raise ValueError(f'labels: got {wrong[0]}, expected 0 to {classes - 1}, a class of the logits')
  if isinstance(labels, Mixed):
    shapes.check('labels.share', labels.share, labels.first.shape, 'floating')
