"""DRNet: a small predictor chooses each image's resolution and is trained with the classifier under a budget.

Zhu et al., "Dynamic Resolution Network", NeurIPS 2021. The backbone is the switchable network of RS-Net; the predictor
lives beside it in `params['predictor']` and `batch_stats['predictor']`, with a plain BatchNorm of its own.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.lax import stop_gradient
from ml_collections import ConfigDict

from resjax import estimators, gumbel, losses, macs, models, moved, preprocess, rsnet, switchable
from resjax.apply import Apply, rematerialised
from resjax.models.predictor import from_config as predictor_of
from resjax.resolution import Resolution, at_widths
from resjax.routing.budget import Budget
from resjax.routing.cascade import log_odds
from resjax.routing.oracle import smallest_right

Batch = dict[str, Any]


def variables_of_predictor(variables: switchable.Variables) -> switchable.Variables:
  """Returns the predictor's ordinary variables, out of those that `init` makes."""
  return {kind: variables[kind]['predictor'] for kind in ('params', 'batch_stats')}


def init(model: nn.Module, config: ConfigDict, key: Array) -> switchable.Variables:
  """Returns fresh variables: those of RS-Net, and the predictor's in `params` and `batch_stats`.

  Args:
    model: A plain network.
    config: Reads what `rsnet.init` does, `model.dtype` and `drnet.predictor`.
    key: A typed PRNG key.
  """
  variables = rsnet.init(model, config, key)
  fresh = predictor_of(config).init(jax.random.fold_in(key, 1))
  return {kind: variables[kind] | {'predictor': fresh[kind]} for kind in ('params', 'batch_stats')}


def pretraining(config: ConfigDict) -> ConfigDict | None:
  """Returns the config of the run that trains the network alone first, where `drnet.start='pretrain'` asks for it."""
  if config.drnet.start != 'pretrain':
    return None
  first = config.copy_and_resolve_references()
  first.method = 'rsnet'
  first.epochs = config.drnet.pretrain.epochs
  for name in ('learning_rate', 'step_epochs', 'warmup_epochs'):
    first.optimizer[name] = config.drnet.pretrain[name]
  return first


def backbone(config: ConfigDict, first: pathlib.Path) -> rsnet.Start | None:
  """Returns the RS-Net that training starts from, or None where it starts from random weights.

  Args:
    config: Reads `drnet.start` and `drnet.checkpoint`.
    first: The workdir of the run that `pretraining` describes.
  """
  workdir = {'scratch': None, 'pretrain': first, 'checkpoint': config.drnet.checkpoint}[config.drnet.start]
  return workdir and rsnet.Start(workdir, 'drnet.checkpoint', 'all', exact=True)


def rates(config: ConfigDict) -> dict[str, float]:
  """Returns the learning rates of the entries of `params` as factors; 0: it stays. `network` stands for all others."""
  return {
    'network': 0.0 if config.drnet.frozen else 1.0,
    'predictor': config.drnet.learning_rate_factor,
    'alpha': 0.0,
  }


def costs_of(model: nn.Module, resolutions: Sequence[Resolution]) -> tuple[int, ...]:
  """Returns the multiply-adds of one image at each resolution, the predictor's left out."""
  return tuple(macs.of_model(model, r) for r in resolutions)


def budget_of(config: ConfigDict, costs: Sequence[int]) -> float:
  """Returns what the budget leaves for the network: the mean multiply-adds of an image, the predictor's taken off.

  `drnet.budget` counts all that is run for an image, as every budget does (`routing.Budget`).

  Args:
    config: Reads `drnet.budget` and what `predictor_of` does.
    costs: As of `costs_of`.

  Raises:
    ValueError: The budget is below what the predictor and the cheapest resolution cost.
  """
  predictor_macs = predictor_of(config).macs
  target = Budget.parse(config.drnet.budget).target(max(costs))
  if target - predictor_macs < min(costs):
    lowest = min(costs) + predictor_macs
    raise ValueError(
      f'config.drnet.budget: got {config.drnet.budget} ({target:.4g} multiply-adds), expected at least '
      f'{lowest / max(costs):.4g} ({lowest:.4g} multiply-adds: the predictor, and every image at the lowest resolution)'
    )
  return target - predictor_macs


def budget_loss(
  choice: Array, costs: Sequence[float], budget: float, axis_name: str | None = None, share: Array | None = None
) -> tuple[Array, Array]:
  """Returns `L_reg = max(0, (mean(F) - budget) / (C_max - C_min))` with `F = sum_j C_j h_j`, and mean(F).

  The mean is taken over the batches of all devices, before the hinge.

  Args:
    choice: `[B, R]`, one-hot, or probabilities.
    costs: `[R]`.
    budget: In the unit of `costs`.
    axis_name: The named axis of the devices, or None for one device.
    share: The budget over `C_max`, in place of the budget.
  """
  scale = float(max(costs))  # costs of a large network do not fit into int32
  mean = (choice * jnp.array([cost / scale for cost in costs], choice.dtype)[None]).sum(-1).mean()
  if axis_name:
    mean = jax.lax.pmean(mean, axis_name)
  excess = (mean - (budget / scale if share is None else share)) / ((scale - min(costs)) / scale)
  return jax.nn.relu(excess), mean * scale


def terms(model: nn.Module, config: ConfigDict, total_steps: int) -> Callable[[Array], dict[str, Any]]:
  """Returns what gives the numbers of the loss by the step: `tau`, `eta` and `share`, the budget over the largest cost.

  Args:
    model: A plain network.
    config: Reads what `budget_of` does, `drnet.eta`, `drnet.tau` and `drnet.tau_end`.
    total_steps: Of the run.

  Raises:
    ValueError: The budget is below the cheapest resolution's cost.
  """
  options, costs = config.drnet, costs_of(model, at_widths(config))
  share = budget_of(config, costs) / max(costs)

  def numbers(step: Array) -> dict[str, Any]:
    tau = gumbel.temperature(step / total_steps, options.tau, options.tau_end)
    return {'tau': tau, 'eta': options.eta, 'share': share}

  return numbers


def make_loss_fn(
  model: nn.Module,
  config: ConfigDict,
  *,
  total_steps: int = 1,
  axis_name: str | None = None,
  network: Apply | None = None,
) -> Callable[..., Any]:
  """Returns `loss_fn(params, batch_stats, batch, key) -> loss, (batch_stats, metrics)`, with `L = L_ce + eta L_reg`.

  `batch` has the numbers that `terms` gives, or an entry `step`, int32 `[]`, which they follow from. With a frozen
  backbone the batch_stats that are returned are the predictor's alone. `metrics` are scalars: `loss`, `loss_class`
  (`loss_label` when supervised), `loss_budget`, `top1` of the chosen resolutions, `cost` (mean multiply-adds without
  the predictor, as a share of the largest resolution's), `share_224`, `tau`, and `overflow`, the share of images that
  found no room where they were sent.

  Args:
    model: A plain network.
    config: Reads `resolutions`, `label_smoothing`, `class_weights`, `sync_batch_norm`, `drnet`, `remat`, and what
      `rsnet.train_images` does.
    total_steps: Of the run.
    axis_name: The named axis of the devices, or None for one device.
    network: What is run in the model's place; None: the model, as `remat` says.

  Raises:
    ValueError: The budget is below the cheapest resolution's cost, or the network is to be trained and takes no mask.
  """
  options, resolutions = config.drnet, at_widths(config)
  if not options.frozen and options.statistics == 'sent':
    models.check_mask(model, config.model.name)
  costs = costs_of(model, resolutions)
  budget = budget_of(config, costs)
  predictor = predictor_of(config, axis_name if config.sync_batch_norm else None)
  learn = _make_class_loss(network or rematerialised(model, config.remat), config, costs, budget, axis_name)
  numbers = terms(model, config, total_steps)

  def loss_fn(params: Any, batch_stats: Any, batch: Batch, key: Array) -> Any:
    if options.frozen:
      params = {name: value if name == 'predictor' else stop_gradient(value) for name, value in params.items()}
    variables = {'params': params, 'batch_stats': batch_stats}
    given = batch if 'tau' in batch else numbers(batch['step'])
    images, labels = rsnet.train_images(config, batch, key), rsnet.train_labels(config, batch, key)
    scores, predictor_stats = predictor.scores(variables_of_predictor(variables), images[0], train=True)
    if options.estimator == 'supervised':
      loss, metrics = _label_loss(model, variables, images, resolutions, batch['label'], scores)
      choice, chosen = jax.nn.softmax(scores), jax.nn.one_hot(scores.argmax(-1), len(costs))
    else:
      noise = gumbel.draw(key, batch['index'], len(costs))
      choice = chosen = gumbel.choose(scores, noise, given['tau'])
      loss, batch_stats, metrics = learn(variables, images, labels, choice)
      metrics['tau'] = given['tau']
    excess, _ = budget_loss(choice, costs, budget, axis_name, given['share'])
    loss, share = loss + given['eta'] * excess, chosen.mean(0)
    relative = (share * jnp.array([cost / max(costs) for cost in costs])).sum()
    metrics |= {'loss': loss, 'loss_budget': excess, 'cost': relative}
    metrics |= {f'share_{r}': share[j] for j, r in enumerate(resolutions)}
    kept = {} if options.frozen else batch_stats
    return loss, (kept | {'predictor': predictor_stats}, metrics)

  return loss_fn


def _make_class_loss(
  network: nn.Module | Apply, config: ConfigDict, costs: Sequence[int], budget: float, axis_name: str | None
) -> Callable[..., Any]:
  """Returns `learn(variables, images, labels, choice) -> loss, batch_stats, metrics`: the loss through the choice."""
  options, resolutions, weights = config.drnet, at_widths(config), rsnet.class_weights(config)
  count_all = options.statistics == 'all'

  def learn(variables: Any, images: Any, labels: losses.Labels, choice: Array) -> Any:
    train, overflow = not options.frozen, jnp.zeros(())
    if options.estimator == 'dense':
      logits, batch_stats = estimators.dense(
        network, variables, images, resolutions, choice, train=train, count_all=count_all
      )
      ran = choice.argmax(-1)
    else:
      room = estimators.capacities(choice.shape[0], costs, budget, options.margin)
      logits, batch_stats, ran = estimators.routed(network, variables, images, resolutions, choice, room, train=train)
      overflow = (ran != choice.argmax(-1)).mean()
    counts = ((ran[:, None] == jnp.arange(len(costs))[None]) | count_all).sum(0).astype(jnp.float32)
    batch_stats = estimators.weigh(variables['batch_stats'], batch_stats, counts, resolutions, axis_name)
    alone = jax.tree.map(lambda column: column[:, None], labels)
    each = losses.cross_entropy(logits[:, None], alone, config.label_smoothing, weights)
    loss = each.mean()
    right = losses.hits(logits.argmax(-1), labels).mean()
    metrics = {'loss_class': loss, 'top1': right, 'overflow': overflow}
    if options.estimator == 'routed':
      loss += estimators.credit(choice, each, ran, axis_name)
    return loss, batch_stats, metrics

  return learn


def _label_loss(
  model: nn.Module,
  variables: switchable.Variables,
  images: Sequence[Array],
  resolutions: Sequence[Resolution],
  labels: Array,
  scores: Array,
) -> tuple[Array, dict[str, Array]]:
  """Cross-entropy of the scores against the resolution that each image should get, and metrics."""
  logits, _ = switchable.forward(model, variables, images, resolutions, train=False)
  right = stop_gradient(logits).argmax(-1) == labels[None]
  wanted = smallest_right(right.T, otherwise=0)  # the highest is the likeliest to be right for images like this one
  loss = losses.cross_entropy(scores, wanted)
  chosen = scores.argmax(-1)
  top1 = jnp.take_along_axis(right, chosen[None], axis=0).mean()
  return loss, {'loss_label': loss, 'top1': top1, 'agreement': (chosen == wanted).mean()}


def make_eval_fn(model: nn.Module, config: ConfigDict) -> Callable[..., dict[str, Array]]:
  """Returns `eval_fn(variables, batch)`: what every resolution and the predictor say of each image, without noise.

  It gives `ranks` int32 `[B, R + 1]`, as RS-Net's; `scores` float32 `[B, R]`, the predictor's, whose argmax is the
  choice; `odds` float32 `[B, R]`, log-odds of the likeliest class at each resolution; `label` int32 `[B]`; and what
  `rsnet.guessed` does.

  Args:
    model: A plain network.
    config: Reads `resolutions`, `drnet.predictor`, `data.normalize`, `eval.interpolation` and `eval.mistakes`.
  """
  resolutions = at_widths(config)
  predictor = predictor_of(config)

  def eval_fn(variables: switchable.Variables, batch: Batch) -> dict[str, Array]:
    normalize, interpolation = config.data.normalize, config.eval.interpolation
    sized = preprocess.sized(config, batch['images'])
    images = preprocess.prepare(sized, resolutions, normalize, interpolation=interpolation)
    scores, _ = predictor.scores(variables_of_predictor(variables), images[0], train=False)
    logits, _ = switchable.forward(model, variables, images, resolutions, train=False)
    everyone = rsnet.with_ensemble(logits, variables['params']['alpha'])
    return {
      'ranks': rsnet.rank_of(everyone, batch['label']).T,
      'scores': scores,
      'odds': log_odds(logits).T,
      'label': batch['label'],
    } | rsnet.guessed(config, logits[0], batch['label'])

  return eval_fn


moved.tell(globals())
