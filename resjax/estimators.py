"""Two ways to train through a choice of resolution.

`dense` runs every resolution on every image. Images of several sizes cannot be added, so what is mixed are the logits,
`z = sum_j h_j z_j` with the one-hot choice h, and the choice learns from `dL/dh_j = <dL/dz, z_j>`. `routed` runs each
image at its own resolution alone, within fixed capacities, and the choice learns from the loss there (`credit`). In
both, a resolution's batch statistics count the images that were sent to it and no others, unless `dense` is told else.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.lax import stop_gradient

from resjax import switchable
from resjax.apply import Apply
from resjax.resolution import Resolution, name
from resjax.routing.random import mix


def dense(
  model: nn.Module | Apply,
  variables: switchable.Variables,
  images: Sequence[Array],
  resolutions: Sequence[Resolution],
  choice: Array,
  *,
  train: bool,
  count_all: bool = False,
) -> tuple[Array, Any]:
  """Returns the logits of the chosen resolutions `[B, K]`, every resolution run on every image, and new batch_stats.

  Args:
    model: A plain network.
    variables: As `switchable.share` returns them.
    images: `[B, r, r, 3]` per resolution.
    resolutions: In the order of `images`.
    choice: One-hot `[B, R]`; gets a gradient in every entry.
    train: Whether BatchNorm takes and updates the statistics of the routed images.
    count_all: They are of all images at each resolution instead.
  """
  mask = list(stop_gradient(choice).T) if train and not count_all else None
  logits, batch_stats = switchable.forward(model, variables, images, resolutions, train=train, mask=mask)
  return (choice.T[..., None] * logits).sum(0), batch_stats


def routed(
  model: nn.Module | Apply,
  variables: switchable.Variables,
  images: Sequence[Array],
  resolutions: Sequence[Resolution],
  choice: Array,
  capacities: Sequence[int],
  *,
  train: bool,
) -> tuple[Array, Any, Array]:
  """Returns the logits `[B, K]`, every image run at one resolution, the new batch_stats, and where each image was run.

  Args:
    model: A plain network.
    variables: As `switchable.share` returns them.
    images: `[B, r, r, 3]` per resolution.
    resolutions: In the order of `images`.
    choice: One-hot `[B, R]`; gets no gradient here, see `credit`.
    capacities: How many images each resolution runs, of this device's B; together at least B.
    train: Whether BatchNorm takes and updates the statistics of the routed images.

  Returns:
    Logits, batch_stats, and int32 `[B]`: the place in `resolutions` of the one that was run.
  """
  size = choice.shape[0]
  ran = assign(choice.argmax(-1), capacities)
  batch_stats = variables['batch_stats']
  every: Array | None = None
  for j, (resolution, capacity) in enumerate(zip(resolutions, capacities, strict=True)):
    rows = jnp.nonzero(ran == j, size=capacity, fill_value=size)[0]
    inputs = jnp.take(images[j], rows, axis=0, mode='fill', fill_value=0)
    logits, batch_stats = switchable.forward(
      model,
      variables | {'batch_stats': batch_stats},
      [inputs],
      [resolution],
      train=train,
      mask=[rows < size] if train else None,
    )
    before = jnp.zeros((size, logits.shape[-1]), logits.dtype) if every is None else every
    every = before.at[rows].set(logits[0], mode='drop')
  assert every is not None
  return every, batch_stats, ran


def credit(choice: Array, loss: Array, ran: Array, axis_name: str | None = None) -> Array:
  """Returns 0, whose gradient tells the choice of `routed` what each resolution is worth: add it to the loss.

  The derivative by `choice[i, j]` is `loss_i / B` where image i was run at j. Elsewhere that loss is not known, and the
  mean over the images that were run at j stands in for it (over all images where none was). `<dL/dz, z>`, which is what
  the dense choice learns from, can't be compared between images: it vanishes for those that are right and sure of it.

  Args:
    choice: `[B, R]`.
    loss: `[B]`, of each image at the resolution that was run.
    ran: int `[B]`, that resolution.
    axis_name: The named axis of the devices, over which the means are taken, or None for one device.
  """
  here = jax.nn.one_hot(ran, choice.shape[-1], dtype=loss.dtype)
  total, images = (here * loss[:, None]).sum(0), here.sum(0)
  if axis_name:
    total, images = jax.lax.psum((total, images), axis_name)
  mean = jnp.where(images > 0, total / jnp.maximum(images, 1), total.sum() / images.sum())
  worth = here * loss[:, None] + (1 - here) * mean[None]
  return ((choice - stop_gradient(choice)) * stop_gradient(worth)).sum() / loss.shape[0]


def assign(wanted: Array, capacities: Sequence[int]) -> Array:
  """Returns where each image is run, int32 `[B]`: where it wants to be, as far as there is room.

  Who finds no room goes to the next higher resolution that has some left by its own, from the top on to the next lower.

  Args:
    wanted: int `[B]`, 0 for the highest resolution.
    capacities: Room at each resolution, highest first; together at least B.
  """
  ran = jnp.full(wanted.shape, -1, jnp.int32)
  waiting = jnp.zeros(wanted.shape, bool)
  room: list[Array | int] = []
  for j in reversed(range(len(capacities))):
    ran, waiting, left = _fill(ran, wanted == j, waiting, j, capacities[j])
    room.insert(0, left)
  nobody = jnp.zeros(wanted.shape, bool)
  for j in range(1, len(capacities)):
    ran, waiting, _ = _fill(ran, nobody, waiting, j, room[j])
  return ran


def _fill(ran: Array, wants: Array, waiting: Array, j: int, room: Array | int) -> tuple[Array, Array, Array]:
  """Places those who want j, then those who wait, while there is room: ran, who waits now, and the room left."""
  place = jnp.where(wants, wants.cumsum(), wants.sum() + waiting.cumsum())
  here = (wants | waiting) & (place <= room)
  return jnp.where(here, j, ran), (wants | waiting) & ~here, room - here.sum()


def capacities(size: int, costs: Sequence[float], budget: float, margin: float) -> tuple[int, ...]:
  """Returns how many of `size` images each resolution has room for.

  Expected is the mix that meets the budget and supposes nothing else, `share_j ~ exp(-b C_j)`, with at least half of an
  equal share for each resolution; room is `margin` times that.

  Args:
    size: Images on this device.
    costs: Of one image at each resolution, highest first.
    budget: Mean cost of an image, in the same unit.
    margin: 1 or more.
  """
  scaled = np.asarray(costs, float) / max(costs)
  target = min(max(budget / max(costs), scaled.min()), 1.0)
  low, high = -1e3, 1e3
  for _ in range(100):
    middle = (low + high) / 2
    low, high = (middle, high) if mix(scaled, middle) @ scaled > target else (low, middle)
  expected = np.maximum(mix(scaled, high), 0.5 / len(costs))
  return tuple(int(n) for n in np.minimum(np.ceil(size * margin * expected - 1e-9), size))


def weigh(old: Any, new: Any, counts: Array, resolutions: Sequence[Resolution], axis_name: str | None) -> Any:
  """Returns batch_stats whose plain mean over devices weighs each device by the images it sent to a resolution.

  A device that sent none weighs nothing; where none did, the old statistics stand. A set that serves all resolutions is
  returned as it is.

  Args:
    old: batch_stats before the step.
    new: batch_stats of this device after it.
    counts: `[R]`, this device's images per resolution.
    resolutions: In the order of `counts`.
    axis_name: The named axis of the devices, or None for one device.
  """
  if axis_name is None:
    return new
  total = jax.lax.psum(counts, axis_name)
  weights = jnp.where(total > 0, counts * jax.lax.axis_size(axis_name) / jnp.maximum(total, 1), 0)
  result = dict(new)
  for j, resolution in enumerate(resolutions):
    key = name(resolution)
    if key in new:
      w = weights[j]
      result[key] = jax.tree.map(lambda a, b, w=w: (1 - w) * a + w * b, old[key], new[key])
  return result
