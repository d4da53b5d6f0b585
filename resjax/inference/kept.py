"""Engines that are made when they are first wanted and kept; another process makes its own."""

import os
import threading
from collections.abc import Callable, Hashable
from typing import Any

import jax

from resjax.inference.engine import Counts
from resjax.inference.engines import Engines
from resjax.inference.programs import Servable

_OWN = 'own'


class Kept:
  """The engines of a network at all its resolutions, and of its other sizes.

  What is pickled are networks: compiled programs stay in the process that made them.

  Attributes:
    lock: Of what is made once and kept.
  """

  def __init__(self, make: Callable[[Servable], Engines], network: Servable | None = None):
    """Makes nothing yet.

    Args:
      make: Returns the engines of a network.
      network: Where its arrays are JAX's, JAX has been started in this process.
    """
    self.lock = threading.RLock()
    self._make = make
    self._networks: dict[Hashable, Servable] = {}
    self._engines: dict[Hashable, Engines] = {}
    leaves = jax.tree.leaves(getattr(network, 'variables', None))
    self._started = any(isinstance(leaf, jax.Array) for leaf in leaves)
    self._process = os.getpid() if self._started else None  # where they were made, or JAX was started for them

  def own(self, network: Servable) -> Engines:
    """Returns the engines of all resolutions."""
    return self.at(_OWN, lambda: network)

  def at(self, key: Hashable, network: Callable[[], Servable]) -> Engines:
    """Returns the engines of a key.

    Args:
      key: Hashable.
      network: Returns what they run, where there are none yet.

    Raises:
      RuntimeError: This process was forked from one that had made some, or had started JAX.
    """
    self.check()
    with self.lock:
      if key not in self._engines:
        if key not in self._networks:
          self._networks[key] = network()
        self._process = os.getpid()
        self._engines[key] = self._make(self._networks[key])
      return self._engines[key]

  def put(self, keys: list[Hashable], network: Servable) -> None:
    """Takes the network of some keys, in the place of those that they had."""
    self.check()
    self._process = os.getpid()
    engines = self._make(network)
    with self.lock:
      for key in keys:
        self._networks[key], self._engines[key] = network, engines

  @property
  def counts(self) -> Counts:
    """What the engine of all resolutions has done so far."""
    return self._engines[_OWN].engine.counts if _OWN in self._engines else Counts()

  def check(self) -> None:
    """Raises RuntimeError in a process that was forked from one in which JAX was at work: it would wait for ever."""
    if self._process not in (None, os.getpid()):
      raise RuntimeError(
        f'this process was forked from process {self._process}, which has loaded the network or predicted, and JAX '
        "does not live through that; expected processes of multiprocessing.get_context('spawn')"
      )

  def __getstate__(self) -> dict[str, Any]:
    return {'make': self._make, 'networks': self._networks, 'started': self._started}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__init__(state['make'])  # type: ignore[misc]
    self._started = state['started']
    self._process = os.getpid() if self._started else None
    self._networks = state['networks']
