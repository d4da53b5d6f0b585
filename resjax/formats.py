"""The version, and the number in all that is stored, which tells an older resjax that a newer one wrote it."""

import os
from typing import Any

VERSION = '0.2.0'

# Of checkpoints, results.json and what stands beside them. 0 is what was written before there were numbers.
FORMAT = 1


def check(number: Any, where: str | os.PathLike[str]) -> int:
  """Returns the number of a format that this version reads.

  Args:
    number: The `format` that stands in it; 0 where there is none.
    where: What the message calls it.

  Raises:
    ValueError: The number is above `FORMAT`, or is none.
  """
  if not isinstance(number, int) or isinstance(number, bool) or number < 0:
    raise ValueError(f'{where}: damaged, got format {number!r}, expected a number from 0 to {FORMAT}')
  if number > FORMAT:
    raise ValueError(f'{where}: got format {number}, expected at most {FORMAT}: a newer resjax wrote it, update resjax')
  return number
