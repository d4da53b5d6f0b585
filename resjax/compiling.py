"""How programs are compiled and run: what makes XLA faster on a CPU, and a cache that outlives the process."""

import ctypes
import glob
import logging
import os
import warnings
from functools import cache

import jax

# XLA's CPU compiler hands work to YNNPACK's fusions that are slow at it: the weight gradients of convolutions (2 to 30
# times slower), and in inference reductions and products of matrices too (1.2 to 1.7 times). Each purpose keeps the
# fusions that help it.
OPTION = 'xla_cpu_experimental_ynn_fusion_type'
FUSIONS = {'training': 'LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_DOT', 'inference': ''}

LEVEL = 'xla_backend_optimization_level'

# glibc's mallopt: no memory by mmap, which is given back at once (M_MMAP_MAX); nothing given back (M_TRIM_THRESHOLD);
# one arena for all threads (M_ARENA_MAX), for the others' are small and send what is large to mmap.
MALLOC = {-4: 0, -1: 2**31 - 1, -8: 1}
ACCELERATORS = ('/dev/nvidia*', '/dev/kfd', '/dev/accel*', '/dev/vfio/*')  # files of GPUs and TPUs


@cache
def options(platform: str, purpose: str) -> dict[str, str]:
  """Returns the compiler options for a platform: of 'cpu', those without slow fusions.

  Empty for other platforms, where the user has set the flag in XLA_FLAGS, or where this XLA does not know it.

  Args:
    platform: That programs are compiled for.
    purpose: A key of `FUSIONS`.
  """
  if platform != 'cpu' or OPTION in os.environ.get('XLA_FLAGS', ''):
    return {}
  chosen = {OPTION: FUSIONS[purpose]}
  try:
    with jax.default_device(jax.local_devices(backend='cpu')[0]):
      jax.jit(lambda x: x + 1, compiler_options=chosen).lower(0.0).compile()
  except jax.errors.JaxRuntimeError:
    return {}
  return chosen


def quick(platform: str) -> dict[str, int]:
  """Returns the compiler options of a program that runs once: less work for the compiler, the same numbers.

  Of level 0 they would be others: it rounds products before it adds them. Empty for other platforms than a 'cpu', and
  where the user has set the level in XLA_FLAGS.

  Args:
    platform: That the program is compiled for.
  """
  return {} if platform != 'cpu' or LEVEL in os.environ.get('XLA_FLAGS', '') else {LEVEL: 1}


def keep_compiled_programs() -> None:
  """Turns on the persistent compilation cache, unless the user has chosen one: a second start compiles nothing."""
  # What the cache can't write or read costs time alone: on a full disk the run's own line is the last one.
  warnings.filterwarnings('ignore', 'Error (reading|writing) persistent compilation cache', UserWarning)
  if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
    root = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    path = os.path.join(root, 'resjax', 'compiled')
    try:
      os.makedirs(path, exist_ok=True)
    except OSError as error:
      logging.getLogger(__name__).warning('no compilation cache: %s', error)
      return
    jax.config.update('jax_compilation_cache_dir', path)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


def keep_memory() -> None:
  """Lets this process keep the memory that it frees, so that on a CPU a program's next run finds its pages made.

  XLA asks for a program's temporaries anew at each run. Where the C library gives freed memory back to the system,
  their pages are made and cleared each time, up to a sixth of a training step. To be called before JAX looks for
  devices: its threads take what arenas there are. Does nothing where there is an accelerator, whose host has other
  things to do, without glibc, and where the user has set GLIBC_TUNABLES.
  """
  platforms = jax.config.jax_platforms or ''  # type: ignore[attr-defined]
  elsewhere = platforms != 'cpu' and (platforms or any(map(glob.glob, ACCELERATORS)))
  mallopt = None if elsewhere or 'GLIBC_TUNABLES' in os.environ else getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is not None:
    for option, value in MALLOC.items():
      mallopt(option, value)
