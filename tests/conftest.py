"""Eight virtual CPU devices, quick compilation, strict promotion, files in memory: set before jax starts."""

import functools
import gc
import importlib.metadata
import os
import pathlib
import tempfile

CACHE = os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR', str(pathlib.Path(tempfile.gettempdir()) / f'resjax-test-cache-{os.getuid()}')
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.01')
# Checkpoints are many small files: a run's tests are quicker by a seventh where those are never written to a disk.
MEMORY = pathlib.Path('/dev/shm')
if 'TMPDIR' not in os.environ and MEMORY.is_dir():
  room = os.statvfs(MEMORY)
  if room.f_bavail * room.f_frsize > 8e9 and not room.f_flag & os.ST_NOEXEC:
    os.environ['TMPDIR'] = tempfile.tempdir = str(MEMORY)
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault('OMP_NUM_THREADS', '1')  # torch's threads would wait for each other, and for the tests beside
# Half of a test's time is compiling, and half of that are XLA's new emitters; a JAX that has no older ones has no such
# flag, and would end at it.
EMITTERS = importlib.metadata.version('jaxlib').startswith('0.10.')
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=8',
    '--xla_backend_optimization_level=0',
    '--xla_llvm_disable_expensive_passes=true',
    '--xla_cpu_parallel_codegen_split_count=1',
    *['--xla_cpu_use_fusion_emitters=false'] * EMITTERS,
  ]
)

import jax  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402

flags.FLAGS.mark_as_parsed()
jax.config.update('jax_numpy_rank_promotion', 'raise')

# What JAX keeps of programs is millions of small objects that live on: they are walked through less often.
gc.set_threshold(20_000, 20, 20)

SHARED = pathlib.Path(__file__).parents[2] / 'shared'


@pytest.fixture
def shared_data():
  """The folder of real photographs and weights, or a skip with the reason."""
  if not (SHARED / 'data').is_dir():
    pytest.skip('needs the photographs and weights in ../shared/data, which are not part of the project')
  return SHARED / 'data'


@pytest.fixture(scope='module', autouse=True)
def programs():
  """Those of a file go with it: kept by JAX, they would be gigabytes by the end."""
  yield
  jax.clear_caches()


@pytest.fixture(scope='module')
def shallow():
  """One stage of the small network instead of three, for runs of which no number depends on it: they compile sooner.

  Nor do they draw, which takes a fifth of a second each: their picture is of one pixel.
  """
  from PIL import Image

  from resjax import models, report

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(report, 'accuracy_against_macs', lambda results, path: Image.new('1', (1, 1)).save(path))
    patch.setitem(models.MODELS, 'resnet_small', functools.partial(models.MODELS['resnet_small'], stages=(1,)))
    yield


@pytest.fixture(scope='module')
def built_once():
  """The runs of a file that have the same config have the same parts, and so the same programs: compiled once."""
  from resjax import config as configuration
  from resjax.training import loop, run

  parts = {}

  def build(config):
    key = repr(configuration.to_json(config))
    if key not in parts:
      parts[key] = run.build(config)
    return parts[key]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop, 'build', build)
    yield


@pytest.fixture
def x64():
  """Double precision for the duration of one test."""
  with jax.enable_x64(True):
    yield
