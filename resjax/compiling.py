"""How programs are compiled: options that make XLA faster on a CPU, and a cache that outlives the process."""

import logging
import os
from functools import cache

import jax

# XLA's CPU compiler hands work to YNNPACK's fusions that are slow at it: the weight gradients of convolutions (2 to 30
# times slower), and in inference reductions too. Each purpose keeps the fusions that help it.
OPTION = 'xla_cpu_experimental_ynn_fusion_type'
FUSIONS = {'training': 'LIBRARY_FUSION_TYPE_REDUCE', 'inference': ''}


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


def keep_compiled_programs() -> None:
  """Turns on the persistent compilation cache, unless the user has chosen one: a second start compiles nothing."""
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
