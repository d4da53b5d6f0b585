"""A budget, as a user types it: what an image may cost on the mean, all that is run for it counted, the router too."""

import dataclasses
import re
from typing import Literal

from resjax.telling import shown


@dataclasses.dataclass(frozen=True)
class Budget:
  """The mean cost of an image, the router's own included.

  Attributes:
    number: Above 0.
    unit: 'share' of the largest resolution's multiply-adds, 'macs' (multiply-adds), or 'ms' (milliseconds).
  """

  number: float
  unit: Literal['share', 'macs', 'ms']

  @classmethod
  def parse(cls, value: 'Budget | float | str') -> 'Budget':
    """Returns a budget from a number or text; a budget is returned as it is.

    Args:
      value: At most 1, a share; above, multiply-adds; as text such as '12ms', milliseconds.

    Raises:
      ValueError: It is none of these.
    """
    if isinstance(value, Budget):
      return value
    match = re.fullmatch(r'([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(ms)?', str(value).strip())
    try:
      number = float(match[1]) if match else 0.0
    except ValueError:
      number = 0.0
    if match is None or not 0 < number < float('inf'):
      raise ValueError(
        f'budget: got {shown(value)}, expected a share such as 0.6, multiply-adds such as 9e8, or milliseconds such as '
        "'12ms'"
      )
    return cls(number, 'ms' if match[2] else 'share' if number <= 1 else 'macs')

  @property
  def timed(self) -> bool:
    """Whether it is in milliseconds."""
    return self.unit == 'ms'

  def target(self, largest: float) -> float:
    """Returns the budget in multiply-adds, or in milliseconds where it is `timed`.

    Args:
      largest: Multiply-adds of one image at the largest resolution.
    """
    return self.number * largest if self.unit == 'share' else self.number

  def like(self, cost: float, largest: float) -> 'Budget':
    """Returns the budget of the same unit whose target is a cost; arguments and units as of `target`."""
    return dataclasses.replace(self, number=cost / largest if self.unit == 'share' else cost)

  @property
  def exact(self) -> str:
    """The budget as `parse` reads it, with all its digits."""
    short = str(self)
    return short if Budget.parse(short) == self else f'{self.number!r}{"ms" if self.timed else ""}'

  def __str__(self) -> str:
    return f'{self.number:g}{"ms" if self.timed else ""}'
