"""What runs a network's programs: the small interface that the engine needs, and XLA's implementation of it."""

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

from resjax import preprocess, switchable

AXIS = 'data'

# XLA's CPU compiler is slow where it hands convolutions and reductions to YNNPACK's fusions.
CPU_OPTION = 'xla_cpu_experimental_ynn_fusion_type'


class Runtime(Protocol):
  """One network, as programs of closed shapes: `[b, S, S, 3]` crops to `[b, K]` logits at a resolution.

  Attributes:
    resolutions: Highest first, in pixels; a place is an index into them.
    size: Of the crops, S pixels.
    num_classes: K.
    multiple: Every bucket is a multiple of this: the devices that share it.
    identity: What a program's time depends on, as JSON: machine, versions, network, dtype.
  """

  resolutions: tuple[int, ...]
  size: int
  num_classes: int
  multiple: int
  identity: dict[str, Any]

  def compile(self, buckets: Sequence[int]) -> None:
    """Makes the program of every resolution and bucket; afterwards nothing else is ever compiled."""

  def put(self, images: np.ndarray | jax.Array) -> Any:
    """Returns crops, uint8 `[N, S, S, 3]`, N at most the largest bucket, where `dispatch` takes rows from them."""

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
  inference mode. Where there are several devices, every bucket is shared among them.
  """

  def __init__(
    self,
    model: nn.Module,
    variables: switchable.Variables,
    resolutions: Sequence[int],
    *,
    normalize: str,
    size: int | None = None,
    dtype: str | None = None,
    devices: Sequence[jax.Device] | None = None,
  ):
    """Puts the variables on the devices; compiles nothing.

    Args:
      model: A plain network.
      variables: As `switchable.share` returns them, with normalisers for every one of the resolutions.
      resolutions: Highest first.
      normalize: A key of `preprocess.NORMALIZATIONS`.
      size: Of the crops in pixels; None: the highest resolution.
      dtype: Of the computation, 'float32' or 'bfloat16'; None: the model's own.
      devices: Of this process; None: all of them.

    Raises:
      ValueError: A resolution is no positive integer, not below the one before it or without normalisers; or another
        argument is none of those named.
    """
    switchable.check_resolutions(resolutions)
    if list(resolutions) != sorted(resolutions, reverse=True):
      raise ValueError(f'resolutions: got {tuple(resolutions)}, expected the highest first')
    if normalize not in preprocess.NORMALIZATIONS:
      raise ValueError(f'normalize: got {normalize!r}, expected one of {", ".join(preprocess.NORMALIZATIONS)}')
    if dtype not in (None, 'float32', 'bfloat16'):
      raise ValueError(f"dtype: got {dtype!r}, expected 'float32' or 'bfloat16'")
    self.model = model if dtype is None else model.clone(dtype=dtype)
    self.resolutions = tuple(resolutions)
    self.size = size or self.resolutions[0]
    self.normalize = normalize
    self.devices = list(devices or jax.local_devices())
    self.multiple = len(self.devices)
    mesh = jax.make_mesh((self.multiple,), (AXIS,), axis_types=(AxisType.Auto,), devices=self.devices)
    self._replicated, self._split = NamedSharding(mesh, P()), NamedSharding(mesh, P(AXIS))
    views = [switchable.view(variables, r) for r in self.resolutions]
    self._views = jax.device_put(views, self._replicated)
    self._programs: dict[tuple[int, int], Any] = {}
    self.num_classes = jax.eval_shape(self._forward(0), views[0], self._images(1)).shape[-1]

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
      'size': self.size,
    }

  def compile(self, buckets: Sequence[int]) -> None:
    """Makes the program of every resolution and bucket, in threads."""
    missing = [(p, b) for p in range(len(self.resolutions)) for b in buckets if (p, b) not in self._programs]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
      self._programs.update(zip(missing, pool.map(lambda key: self._compile(*key), missing)))

  def put(self, images: np.ndarray | jax.Array) -> np.ndarray:
    """Returns the crops on the host: rows are taken there, and each group travels once."""
    return np.asarray(images)

  def dispatch(self, batch: np.ndarray, place: int, bucket: int, rows: np.ndarray) -> jax.Array:
    """Starts one program; rows that pad are copies of the first."""
    padded = np.full(bucket, rows[0])
    padded[: len(rows)] = rows
    images = jax.device_put(batch[padded], self._split)
    return self._programs[place, bucket](self._views[place], images)

  def _images(self, bucket):
    return jax.ShapeDtypeStruct((bucket, self.size, self.size, 3), jnp.uint8)

  def _forward(self, place):
    """The whole of a program: crops uint8 [b, S, S, 3] to logits float32 [b, K]."""

    def forward(variables, images):
      (inputs,) = preprocess.prepare((images,), (self.resolutions[place],), self.normalize)
      return self.model.apply(variables, inputs, train=False).astype(jnp.float32)

    return forward

  def _compile(self, place, bucket):
    forward = jax.shard_map(self._forward(place), mesh=self._split.mesh, in_specs=(P(), P(AXIS)), out_specs=P(AXIS))
    program = jax.jit(forward, compiler_options=compiler_options(self.devices[0].platform))
    images = jax.ShapeDtypeStruct(self._images(bucket).shape, jnp.uint8, sharding=self._split)
    return program.lower(self._views[place], images).compile()


@cache
def compiler_options(kind: str) -> dict[str, str]:
  """Returns what inference is compiled with: on CPU, without XLA's slow fusions.

  Empty on other devices, where the user has set the flag in XLA_FLAGS, or where this XLA does not know it.
  """
  if kind != 'cpu' or CPU_OPTION in os.environ.get('XLA_FLAGS', ''):
    return {}
  options = {CPU_OPTION: ''}
  try:
    jax.jit(lambda x: x + 1, compiler_options=options).lower(0.0).compile()
  except jax.errors.JaxRuntimeError:
    return {}
  return options


@cache
def _processor() -> str:
  """The processor's name, where the system tells it, else its kind."""
  try:
    with open('/proc/cpuinfo') as file:
      names = [line.split(':', 1)[1].strip() for line in file if line.startswith('model name')]
  except OSError:
    names = []
  return names[0] if names else platform.processor() or platform.machine()
