"""Every device of every host under one mesh, and two ways to put a step's body on it: shard_map and pmap."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from resjax import compiling, moved
from resjax.training.step import AXIS

PARALLEL = ('shard_map', 'pmap')


def placed(tree: Any, sharding: Sharding) -> Any:
  """Returns the shapes and types of a tree of arrays, all with one sharding."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


class Devices:
  """All devices as one mesh axis 'data'; a batch is split over them, a state stands whole on each."""

  def __init__(self, parallel: str = 'shard_map', devices: list[jax.Device] | None = None):
    """Makes the mesh.

    Args:
      parallel: 'shard_map' or 'pmap': the same numbers.
      devices: To use fewer than all.

    Raises:
      ValueError: `parallel` is neither, or 'pmap' on several hosts.
    """
    if parallel not in PARALLEL:
      raise ValueError(f'parallel: got {parallel!r}, expected one of {", ".join(PARALLEL)}')
    if parallel == 'pmap' and jax.process_count() > 1:
      raise ValueError(f"parallel: got 'pmap' on {jax.process_count()} hosts, expected 'shard_map'")
    self.parallel = parallel
    self.devices = devices or jax.devices()
    self.mesh = jax.make_mesh((len(self.devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=self.devices)
    self.replicated = NamedSharding(self.mesh, P())
    self.split = NamedSharding(self.mesh, P(AXIS))
    self.platform = self.devices[0].platform

  def create(self, make: Callable[..., Any], *args: Any) -> Any:
    """Returns `make(*args)`, computed under jit and standing whole on every device, each array in its own buffer."""
    quick = compiling.quick(self.platform)
    return jax.jit(make, out_shardings=self.replicated, compiler_options=quick)(*args)

  def shapes(self, make: Callable[..., Any], *args: Any) -> Any:
    """Returns what `create` would, as shapes, types and places; nothing is computed."""
    return placed(jax.eval_shape(make, *args), self.replicated)

  def alone_note(self, config: ConfigDict) -> str | None:
    """Returns a line for the user where BatchNorm learns from one image at a time; else None.

    Args:
      config: Reads `batch_size`, `sync_batch_norm`, `method`, `optimizer.statistics`, `drnet` and `model.name`.
    """
    count = len(self.devices)
    synchronised = config.sync_batch_norm and count > 1
    # Where images are sent to resolutions, running statistics fill up what few images say.
    filled = config.method == 'drnet' and (config.drnet.frozen or config.drnet.statistics == 'sent')
    kept = config.optimizer.statistics == 'kept' or filled
    if config.batch_size > count or synchronised or kept or ':' in config.model.name:
      return None
    each, instead = ('each device', ', or config.sync_batch_norm=True') if count > 1 else ('it', '')
    return (
      f'config.batch_size: {config.batch_size} on {count} device{"s" * (count > 1)}: BatchNorm learns from one image '
      f'at a time, of which a map of one pixel says nothing; expected two images or more on {each}{instead}'
    )

  def put(self, batch: Any) -> Any:
    """Returns this host's part of a batch, split over its devices along the leading axis."""
    if self.parallel == 'pmap':
      n = sum(d.process_index == jax.process_index() for d in self.devices)
      return jax.tree.map(lambda x: x.reshape(n, x.shape[0] // n, *x.shape[1:]), batch)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(self.split, x), batch)

  def train(self, body: Callable[..., Any], given: int = 0) -> Callable[..., Any]:
    """Returns `step(state, batch, *given) -> state, metrics` over all devices; the old state's memory is reused.

    Args:
      body: Of one device.
      given: How many arguments follow the batch; they stand whole on each device.
    """
    return self._compile(body, P(), donate=(0,), whole=given)

  def eval(self, body: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `step(variables, batch)`, numpy arrays [B, ...] over all devices: this host's rows, in order."""
    step = self._compile(body, P(AXIS), donate=())

    def rows(array: jax.Array) -> np.ndarray:
      shards = sorted(array.addressable_shards, key=lambda s: s.index[0].start or 0)
      out = np.concatenate([np.asarray(s.data) for s in shards])
      return out.reshape(-1, *out.shape[2:]) if self.parallel == 'pmap' else out

    return lambda variables, batch: jax.tree.map(rows, step(variables, batch))

  def answer(self, body: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `f(fixed, batch)` over all devices: arrays [B, ...] that stay there, split as a batch is."""
    return self._compile(body, P(AXIS), donate=())

  def _compile(self, body: Callable[..., Any], out: P, donate: tuple[int, ...], whole: int = 0) -> Callable[..., Any]:
    if self.parallel == 'pmap':
      out_axes = 0 if out == P(AXIS) else None
      return jax.pmap(
        body,
        AXIS,
        in_axes=(None, 0, *[None] * whole),
        out_axes=out_axes,
        donate_argnums=donate,
        devices=self.devices,
      )
    mapped = jax.shard_map(body, mesh=self.mesh, in_specs=(P(), P(AXIS), *[P()] * whole), out_specs=out)
    return jax.jit(mapped, donate_argnums=donate, compiler_options=compiling.options(self.platform, 'training'))


moved.tell(globals())
