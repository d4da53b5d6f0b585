"""What runs a network's programs: the small interface that the engine needs, and XLA's implementation of it."""

import itertools
import math
import os
import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from resjax import compiling, preprocess, switchable

AXIS = 'data'


class Runtime(Protocol):
  """One network, as programs of closed shapes: crops `[b, H, W, 3]` to logits `[b, K]` at a resolution.

  Attributes:
    resolutions: Highest first, in pixels, of squares or (height, width); a place is an index into them.
    shape: Of a crop, (H, W, 3).
    num_classes: K.
    multiple: Every bucket is a multiple of this: the devices that share it.
    identity: What a program's time depends on, as JSON: machine, versions, network, dtype.
  """

  resolutions: tuple[switchable.Resolution, ...]
  shape: tuple[int, int, int]
  num_classes: int
  multiple: int
  identity: dict[str, Any]

  def compile(self, buckets: Sequence[int]) -> None:
    """Makes the program of every resolution and bucket; afterwards nothing else is ever compiled."""

  def put(self, images: np.ndarray | jax.Array) -> Any:
    """Returns crops, uint8 `[N, H, W, 3]`, N at most the largest bucket, where `dispatch` takes rows from them."""

  def dispatch(self, batch: Any, place: int, bucket: int, rows: np.ndarray) -> Any:
    """Starts one program, without waiting for it where the runtime can.

    Args:
      batch: What `put` has returned.
      place: Of the resolution.
      bucket: The program's batch size.
      rows: int `[n]`, n <= bucket, of the batch; the runtime fills the other rows as it likes.

    Returns:
      What `numpy.asarray` turns into logits, float32 `[bucket, K]`; those after the n-th mean nothing.
    """


class XlaRuntime:
  """The plain network at each of its resolutions, compiled by XLA for this host's devices.

  A program holds the resizing from the crop, the normalisation, and the network with that resolution's BatchNorm in
  inference mode. One accelerator holds a batch of crops from `put` on, and takes each group's rows there; on a CPU, and
  where several devices share every bucket, they are taken on the host.
  """

  def __init__(
    self,
    model: nn.Module,
    variables: switchable.Variables,
    resolutions: Sequence[switchable.Resolution],
    *,
    normalize: str,
    size: switchable.Resolution | None = None,
    dtype: str | None = None,
    devices: Sequence[jax.Device] | None = None,
    resident: bool | None = None,
  ):
    """Puts the variables on the devices; compiles nothing.

    Args:
      model: A plain network.
      variables: As `switchable.share` returns them, with normalisers for every one of the resolutions.
      resolutions: In pixels, of squares or (height, width); the largest area first.
      normalize: A key of `preprocess.NORMALIZATIONS`.
      size: Of the crops in pixels, of squares or (height, width); None: the highest resolution.
      dtype: Of the computation, 'float32' or 'bfloat16'; None: the model's own.
      devices: Of this process; None: all of them.
      resident: The batch stays on the device from `put` on, for one device alone; None: where that is an accelerator.

    Raises:
      ValueError: A resolution is not positive, not below the one before it or without normalisers; or another
        argument is none of those named.
    """
    areas = [math.prod(_sides(r)) for r in resolutions]
    if not areas or min(areas) < 1 or any(low >= high for high, low in itertools.pairwise(areas)):
      raise ValueError(f'resolutions: got {tuple(resolutions)}, expected positive pixels, the highest first')
    if normalize not in preprocess.NORMALIZATIONS:
      raise ValueError(f'normalize: got {normalize!r}, expected one of {", ".join(preprocess.NORMALIZATIONS)}')
    if dtype not in (None, 'float32', 'bfloat16'):
      raise ValueError(f"dtype: got {dtype!r}, expected 'float32' or 'bfloat16'")
    self.model = model if dtype is None else model.clone(dtype=dtype)
    self.resolutions = tuple(resolutions)
    self.shape = (*_sides(size or self.resolutions[0]), 3)
    self.normalize = normalize
    self.devices = list(devices or jax.local_devices())
    self.multiple = len(self.devices)
    self.resident = self.devices[0].platform != 'cpu' and self.multiple == 1 if resident is None else resident
    if self.resident and self.multiple > 1:
      raise ValueError(f'resident: got True for {self.multiple} devices, expected one')
    mesh = jax.make_mesh((self.multiple,), (AXIS,), axis_types=(AxisType.Auto,), devices=self.devices)
    self._replicated, self._split = NamedSharding(mesh, P()), NamedSharding(mesh, P(AXIS))
    placed = jax.device_put(variables, self._replicated)  # before the views, which share its arrays
    self._views = [switchable.view(placed, r) for r in self.resolutions]
    self._programs: dict[tuple[int, int], Any] = {}  # by place and bucket
    self._takes: dict[tuple[int, int], Any] = {}  # resident: by the batch's images and bucket
    self.num_classes = jax.eval_shape(self._forward(0), self._views[0], self._images(self.multiple)).shape[-1]

  @property
  def identity(self) -> dict[str, Any]:
    """What a program's time depends on: machine, versions, network, dtype."""
    return {
      'runtime': 'xla',
      'jax': jax.__version__,
      'device': self.devices[0].device_kind,
      'devices': self.multiple,
      'processors': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
      'machine': _processor(),
      'network': repr(self.model),
      'parameters': sum(x.size for x in jax.tree.leaves(self._views[0])),
      'crop': list(self.shape),
      'resident': self.resident,
    }

  def compile(self, buckets: Sequence[int]) -> None:
    """Makes the program of every resolution and bucket, in threads."""
    programs = [key for key in itertools.product(range(len(self.resolutions)), buckets) if key not in self._programs]
    takes = [key for key in itertools.product(buckets, buckets) if self.resident and key not in self._takes]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
      self._takes.update(zip(takes, pool.map(lambda key: self._compile_take(*key), takes)))
      self._programs.update(zip(programs, pool.map(lambda key: self._compile(*key), programs)))

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
    logits = self._programs[place, bucket](self._views[place], images)
    logits.copy_to_host_async()
    return logits

  def _images(self, bucket):
    return jax.ShapeDtypeStruct((bucket, *self.shape), jnp.uint8, sharding=self._split)

  def _forward(self, place):
    """The whole of a program: crops uint8 [b, H, W, 3] to logits float32 [b, K]."""

    def forward(variables, images):
      (inputs,) = preprocess.prepare((images,), (self.resolutions[place],), self.normalize)
      return self.model.apply(variables, inputs, train=False).astype(jnp.float32)

    return forward

  def _compile(self, place, bucket):
    forward = jax.shard_map(self._forward(place), mesh=self._split.mesh, in_specs=(P(), P(AXIS)), out_specs=P(AXIS))
    program = jax.jit(forward, compiler_options=compiling.options(self.devices[0].platform, 'inference'))
    return program.lower(self._views[place], self._images(bucket)).compile()

  def _compile_take(self, count, bucket):
    """The program that takes `bucket` rows from a resident batch of `count`."""
    rows = jax.ShapeDtypeStruct((bucket,), jnp.int32, sharding=self._split)
    take = jax.jit(lambda images, rows: images.at[rows].get(mode='promise_in_bounds'), out_shardings=self._split)
    return take.lower(self._images(count), rows).compile()


def _sides(resolution: switchable.Resolution) -> tuple[int, int]:
  """The height and width of a resolution, pixels."""
  return resolution if isinstance(resolution, tuple) else (resolution, resolution)


@cache
def _processor() -> str:
  """The processor's name, where the system tells it, else its kind."""
  try:
    with open('/proc/cpuinfo') as file:
      names = [line.split(':', 1)[1].strip() for line in file if line.startswith('model name')]
  except OSError:
    names = []
  return names[0] if names else platform.processor() or platform.machine()
