"""What runs programs, one file for each, and their names."""

import importlib.util
import logging
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax


class Place(NamedTuple):
  """Where a runtime is, imported only where it is used.

  Attributes:
    kind: 'package.module:Class'.
    needs: Packages that resjax does not install by itself.
    extra: Of resjax, that installs them.
  """

  kind: str
  needs: tuple[str, ...] = ()
  extra: str = ''


# A new runtime is a file here, and an entry.
NAMES = {
  'xla': Place('resjax.inference.runtimes.xla:XlaRuntime'),
  'onnx': Place('resjax.inference.runtimes.onnx:OnnxRuntime', ('onnx', 'onnxruntime'), 'ort'),
}


def named(name: str | None) -> Callable[[Sequence[Any]], Any]:
  """Returns the runtime of a name; None: `fastest`.

  Raises:
    ValueError: There is none, or what it needs is not installed.
  """
  if name is None:
    return fastest
  if name not in NAMES:
    raise ValueError(f'runtime: got {name!r}, expected one of {", ".join(NAMES)}')
  place = NAMES[name]
  if missing := _missing(place):
    raise ValueError(f"runtime: got {name!r}, which needs {' and '.join(missing)}: pip install 'resjax[{place.extra}]'")
  return pkgutil.resolve_name(place.kind)


def fastest(programs: Sequence[Any]) -> Any:
  """Puts programs into ONNX Runtime on one CPU, where it is installed and can run them, else into XLA.

  It was the faster one there, see docs/export.md. A network that it can't run is told of in the log.
  """
  on_one_cpu = [device.platform for device in jax.local_devices()] == ['cpu']
  if not on_one_cpu or _missing(NAMES['onnx']) or any(program.dtype != 'float32' for program in programs):
    return named('xla')(programs)
  runtime = named('onnx')(programs)
  try:
    runtime.compile(())
  except ValueError as error:
    logging.getLogger(__name__).warning('runs by XLA, which is slower here than ONNX Runtime: %s', error)
    return named('xla')(programs)
  return runtime


def _missing(place: Place) -> list[str]:
  """The packages that a runtime needs and that are not installed."""
  return [package for package in place.needs if importlib.util.find_spec(package) is None]
