"""What runs programs, one file for each, and their names."""

import importlib.util
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


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
  """Returns the runtime of a name; None: XLA.

  Raises:
    ValueError: There is none, or what it needs is not installed.
  """
  name = 'xla' if name is None else name
  if name not in NAMES:
    raise ValueError(f'runtime: got {name!r}, expected one of {", ".join(NAMES)}')
  place = NAMES[name]
  missing = [package for package in place.needs if importlib.util.find_spec(package) is None]
  if missing:
    raise ValueError(f"runtime: got {name!r}, which needs {' and '.join(missing)}: pip install 'resjax[{place.extra}]'")
  return pkgutil.resolve_name(place.kind)
