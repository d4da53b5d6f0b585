"""Files that must be refused at no cost: for the tests of importing."""

import tracemalloc

import pytest

from resjax.interop import files


def refused(path, reason, most=8_000_000):
  """Reading ends in one line with the reason, in hardly more memory than the file is large."""
  tracemalloc.start()
  try:
    with pytest.raises(ValueError, match=reason) as error:
      files.read(path)
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert '\n' not in str(error.value) and str(path) in str(error.value)
  assert peak < most + 4 * path.stat().st_size, f'{peak:,} bytes'
