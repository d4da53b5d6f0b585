"""What runs programs, one file for each, and their names."""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

from resjax.inference.runtimes.xla import XlaRuntime

NAMES = ('xla', 'onnx')


def named(name: str | None) -> Callable[[Sequence[Any]], Any]:
  """Returns the runtime of a name; None: XLA.

  Raises:
    ValueError: There is none, or what it needs is not installed.
  """
  if name in ('xla', None):
    return XlaRuntime
  if name != 'onnx':
    raise ValueError(f'runtime: got {name!r}, expected one of {", ".join(NAMES)}')
  missing = [package for package in ('onnx', 'onnxruntime') if importlib.util.find_spec(package) is None]
  if missing:
    raise ValueError(f"runtime: got 'onnx', which needs {' and '.join(missing)}: pip install 'resjax[ort]'")
  from resjax.inference.runtimes.onnx import OnnxRuntime

  return OnnxRuntime
