"""The version, and the number in all that is stored, which tells an older resjax that a newer one wrote it."""

import os

VERSION = '0.2.0'

# Of checkpoints, results.json and what stands beside them. 0 is what was written before there were numbers.
FORMAT = 1


def check(number: int, where: str | os.PathLike[str]) -> None:
  """Refuses what a newer version wrote.

  Args:
    number: The `format` that stands in it; 0 where there is none.
    where: What the message calls it.

  Raises:
    ValueError: The number is above `FORMAT`.
  """
  if number > FORMAT:
    raise ValueError(f'{where}: got format {number}, expected at most {FORMAT}: a newer resjax wrote it, update resjax')
