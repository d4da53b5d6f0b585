"""TPU topologies to compile for, on a machine without a TPU: their names, their chips."""

import dataclasses
import importlib.util
import math
import os

import jax

GIB = 2**30

# Share of the peak rate that is assumed where none is given: published trainings of ResNet-50 reach 0.2 to 0.4.
UTILIZATION = 0.4


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip, by Google's documentation of Cloud TPU (docs.cloud.google.com/tpu/docs/v5e, v5p, v6e).

  Attributes:
    memory: Of its HBM, bytes that a program may use: what the compiler of libtpu 0.0.42 says where one needs more.
    peak: Multiply-adds per second in bfloat16: half of the FLOPS in the documentation.
    unit: What the number in a topology's name counts on a chip: v5p-512 is 256 chips of two TensorCores.
    grids: Shapes of slices, as libtpu names them.
  """

  memory: int
  peak: float
  unit: int
  grids: tuple[str, ...]


_FLAT = ('2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_CUBES = ('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8', '8x8x8', '8x8x16', '8x16x16')
CHIPS = {
  'v5e': Chip(round(15.75 * GIB), 197e12 / 2, 1, _FLAT),
  'v5p': Chip(round(95.74 * GIB), 459e12 / 2, 2, _CUBES),
  'v6e': Chip(round(31.25 * GIB), 918e12 / 2, 1, _FLAT),
}


# The names that a plan knows, as in `v5e-256`, and what libtpu calls them, as in `v5e:16x16`.
NAMES = {
  f'{name}-{chip.unit * math.prod(map(int, grid.split("x")))}': f'{name}:{grid}'
  for name, chip in CHIPS.items()
  for grid in chip.grids
}


def chip_of(topology: str) -> Chip:
  """Returns the chip that a topology is made of.

  Raises:
    ValueError: The topology is unknown.
  """
  if topology not in NAMES:
    raise ValueError(f'--topology: got {topology!r}, expected one of {", ".join(NAMES)}')
  return CHIPS[topology.split('-')[0]]


def chips_of(topology: str) -> int:
  """Returns the number of chips in a topology, a key of NAMES."""
  return math.prod(map(int, NAMES[topology].split(':')[1].split('x')))


def devices_of(topology: str) -> list[jax.Device]:
  """Returns the chips of a topology as devices to compile for.

  Args:
    topology: A key of NAMES.

  Raises:
    ValueError: The topology is unknown.
    OSError: libtpu is not installed or does not start.
  """
  chip_of(topology)
  if importlib.util.find_spec('libtpu') is None and not os.environ.get('TPU_LIBRARY_PATH'):
    raise OSError("libtpu: not installed, expected XLA's compiler for TPUs: pip install -e '.[tpu]'")
  # No TPU is asked for: none is looked for, and several plans may be made at a time.
  os.environ |= {'TPU_SKIP_MDS_QUERY': '1', 'ALLOW_MULTIPLE_LIBTPU_LOAD': '1'}
  for name, value in {'TPU_ACCELERATOR_TYPE': 'v5litepod-8', 'TPU_WORKER_HOSTNAMES': 'localhost'}.items():
    os.environ.setdefault(name, value)  # libtpu prints lines about what it can't find; the topology is its name's
  from jax.experimental import topologies

  try:
    return list(topologies.get_topology_desc(NAMES[topology], 'tpu').devices)
  except jax.errors.JaxRuntimeError as error:
    raise OSError(f'libtpu: {str(error).splitlines()[0]}') from None
