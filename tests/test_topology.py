"""The pods that a plan knows: names, chips, and libtpu's devices without a TPU."""

import sys
import types

import jax
import pytest

from resjax.planning import topology

GIB = 2**30


@pytest.mark.parametrize(
  ('name', 'libtpu', 'chips', 'memory'),
  [
    ('v5e-8', 'v5e:2x4', 8, 15.75),
    ('v5e-256', 'v5e:16x16', 256, 15.75),
    ('v5p-8', 'v5p:2x2x1', 4, 95.74),
    ('v5p-512', 'v5p:4x8x8', 256, 95.74),  # 512 TensorCores
    ('v6e-16', 'v6e:4x4', 16, 31.25),
  ],
)
def test_names_of_topologies(name, libtpu, chips, memory):
  assert topology.NAMES[name] == libtpu
  assert topology.chips_of(name) == chips
  assert topology.chip_of(name).memory == round(memory * GIB)


@pytest.mark.parametrize('name', ['v5e-12', 'v5p-4', 'v5e', '', 'v4-8'])
def test_an_unknown_topology_is_one_line_with_the_known(name):
  with pytest.raises(ValueError, match=rf"^--topology: got '{name}', expected one of v5e-4, v5e-8, .*v5p-512") as error:
    topology.devices_of(name)
  assert '\n' not in str(error.value)


def test_every_name_is_one_shape_of_one_chip():
  """The number in a name counts what the chip's documentation does, and no name stands for two shapes."""
  assert len(topology.NAMES) == sum(len(chip.grids) for chip in topology.CHIPS.values())
  for name in topology.NAMES:
    assert topology.chips_of(name) * topology.chip_of(name).unit == int(name.split('-')[1])


@pytest.fixture
def libtpu(monkeypatch):
  """Stands for the compiler: the calls that it gets, and a failure where one is set."""
  seen = types.SimpleNamespace(asked=[], error=None)

  def get_topology_desc(*arguments):
    seen.asked.append(arguments)
    if seen.error:
      raise seen.error
    return types.SimpleNamespace(devices=('chip 0', 'chip 1'))

  stand_in = types.SimpleNamespace(get_topology_desc=get_topology_desc)
  monkeypatch.setitem(sys.modules, 'jax.experimental.topologies', stand_in)
  monkeypatch.setattr(jax.experimental, 'topologies', stand_in, raising=False)
  environ = {'TPU_LIBRARY_PATH': '/libtpu.so', 'TPU_ACCELERATOR_TYPE': 'mine'}
  monkeypatch.setattr(topology, 'os', types.SimpleNamespace(environ=environ))
  return seen


def test_the_compiler_is_asked_for_its_own_name_and_looks_for_no_tpu(libtpu):
  assert topology.devices_of('v5p-8') == ['chip 0', 'chip 1']
  assert libtpu.asked == [('v5p:2x2x1', 'tpu')]
  assert topology.os.environ == {
    'TPU_LIBRARY_PATH': '/libtpu.so',
    'TPU_ACCELERATOR_TYPE': 'mine',  # what stands there stays
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_SKIP_MDS_QUERY': '1',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  }


def test_a_compiler_that_does_not_start_is_one_line(libtpu):
  libtpu.error = jax.errors.JaxRuntimeError('UNAVAILABLE: no such file\nTraceback: ...')
  with pytest.raises(OSError, match=r'^libtpu: UNAVAILABLE: no such file$'):
    topology.devices_of('v5e-8')
