"""XLA as a runtime: programs compiled ahead of time for this host's devices."""

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from resjax import compiling
from resjax.inference.programs import Program
from resjax.inference.runtime import Identity, processor, processors

AXIS = 'data'


class XlaRuntime:
  """Programs of one network, compiled by XLA; see `Runtime` for its attributes.

  One accelerator holds a batch of crops from `put` on, and takes each group's rows there; on a CPU, and where several
  devices share every bucket, they are taken on the host.
  """

  def __init__(
    self,
    programs: Sequence[Program],
    *,
    devices: Sequence[jax.Device] | None = None,
    resident: bool | None = None,
  ):
    """Puts the variables on the devices; compiles nothing.

    Args:
      programs: From the same crops; the largest resolution first.
      devices: Of this process; None: all of them.
      resident: The batch stays on the device from `put` on, for one device alone; None: where that is an accelerator.

    Raises:
      ValueError: There are no programs, or they take other crops; or `resident` is wanted of several devices.
    """
    if not programs or len({(program.shape, program.num_classes) for program in programs}) > 1:
      shapes = [program.shape for program in programs]
      raise ValueError(f'programs: got {len(programs)} of crops {shapes}, expected one or more, of the same crops')
    self.resolutions = tuple(program.resolution for program in programs)
    self.shape, self.num_classes = programs[0].shape, programs[0].num_classes
    self.devices = list(devices or jax.local_devices())
    self.multiple = len(self.devices)
    self.resident = self.devices[0].platform != 'cpu' and self.multiple == 1 if resident is None else resident
    if self.resident and self.multiple > 1:
      raise ValueError(f'resident: got True for {self.multiple} devices, expected one')
    mesh = jax.make_mesh((self.multiple,), (AXIS,), axis_types=(AxisType.Auto,), devices=self.devices)
    self._replicated, self._split = NamedSharding(mesh, P()), NamedSharding(mesh, P(AXIS))
    self._programs = tuple(programs)
    self._variables = _placed([program.variables for program in programs], self._replicated)
    self._executables: dict[tuple[int, int], Any] = {}  # by place and bucket
    self._takes: dict[tuple[int, int], Any] = {}  # resident: by the batch's images and bucket

  @property
  def identity(self) -> Identity:
    """What a program's time depends on."""
    return Identity(
      runtime=f'xla, jax {jax.__version__}{", resident" if self.resident else ""}',
      machine=processor(),
      processors=processors(),
      device=self.devices[0].device_kind,
      devices=self.multiple,
      programs=self._programs[0].description,
      dtype=self._programs[0].dtype,
      crop=self.shape,
    )

  @property
  def compiled(self) -> int:
    """How many programs were compiled."""
    return len(self._executables) + len(self._takes)

  def compile(self, buckets: Sequence[int]) -> None:
    """Makes the program of every resolution and bucket, in threads."""
    keys = [key for key in itertools.product(range(len(self.resolutions)), buckets) if key not in self._executables]
    takes = [key for key in itertools.product(buckets, buckets) if self.resident and key not in self._takes]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
      self._takes.update(zip(takes, pool.map(lambda key: self._compile_take(*key), takes)))
      self._executables.update(zip(keys, pool.map(lambda key: self._compile(*key), keys)))

  def put(self, images: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
    """Returns the crops where rows are taken from them.

    A resident batch is padded to a bucket's size on the host; one of such a size that is on the device stays there.
    """
    if not self.resident:
      return np.asarray(images)
    size = min(count for count, _ in self._takes if count >= len(images))
    if len(images) < size:
      images = np.concatenate([np.asarray(images), np.zeros((size - len(images), *self.shape), np.uint8)])
    return jax.device_put(images, self._split)

  def dispatch(self, batch: np.ndarray | jax.Array, place: int, bucket: int, rows: np.ndarray) -> jax.Array:
    """Starts one program; rows that pad are copies of the first."""
    padded = np.full(bucket, rows[0], np.int32)
    padded[: len(rows)] = rows
    if self.resident:
      images = self._takes[len(batch), bucket](batch, jax.device_put(padded, self._split))
    else:
      images = jax.device_put(batch[padded], self._split)
    logits = self._executables[place, bucket](self._variables[place], images)
    logits.copy_to_host_async()
    return logits

  def _crops(self, bucket: int) -> jax.ShapeDtypeStruct:
    """A bucket's crops, as a shape."""
    return jax.ShapeDtypeStruct((bucket, *self.shape), jnp.uint8, sharding=self._split)

  def _compile(self, place: int, bucket: int) -> Any:
    """The executable of one program and bucket."""
    mesh = self._split.mesh
    forward = jax.shard_map(self._programs[place].forward, mesh=mesh, in_specs=(P(), P(AXIS)), out_specs=P(AXIS))
    program = jax.jit(forward, compiler_options=compiling.options(self.devices[0].platform, 'inference'))
    return program.lower(self._variables[place], self._crops(bucket)).compile()

  def _compile_take(self, count: int, bucket: int) -> Any:
    """What takes `bucket` rows from a resident batch of `count`."""
    rows = jax.ShapeDtypeStruct((bucket,), jnp.int32, sharding=self._split)
    take = jax.jit(lambda images, rows: images.at[rows].get(mode='promise_in_bounds'), out_shardings=self._split)
    return take.lower(self._crops(count), rows).compile()


def _placed(trees: list[Any], sharding: NamedSharding) -> list[Any]:
  """The trees on the devices; an array that several of them share is there once."""
  leaves = {id(leaf): leaf for leaf in jax.tree.leaves(trees)}
  there = dict(zip(leaves, jax.device_put(list(leaves.values()), sharding)))
  return jax.tree.map(lambda leaf: there[id(leaf)], trees)
