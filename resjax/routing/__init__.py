"""Which resolution for which image, and what that costs: one file for each router, numpy alone.

A new router is a file with a class like the others', and an entry in `ROUTERS`.
"""

from typing import cast

from resjax.routing.budget import Budget
from resjax.routing.cascade import Cascade
from resjax.routing.detail import Detail
from resjax.routing.fixed import Fixed
from resjax.routing.known import Known
from resjax.routing.oracle import Oracle
from resjax.routing.predictor import Predictor
from resjax.routing.random import Random
from resjax.routing.router import Columns, Dialled, Images, Routed, Router

__all__ = ['DIALLED', 'ROUTERS', 'Budget', 'Columns', 'Dialled', 'Images', 'Routed', 'Router', 'kind_of', 'names_for']

# Every router by its name, in the order in which they are listed.
ROUTERS: dict[str, type[Router]] = {
  kind.name: kind for kind in (Predictor, Cascade, Detail, Random, Fixed, Oracle, Known)
}

# Those that a user can choose: they have a knob, and need no answers.
DIALLED = {name: cast(type[Dialled], kind) for name, kind in ROUTERS.items() if Dialled in kind.__mro__}


def kind_of(name: str) -> type[Dialled]:
  """Returns a router that a user can choose.

  Raises:
    ValueError: There is none of this name.
  """
  if name not in DIALLED:
    raise ValueError(f'router: got {name!r}, expected one of {", ".join(DIALLED)}')
  return DIALLED[name]


def names_for(predictor: bool) -> tuple[str, ...]:
  """Returns the routers that a network with or without a predictor has all it takes for, the one to prefer first."""
  return tuple(name for name, kind in DIALLED.items() if predictor or kind.reads != Predictor.reads)
