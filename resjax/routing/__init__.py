"""Which resolution for which image, and what that costs: one file for each router, numpy alone.

A new router is a file with a class like the others', and an entry in `ROUTERS`.
"""

from collections.abc import Callable
from typing import cast

import numpy as np

from resjax.routing.budget import Budget
from resjax.routing.cascade import Cascade
from resjax.routing.detail import Detail
from resjax.routing.fixed import Fixed
from resjax.routing.known import Known
from resjax.routing.oracle import Oracle
from resjax.routing.predictor import Predictor
from resjax.routing.random import Random
from resjax.routing.router import Columns, Dialled, Images, Routed, Router

__all__ = [
  'ROUTERS',
  'Budget',
  'Columns',
  'Dialled',
  'Images',
  'Routed',
  'Router',
  'choosable',
  'kind_of',
  'looks',
  'names_for',
]

# Every router by its name, in the order in which they are listed.
ROUTERS: dict[str, type[Router]] = {
  kind.name: kind for kind in (Predictor, Cascade, Detail, Random, Fixed, Oracle, Known)
}


def choosable() -> dict[str, type[Dialled]]:
  """Returns the routers that a user can choose, by name: they have a knob, and need no answers."""
  return {name: cast(type[Dialled], kind) for name, kind in ROUTERS.items() if Dialled in kind.__mro__}


def looks() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
  """Returns the columns that are seen in images' pixels, and what finds each, see `Router.look`."""
  return {kind.reads: kind.look for kind in ROUTERS.values() if kind.look is not None}


def kind_of(name: str) -> type[Dialled]:
  """Returns a router that a user can choose.

  Raises:
    ValueError: There is none of this name.
  """
  known = choosable()
  if name not in known:
    raise ValueError(f'router: got {name!r}, expected one of {", ".join(known)}')
  return known[name]


def names_for(predictor: bool) -> tuple[str, ...]:
  """Returns the routers that a network with or without a predictor has all it takes for, the one to prefer first."""
  return tuple(name for name, kind in choosable().items() if predictor or kind.reads != Predictor.reads)
