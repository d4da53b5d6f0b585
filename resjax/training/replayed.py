"""DRNet's training step in about the memory of its largest resolution: one program for each resolution.

An image's answer is that of the one resolution that it was sent to, `z = sum_j h_j z_j` with h one-hot. So what the
network learns at a resolution needs nothing of the others, not even their logits: each resolution is run once, forward
and backward, and no first pass is needed. The predictor, whose forward pass is repeated with each, learns at the end,
from the logits of all of them, `dL/dh_j = <dL/dz, z_j>`. Each program is the joint step's loss with a network that runs
at one resolution and says at the others what it said before.
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

from resjax import drnet, switchable
from resjax.apply import Apply, rematerialised, run
from resjax.resolution import at_widths, sides, width_of
from resjax.training import step
from resjax.training.devices import Devices
from resjax.training.given import Given
from resjax.training.state import TrainState
from resjax.training.two_pass import TwoPass, added, on_devices

AXIS = step.AXIS


def make_train_step(
  model: nn.Module,
  config: ConfigDict,
  rule: Callable[[Given], optax.GradientTransformation],
  devices: Devices,
  given: Callable[[TrainState], Given],
) -> TwoPass:
  """Returns DRNet's training step on all devices; nothing is compiled before its first call.

  Args:
    model: A plain network.
    config: Reads what `drnet.make_loss_fn` does; the network is not frozen.
    rule: As of `two_pass.make_train_step`, and so are the next two.
    devices: See there.
    given: See there.
  """
  rows = P(AXIS)  # logits [B, K] of each resolution

  compiled = functools.partial(on_devices, devices)

  def learn(place: int) -> Callable[..., Any]:
    body = _learn(model, config, place)
    return compiled(body, (P(), P(), P(), P(AXIS), rows, P(AXIS)), (P(), rows, P(AXIS)), donate=(1, 4, 5))

  return TwoPass(
    look=(),
    learn=tuple(learn(place) for place in range(len(at_widths(config)))),
    update=compiled(_update(model, config, rule), (P(), P(AXIS), P(), rows, P(AXIS)), P(), donate=(0,)),
    given=given,
  )


def _learn(model: nn.Module, config: ConfigDict, place: int) -> Callable[..., Any]:
  """One resolution, on one device: its gradients are added to those before."""
  resolutions = at_widths(config)
  resolution, count = resolutions[place], len(resolutions)

  def body(params: Any, batch_stats: Any, given: Given, batch: Any, logits: Any, grads: Any) -> Any:
    before = (None,) * count if logits is None else logits

    def loss_of(params: Any) -> Any:
      params = params | {'predictor': stop_gradient(params['predictor'])}
      said: list[Array] = []
      loss_fn = drnet.make_loss_fn(
        model, config, axis_name=AXIS, network=_replaying(model, config, before, place, said)
      )
      key = jax.random.wrap_key_data(given.key)
      loss, (statistics, _) = loss_fn(params, batch_stats, batch | given.terms, key)
      changed = switchable.set_of({'params': params, 'batch_stats': batch_stats}, resolution)
      return loss, ({changed: statistics[changed]}, said[0])

    (statistics, here), grads = added(loss_of, params, grads)
    return step.averaged(statistics, batch_stats), (*before[:place], here, *before[place + 1 :]), grads

  return body


def _update(model: nn.Module, config: ConfigDict, rule: Callable[[Given], Any]) -> Callable[..., Any]:
  """What follows the last resolution, on one device: the predictor's gradient, and the optimiser."""

  def body(state: TrainState, batch: Any, given: Given, logits: Any, grads: Any) -> tuple[TrainState, dict[str, Array]]:
    def mean_loss(predictor: Any) -> Any:
      params = state.params | {'predictor': jax.lax.pcast(predictor, AXIS, to='varying')}
      loss_fn = drnet.make_loss_fn(model, config, axis_name=AXIS, network=_replaying(model, config, logits))
      key = jax.random.wrap_key_data(given.key)
      loss, (statistics, metrics) = loss_fn(params, state.batch_stats, batch | given.terms, key)
      return jax.lax.pmean(loss, AXIS), ({'predictor': statistics['predictor']}, metrics)

    (_, (statistics, metrics)), own = jax.value_and_grad(mean_loss, has_aux=True)(state.params['predictor'])
    others = {name: jax.tree.map(lambda g: g[0], of) for name, of in grads.items() if name != 'predictor'}
    others, metrics = jax.lax.pmean((others, metrics), AXIS)
    grads = others | {'predictor': own}
    metrics['gradient_norm'] = optax.tree.norm(grads)
    state = dataclasses.replace(state, batch_stats=step.averaged(statistics, state.batch_stats))
    return step.update(state, grads, rule(given), given.ema_decay), metrics

  return body


def _replaying(
  model: nn.Module, config: ConfigDict, logits: Any, place: int | None = None, said: list[Array] | None = None
) -> Apply:
  """A network that runs at one resolution, where `said` gets its logits, and at the others says what is known.

  Where nothing is known yet it says zeros, which no image that is sent to this resolution sees.
  """
  places = {(*sides(r), width_of(r)): number for number, r in enumerate(at_widths(config))}
  network = rematerialised(model, config.remat)

  def apply(variables: Any, images: Array, train: bool, **options: Any) -> tuple[Array, Any]:
    here = places[images.shape[1], images.shape[2], options.get('width', 1.0)]
    if here == place and said is not None:
      out, variables = run(network, variables, images, train, **options)
      said.append(out)
      return out, variables
    if logits[here] is not None:
      return logits[here], variables
    like = jax.eval_shape(lambda v, x: run(model, v, x, False, None, options.get('width', 1.0))[0], variables, images)
    return jnp.zeros(like.shape, like.dtype), variables

  return apply
