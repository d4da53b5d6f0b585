"""DRNet: a small predictor chooses each image's resolution and is trained with the classifier under a budget.

Zhu et al., "Dynamic Resolution Network", NeurIPS 2021. The backbone is the switchable network of RS-Net; the predictor
lives beside it in `params['predictor']` and `batch_stats['predictor']`, with a plain BatchNorm of its own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.lax import stop_gradient
from ml_collections import ConfigDict

from resjax import estimators, gumbel, losses, macs, preprocess, resize, rsnet, switchable
from resjax.models.predictor import PREDICTORS, create_predictor

Batch = dict[str, Any]

# 'supervised' learns from labels, the smallest resolution at which the frozen backbone is right.
ESTIMATORS = ('dense', 'routed', 'supervised')


class Predictor:
  """The predictor of a config: the network, the size of its input, and what it costs.

  Attributes:
    network: Called as `network(images, train=...)`, gives a score for each resolution.
    size: Of its input in pixels.
    macs: Multiply-adds of one image.
  """

  def __init__(self, config: ConfigDict, axis_name: str | None = None):
    """Reads `resolutions`, `model.dtype` and `drnet.predictor`."""
    options = config.drnet.predictor
    self.network = create_predictor(
      options.name,
      resolutions=len(config.resolutions),
      width=options.width,
      dtype=config.model.dtype,
      axis_name=axis_name,
    )
    self.size = options.size or PREDICTORS[options.name][1]
    self.macs = macs.of_model(self.network, self.size)

  def init(self, key: Array) -> switchable.Variables:
    """Returns fresh variables."""
    return self.network.init(key, jnp.zeros((1, self.size, self.size, 3)), train=False)

  def scores(self, variables: switchable.Variables, images: Array, *, train: bool) -> tuple[Array, Any]:
    """Returns scores `[B, R]` and the predictor's batch_stats, from the largest images, float `[B, r, r, 3]`."""
    own = {kind: variables[kind]['predictor'] for kind in ('params', 'batch_stats')}
    small = resize.resize(images, self.size)
    if not train:
      return self.network.apply(own, small, train=False), own['batch_stats']
    scores, updates = self.network.apply(own, small, train=True, mutable=['batch_stats'])
    return scores, updates['batch_stats']


def init(model: nn.Module, config: ConfigDict, key: Array) -> switchable.Variables:
  """Returns fresh variables: those of RS-Net, and the predictor's in `params` and `batch_stats`.

  Args:
    model: A plain network.
    config: Reads `resolutions`, `shared_batch_norm`, `model.dtype` and `drnet.predictor`.
    key: A typed PRNG key.
  """
  variables = rsnet.init(model, config, key)
  own = Predictor(config).init(jax.random.fold_in(key, 1))
  return {kind: variables[kind] | {'predictor': own[kind]} for kind in ('params', 'batch_stats')}


def costs_of(model: nn.Module, resolutions: Sequence[int]) -> tuple[int, ...]:
  """Returns the multiply-adds of one image at each resolution, the predictor's left out."""
  return tuple(macs.of_model(model, r) for r in resolutions)


def budget_of(config: ConfigDict, costs: Sequence[int]) -> float:
  """Returns the budget in multiply-adds: `drnet.budget` itself, or where at most 1, that share of the dearest cost.

  Raises:
    ValueError: The budget is below the cheapest cost.
  """
  budget = config.drnet.budget
  resolved = budget * max(costs) if budget <= 1 else budget
  if resolved < min(costs):
    raise ValueError(
      f'config.drnet.budget: got {budget} ({resolved:.4g} multiply-adds), expected at least '
      f'{min(costs) / max(costs):.4g} ({min(costs):.4g} multiply-adds: every image at the lowest resolution)'
    )
  return resolved


def budget_loss(
  choice: Array, costs: Sequence[float], budget: float, axis_name: str | None = None
) -> tuple[Array, Array]:
  """Returns `L_reg = max(0, (mean(F) - budget) / (C_max - C_min))` with `F = sum_j C_j h_j`, and mean(F).

  The mean is taken over the batches of all devices, before the hinge.

  Args:
    choice: `[B, R]`, one-hot, or probabilities.
    costs: `[R]`.
    budget: In the unit of `costs`.
    axis_name: The named axis of the devices, or None for one device.
  """
  scale = float(max(costs))  # costs of a large network do not fit into int32
  mean = (choice * jnp.array([cost / scale for cost in costs], choice.dtype)[None]).sum(-1).mean()
  if axis_name:
    mean = jax.lax.pmean(mean, axis_name)
  excess = (mean - budget / scale) / ((scale - min(costs)) / scale)
  return jax.nn.relu(excess), mean * scale


def make_loss_fn(
  model: nn.Module, config: ConfigDict, *, total_steps: int = 1, axis_name: str | None = None
) -> Callable[..., Any]:
  """Returns `loss_fn(params, batch_stats, batch, key) -> loss, (batch_stats, metrics)`, with `L = L_ce + eta L_reg`.

  `batch` has an entry `step`, int32 `[]`, for the temperature. With a frozen backbone the batch_stats that are returned
  are the predictor's alone. `metrics` are scalars: `loss`, `loss_class` (`loss_label` when supervised), `loss_budget`,
  `top1` of the chosen resolutions, `cost` (mean multiply-adds without the predictor, as a share of the largest
  resolution's), `share_224`, `tau`, and `overflow`, the share of images that found no room where they were sent.

  Args:
    model: A plain network.
    config: Reads `resolutions`, `label_smoothing`, `sync_batch_norm`, `drnet`, `data.flip` and `data.normalize`.
    total_steps: Of the run.
    axis_name: The named axis of the devices, or None for one device.

  Raises:
    ValueError: The budget is below the cheapest resolution's cost.
  """
  options, resolutions = config.drnet, tuple(config.resolutions)
  costs = costs_of(model, resolutions)
  budget = budget_of(config, costs)
  predictor = Predictor(config, axis_name if config.sync_batch_norm else None)
  learn = _make_class_loss(model, config, costs, budget, axis_name)

  def loss_fn(params: Any, batch_stats: Any, batch: Batch, key: Array) -> Any:
    if options.frozen:
      params = {name: value if name == 'predictor' else stop_gradient(value) for name, value in params.items()}
    variables = {'params': params, 'batch_stats': batch_stats}
    flips = preprocess.draw_flips(key, batch['index'], resolutions, config.data.flip)
    images = preprocess.prepare(batch['images'], resolutions, config.data.normalize, flips)
    scores, predictor_stats = predictor.scores(variables, images[0], train=True)
    if options.estimator == 'supervised':
      loss, metrics = _label_loss(model, variables, images, resolutions, batch['label'], scores)
      choice, chosen = jax.nn.softmax(scores), jax.nn.one_hot(scores.argmax(-1), len(costs))
    else:
      tau = gumbel.temperature(batch['step'] / total_steps, options.tau, options.tau_end)
      noise = gumbel.draw(key, batch['index'], len(costs))
      choice = chosen = gumbel.choose(scores, noise, tau)
      loss, batch_stats, metrics = learn(variables, images, batch, choice)
      metrics['tau'] = tau
    excess, _ = budget_loss(choice, costs, budget, axis_name)
    loss = loss + options.eta * excess
    share = chosen.mean(0)
    relative = jnp.array([cost / max(costs) for cost in costs])
    metrics |= {'loss': loss, 'loss_budget': excess, 'cost': (share * relative).sum()}
    metrics |= {f'share_{r}': share[j] for j, r in enumerate(resolutions)}
    kept = {} if options.frozen else batch_stats
    return loss, (kept | {'predictor': predictor_stats}, metrics)

  return loss_fn


def _make_class_loss(
  model: nn.Module, config: ConfigDict, costs: Sequence[int], budget: float, axis_name: str | None
) -> Callable[..., Any]:
  """Returns `learn(variables, images, batch, choice) -> loss, batch_stats, metrics`: the loss through the choice."""
  options, resolutions = config.drnet, tuple(config.resolutions)

  def learn(variables: Any, images: Any, batch: Batch, choice: Array) -> Any:
    train, overflow = not options.frozen, jnp.zeros(())
    if options.estimator == 'dense':
      logits, batch_stats = estimators.dense(model, variables, images, resolutions, choice, train=train)
      ran = choice.argmax(-1)
    else:
      room = estimators.capacities(choice.shape[0], costs, budget, options.margin)
      logits, batch_stats, ran = estimators.routed(model, variables, images, resolutions, choice, room, train=train)
      overflow = (ran != choice.argmax(-1)).mean()
    counts = (ran[:, None] == jnp.arange(len(costs))[None]).sum(0).astype(jnp.float32)
    batch_stats = estimators.weigh(variables['batch_stats'], batch_stats, counts, resolutions, axis_name)
    each = losses.cross_entropy(logits[:, None], batch['label'][:, None], config.label_smoothing)
    loss = each.mean()
    right = (logits.argmax(-1) == batch['label']).mean()
    metrics = {'loss_class': loss, 'top1': right, 'overflow': overflow}
    if options.estimator == 'routed':
      loss += estimators.credit(choice, each, ran, axis_name)
    return loss, batch_stats, metrics

  return learn


def _label_loss(
  model: nn.Module,
  variables: switchable.Variables,
  images: Sequence[Array],
  resolutions: Sequence[int],
  labels: Array,
  scores: Array,
) -> tuple[Array, dict[str, Array]]:
  """Cross-entropy of the scores against the resolution that each image should get, and metrics."""
  logits, _ = switchable.forward(model, variables, images, resolutions, train=False)
  right = stop_gradient(logits).argmax(-1) == labels[None]
  wanted = smallest_right(right)
  loss = losses.cross_entropy(scores, wanted)
  chosen = scores.argmax(-1)
  top1 = jnp.take_along_axis(right, chosen[None], axis=0).mean()
  return loss, {'loss_label': loss, 'top1': top1, 'agreement': (chosen == wanted).mean()}


def smallest_right(right: Array) -> Array:
  """Returns the place of the smallest resolution at which an image is right, int32 `[B]`.

  Of several that are right the smallest is taken, also where a larger one between them is wrong. Where none is right it
  is the highest resolution, place 0: images like this one are most likely to be right there.

  Args:
    right: bool `[R, B]`, highest resolution first.
  """
  count = right.shape[0]
  lowest = count - 1 - right[::-1].argmax(0)
  return jnp.where(right.any(0), lowest, 0).astype(jnp.int32)


def make_eval_fn(model: nn.Module, config: ConfigDict) -> Callable[..., dict[str, Array]]:
  """Returns `eval_fn(variables, batch)`: what every resolution and the predictor say of each image, without noise.

  It gives `ranks` int32 `[B, R + 1]`, as RS-Net's; `scores` float32 `[B, R]`, the predictor's, whose argmax is the
  choice; `confidence` float32 `[B, R]`, the highest class probability at each resolution; and `label` int32 `[B]`.

  Args:
    model: A plain network.
    config: Reads `resolutions`, `drnet.predictor` and `data.normalize`.
  """
  resolutions = tuple(config.resolutions)
  predictor = Predictor(config)

  def eval_fn(variables: switchable.Variables, batch: Batch) -> dict[str, Array]:
    images = preprocess.prepare(batch['images'], resolutions, config.data.normalize)
    scores, _ = predictor.scores(variables, images[0], train=False)
    logits, _ = switchable.forward(model, variables, images, resolutions, train=False)
    everyone = rsnet.with_ensemble(logits, variables['params']['alpha'])
    return {
      'ranks': rsnet.rank_of(everyone, batch['label']).T,
      'scores': scores,
      'confidence': jax.nn.softmax(logits).max(-1).T,
      'label': batch['label'],
    }

  return eval_fn
