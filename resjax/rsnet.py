"""RS-Net: one network, several input resolutions that teach each other.

Wang et al., ECCV 2020. With one resolution this trains an ordinary network (an I-Net); with `distillation='none'` it is
parallel training.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from ml_collections import ConfigDict

from resjax import losses, mixing, preprocess, sandwich, switchable, widths
from resjax.apply import Apply, rematerialised
from resjax.resolution import at_widths, sides
from resjax.routing.cascade import log_odds

Batch = dict[str, Any]

# Set apart what is drawn with an example's key: the flips have the key itself, DRNet's noise 1.
_ERASING, _MIXING = 2, 3


def init(model: nn.Module, config: ConfigDict, key: Array) -> switchable.Variables:
  """Returns fresh variables: the network's shared and private parts, and `params['alpha']` `[R]`, ones.

  Args:
    model: A plain network.
    config: Reads `resolutions`, `widths`, `private` and `shared_batch_norm`.
    key: A typed PRNG key.
  """
  resolutions = at_widths(config)
  images = jnp.zeros((1, *sides(resolutions[0]), 3))
  if len(config.widths) > 1:
    widths.check(model, tuple(config.widths), images.shape[1:], 'config.widths')
  variables = switchable.share(
    model.init(key, images, train=False),
    resolutions,
    private=private(config),
    model=model,
  )
  params = variables['params'] | {'alpha': jnp.ones(len(resolutions))}
  return variables | {'params': params}


def private(config: ConfigDict) -> str:
  """Returns what of the normalisers is private to a resolution, one of `switchable.PRIVATE`.

  Args:
    config: Reads `private` and `shared_batch_norm`, which says 'none' of old.
  """
  return 'none' if config.shared_batch_norm else config.private


def pretraining(config: ConfigDict) -> None:
  """Returns None: no run comes first."""
  del config


class Start(NamedTuple):
  """The network that training starts from."""

  workdir: str | pathlib.Path
  field: str  # of the config, which names it
  what: str  # as `config.init.what`
  exact: bool  # whether all resolutions and classes must be its own


def backbone(config: ConfigDict, first: pathlib.Path) -> Start | None:
  """Returns the network that training starts from, or None where it starts from random weights."""
  del first
  init = config.init
  return Start(init.checkpoint, 'init.checkpoint', init.what, exact=False) if init.checkpoint else None


def rates(config: ConfigDict) -> dict[str, float]:
  """Returns no factors: one learning rate for all of `params`."""
  del config
  return {}


def terms(model: nn.Module | Apply, config: ConfigDict, total_steps: int) -> Callable[[Array], dict[str, Array]]:
  """Returns what gives the numbers of the loss by the step: with the sandwich rule `drawn`, see `sandwich.draw`."""
  del model, total_steps
  return lambda step: {'drawn': sandwich.draw(config, step)} if config.sandwich else {}


def make_loss_fn(
  model: nn.Module | Apply, config: ConfigDict, *, total_steps: int = 1, axis_name: str | None = None
) -> Callable[..., Any]:
  """Returns `loss_fn(params, batch_stats, batch, key) -> loss, (batch_stats, metrics)`.

  `metrics` are scalars: `loss`, and per resolution `loss_224` (cross-entropy), `distillation_224` and `top1_224`, with
  `loss_ensemble` and `top1_ensemble`. A teacher, whose logits `[B, K]` are the batch's `teacher`, adds `teacher_224`
  and `agreement_224` (the share of images on which both say the same), of the ensemble too, and `labels`, 1 or 0:
  whether they count. Where they do not, there is no cross-entropy and no top-1. With the sandwich rule the batch has
  `drawn`, as `terms` gives it, and `drawn_160` is 1 or 0 for those that may be passed over, whose metrics are then NaN.

  Args:
    model: A plain network.
    config: Reads what `train_images` and `loss_of_logits` do.
    total_steps: Of the run; other methods have schedules.
    axis_name: The named axis of the devices; other methods' losses reach over them.
  """
  del total_steps, axis_name

  def loss_fn(params: Any, batch_stats: Any, batch: Batch, key: Array) -> Any:
    logits, batch_stats = train_logits(model, config, {'params': params, 'batch_stats': batch_stats}, batch, key)
    labels, teacher = train_labels(config, batch, key), batch.get('teacher')
    loss, metrics = loss_of_logits(config, logits, labels, params['alpha'], teacher, batch.get('drawn'))
    return loss, (batch_stats, metrics)

  return loss_fn


def train_logits(
  model: nn.Module | Apply,
  config: ConfigDict,
  variables: switchable.Variables,
  batch: Batch,
  key: Array,
  places: slice = slice(None),
) -> tuple[Array, switchable.Variables]:
  """Returns the logits `[R, B, K]` of a training batch, and the new batch_stats.

  Args:
    model: A plain network.
    config: Reads what `train_images` does, `remat` and `sandwich`.
    variables: Of the switchable network.
    batch: `images`, one size for each resolution or the largest alone, and `index`; with `sandwich`, `drawn`.
    key: The step's typed PRNG key.
    places: The resolutions to run, as a slice of `at_widths(config)`; all see what they see when all are run.
  """
  images = train_images(config, batch, key, places)
  network, resolutions = rematerialised(model, config.remat), at_widths(config)
  if config.sandwich:
    return sandwich.forward(network, variables, images, resolutions, batch['drawn'], places)
  return switchable.forward(network, variables, images, resolutions[places], train=True)


def train_images(config: ConfigDict, batch: Batch, key: Array, places: slice = slice(None)) -> tuple[Array, ...]:
  """Returns what the network sees of a training batch: flipped, normalised, erased in part, mixed.

  Args:
    config: Reads `resolutions`, `widths` and `data`: flip, normalize, erase, mixup and cutmix.
    batch: As of `train_logits`.
    key: The step's typed PRNG key.
    places: As of `train_logits`.
  """
  resolutions, data, index = at_widths(config), config.data, batch['index']
  flips = preprocess.draw_flips(key, index, resolutions, data.flip)
  flips = None if flips is None else flips[places]
  images = preprocess.sized(config, batch['images'])
  images = images if len(images) == 1 else images[places]
  images = preprocess.prepare(images, resolutions[places], data.normalize, flips)
  if data.erase:
    keys = preprocess.per_example_keys(jax.random.fold_in(key, _ERASING), index)
    images = mixing.erase(images, mixing.draw_erased(keys, data.erase))
  mixture = _mixture(config, batch, key)
  return images if mixture is None else mixing.mix(images, mixture)


def train_labels(config: ConfigDict, batch: Batch, key: Array) -> losses.Labels | None:
  """Returns the labels of what `train_images` returns, None where they do not count; arguments as there."""
  if not config.teacher.labels:
    return None
  mixture = _mixture(config, batch, key)
  return batch['label'] if mixture is None else mixing.mixed_labels(batch['label'], mixture)


def _mixture(config: ConfigDict, batch: Batch, key: Array) -> mixing.Mixture | None:
  """How a batch is mixed, always the same for one key; None: it is not."""
  if not (config.data.mixup or config.data.cutmix):
    return None
  keys = preprocess.per_example_keys(jax.random.fold_in(key, _MIXING), batch['index'])
  return mixing.draw_mixture(keys, config.data.mixup, config.data.cutmix)


def class_weights(config: ConfigDict) -> Array | None:
  """Returns the weights of the classes, float `[K]`, or None where all count alike.

  Args:
    config: Reads `class_weights`.

  Raises:
    ValueError: They are no numbers: 'balanced' needs the labels, see `data.labels.class_weights`.
  """
  if 'balanced' in config.class_weights:
    raise ValueError(
      f'class_weights: got {config.class_weights}, expected numbers (of a source: data.labels.class_weights)'
    )
  return jnp.asarray(config.class_weights, jnp.float32) if config.class_weights else None


def loss_of_logits(
  config: ConfigDict,
  logits: Array,
  labels: losses.Labels | None,
  alpha: Array,
  teacher: Array | None = None,
  drawn: Array | None = None,
) -> tuple[Array, dict[str, Array]]:
  """Returns the loss `[]` and its metrics, as `make_loss_fn` names them.

  Teachers are detached, so the gradient that a resolution's logits get is the same whether the others are constants.

  Args:
    config: Reads `resolutions`, `widths`, `distillation` and its weight, `label_smoothing`, `class_weights` and
      `teacher`.
    logits: `[R, B, K]`, highest resolution first.
    labels: int `[B]`, or of mixtures, or None.
    alpha: `[R]`.
    teacher: Logits `[B, K]` of a frozen network, or None.
    drawn: The places of those that count, rising; None: all.
  """
  if drawn is not None:
    logits, alpha = logits[drawn], alpha[drawn]
  loss, terms = losses.rsnet_loss(
    logits,
    labels,
    alpha,
    kind=config.distillation,
    weight=config.distillation_weight,
    label_smoothing=config.label_smoothing,
    class_weights=class_weights(config),
    teacher=teacher,
    teacher_weight=config.teacher.weight,
    temperature=config.teacher.temperature,
  )
  found, answers = {'distillation': terms['distillation']}, with_ensemble(logits, alpha).argmax(-1)
  if labels is not None:
    found['loss'] = jnp.append(terms['cross_entropy'], terms['ensemble'])
    found['top1'] = losses.hits(answers, labels).mean(-1)
  if teacher is not None:
    found |= {'teacher': terms['teacher'], 'agreement': (answers == teacher.argmax(-1)[None]).mean(-1)}
  metrics = {'loss': loss} | sandwich.named(found, at_widths(config), drawn)
  return loss, metrics if teacher is None else metrics | {'labels': jnp.float32(labels is not None)}


def make_eval_fn(model: nn.Module, config: ConfigDict) -> Callable[..., dict[str, Array]]:
  """Returns `eval_fn(variables, batch)`, which gives `ranks`, int32 `[B, R + 1]`, and what `guessed` does.

  A rank is the place of the true class among the logits, 0 for right, at each resolution and last for the ensemble.

  Args:
    model: A plain network.
    config: Reads `resolutions`, `widths`, `data.normalize`, `eval.interpolation` and `eval.mistakes`.
  """
  resolutions = at_widths(config)

  def eval_fn(variables: switchable.Variables, batch: Batch) -> dict[str, Array]:
    normalize, interpolation = config.data.normalize, config.eval.interpolation
    images = preprocess.prepare(
      preprocess.sized(config, batch['images']), resolutions, normalize, interpolation=interpolation
    )
    logits, _ = switchable.forward(model, variables, images, resolutions, train=False)
    ranks = rank_of(with_ensemble(logits, variables['params']['alpha']), batch['label']).T
    return {'ranks': ranks} | guessed(config, logits[0], batch['label'])

  return eval_fn


def guessed(config: ConfigDict, logits: Array, labels: Array) -> dict[str, Array]:
  """Returns what mistakes are known by: `label` and `guess`, int `[B]`, and the guess's log-odds, `guess_odds`.

  Empty where `eval.mistakes` is 0.

  Args:
    config: Reads `eval.mistakes`.
    logits: `[B, K]`, of the largest resolution.
    labels: int `[B]`.
  """
  if not config.eval.mistakes:
    return {}
  return {'label': labels, 'guess': logits.argmax(-1).astype(jnp.int32), 'guess_odds': log_odds(logits)}


def with_ensemble(logits: Array, alpha: Array) -> Array:
  """Returns `[R + 1, B, K]`: the logits of every resolution, and the ensemble's last."""
  return jnp.concatenate([logits, losses.ensemble_logits(logits, alpha)[None]])


def rank_of(logits: Array, labels: Array) -> Array:
  """Returns the place of the true class when classes are ordered by falling logit, 0 for the first; int32 `[..., B]`.

  Ties go to the lower class, as in argmax. A logit that is not a number never helps: it counts as beating the truth.

  Args:
    logits: `[..., B, K]`.
    labels: int `[B]`.
  """
  classes = jnp.arange(logits.shape[-1]).reshape((1,) * (logits.ndim - 1) + (-1,))
  label = jnp.broadcast_to(labels, logits.shape[:-1])[..., None]
  truth = jnp.take_along_axis(logits, label, axis=-1)
  beaten = jnp.where(classes < label, logits < truth, logits <= truth) | (classes == label)
  return (~beaten).sum(-1).astype(jnp.int32)
