"""RS-Net's training step in about the memory of its largest resolution: one program for each resolution.

Teachers are detached, so what a resolution learns needs the others' logits as constants only. A first pass runs the
smaller resolutions and keeps nothing but their logits; a second takes the gradient of one resolution at a time, the
largest first, whose logits thus need no pass of their own. The gradient is that of the joint step but for the order of
its sums, at one more forward pass of the smaller resolutions.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array
from jax.lax import stop_gradient
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from resjax import compiling, rsnet, switchable
from resjax.apply import Apply
from resjax.resolution import at_widths
from resjax.training import freezing, step
from resjax.training.devices import Devices
from resjax.training.given import Given
from resjax.training.state import TrainState

AXIS = step.AXIS


@dataclasses.dataclass(frozen=True)
class TwoPass:
  """`train_step(state, batch) -> state, metrics` as a sequence of compiled programs; the old state is gone afterwards.

  Each program gets what the one before it returns, so that no two are ever in memory together.

  Attributes:
    look: `(params, batch_stats, given, batch, logits) -> logits`, for each resolution but the largest: its logits
      put into `[R, B, K]`. Empty without distillation.
    learn: `(params, batch_stats, given, batch, logits, grads) -> batch_stats, logits, grads`, for each resolution:
      its running statistics, its logits, and the sum of the gradients so far, of each device by itself `[D, ...]`.
    update: `(state, batch, given, logits, grads) -> state, metrics`: alpha's gradient, means over devices, and the
      optimiser.
    given: `(state) -> Given`.
  """

  look: tuple[Callable[..., Any], ...]
  learn: tuple[Callable[..., Any], ...]
  update: Callable[..., Any]
  given: Callable[[TrainState], Any]

  def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Array]]:
    """Takes one step."""
    logits = grads = None
    given = self.given(state)
    for look in self.look:
      logits = look(state.params, state.batch_stats, given, batch, logits)
    batch_stats = state.batch_stats
    for learn in self.learn:
      batch_stats, logits, grads = learn(state.params, batch_stats, given, batch, logits, grads)
    return self.update(dataclasses.replace(state, batch_stats=batch_stats), batch, given, logits, grads)


def make_train_step(
  model: nn.Module | Apply,
  config: ConfigDict,
  rule: Callable[[Given], optax.GradientTransformation],
  devices: Devices,
  given: Callable[[TrainState], Given],
) -> TwoPass:
  """Returns RS-Net's training step on all devices; nothing is compiled before its first call.

  Args:
    model: A plain network.
    config: Reads what `rsnet.make_loss_fn` does, and `optimizer.freeze` and `rates`.
    rule: The optimiser, by what a step is given.
    devices: Where it runs; gradients are averaged over them once a step.
    given: What that is, by the state.
  """
  split = P(None, AXIS)  # logits [R, B, K]

  compiled = functools.partial(on_devices, devices)

  def look(place: int) -> Callable[..., Any]:
    body = _look(model, config, place)
    return compiled(body, (P(), P(), P(), P(AXIS), split), split, donate=(4,))

  def learn(place: int) -> Callable[..., Any]:
    body = _learn(model, config, place)
    return compiled(body, (P(), P(), P(), P(AXIS), split, P(AXIS)), (P(), split, P(AXIS)), donate=(1, 4, 5))

  count = len(at_widths(config))
  return TwoPass(
    look=tuple(look(place) for place in range(1, count)) if config.distillation != 'none' else (),
    learn=tuple(learn(place) for place in range(count)),
    update=compiled(_update(config, rule), (P(), P(AXIS), P(), split, P(AXIS)), P(), donate=(0,)),
    given=given,
  )


def on_devices(
  devices: Devices, body: Callable[..., Any], ins: tuple[P, ...], out: Any, donate: tuple[int, ...]
) -> Callable[..., Any]:
  """Returns what is written for one device as a program of all, which takes the memory of some of its arguments."""
  mapped = jax.shard_map(body, mesh=devices.mesh, in_specs=ins, out_specs=out)
  return jax.jit(mapped, donate_argnums=donate, compiler_options=compiling.options(devices.platform, 'training'))


def added(loss_of: Callable[[Any], Any], params: Any, grads: Any) -> tuple[Any, Any]:
  """Returns what a loss gives beside its value, and its gradient added to those so far, of each device by itself.

  On varying parameters each device has a gradient of its own: one mean over devices serves all resolutions.
  """
  varying = jax.lax.pcast(params, AXIS, to='varying')
  (_, beside), new = jax.value_and_grad(loss_of, has_aux=True)(varying)
  new = jax.tree.map(lambda g: g[None], new)
  return beside, new if grads is None else jax.tree.map(jnp.add, grads, new)


def _look(model: nn.Module | Apply, config: ConfigDict, place: int) -> Callable[..., Any]:
  """The first pass of one resolution, on one device."""

  def body(params: Any, batch_stats: Any, given: Given, batch: Any, logits: Array | None) -> Array:
    variables, key = {'params': params, 'batch_stats': batch_stats}, jax.random.wrap_key_data(given.key)
    here = slice(place, place + 1)
    logits_here, _ = rsnet.train_logits(model, config, variables, batch | given.terms, key, here)
    return _with_row(logits, logits_here, place, len(at_widths(config)))

  return body


def _learn(model: nn.Module | Apply, config: ConfigDict, place: int) -> Callable[..., Any]:
  """The second pass of one resolution, on one device: its gradients are added to those before."""

  def body(params: Any, batch_stats: Any, given: Given, batch: Any, logits: Array | None, grads: Any) -> Any:
    key, batch, here = jax.random.wrap_key_data(given.key), batch | given.terms, slice(place, place + 1)
    labels = rsnet.train_labels(config, batch, key)

    def loss_of(params: Any) -> Any:
      params = freezing.held(params, freezing.pairs(config.optimizer))
      variables = {'params': params, 'batch_stats': batch_stats}
      logits_here, statistics = rsnet.train_logits(model, config, variables, batch, key, here)
      changed = switchable.set_of(variables, at_widths(config)[place])
      rows = _with_row(logits, logits_here, place, len(at_widths(config)))
      alpha = stop_gradient(params['alpha'])
      loss, _ = rsnet.loss_of_logits(config, rows, labels, alpha, batch.get('teacher'), batch.get('drawn'))
      return loss, ({changed: statistics[changed]}, rows)

    (statistics, rows), grads = added(loss_of, params, grads)
    return step.averaged(statistics, batch_stats), rows, grads

  return body


def _update(config: ConfigDict, rule: Callable[[Given], optax.GradientTransformation]) -> Callable[..., Any]:
  """What follows the last resolution, on one device."""

  def body(
    state: TrainState, batch: Any, given: Given, logits: Array, grads: Any
  ) -> tuple[TrainState, dict[str, Array]]:
    labels, batch = rsnet.train_labels(config, batch, jax.random.wrap_key_data(given.key)), batch | given.terms

    def mean_loss(alpha: Array) -> Any:
      alpha = freezing.held({'alpha': alpha}, freezing.pairs(config.optimizer))['alpha']
      loss, metrics = rsnet.loss_of_logits(config, logits, labels, alpha, batch.get('teacher'), batch.get('drawn'))
      return jax.lax.pmean(loss, AXIS), metrics

    (_, metrics), of_alpha = jax.value_and_grad(mean_loss, has_aux=True)(state.params['alpha'])
    grads = jax.tree.map(lambda g: g[0], grads) | {'alpha': of_alpha}
    grads, metrics = jax.lax.pmean((grads, metrics), AXIS)
    metrics['gradient_norm'] = optax.tree.norm(grads)
    return step.update(state, grads, rule(given), given.ema_decay), metrics

  return body


def _with_row(logits: Array | None, row: Array, place: int, count: int) -> Array:
  """Logits `[R, B, K]` with one resolution's, `[1, B, K]`, in their place; zeros where nothing is known yet."""
  if logits is None:
    logits = jnp.zeros((count, *row.shape[1:]), row.dtype)
  return jnp.concatenate([stop_gradient(logits[:place]), row, stop_gradient(logits[place + 1 :])])
