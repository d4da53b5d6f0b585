"""Names of version 0.1: what is the same is found in its new place, of all else it is said what to type instead."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from typing import Any

# By module and name, where it is now. What starts with '=' is the same as ever.
_PLANNED = ('Need', 'TRAINING_IMAGES', 'batch_of', 'largest', 'multiply_adds', 'need')
_TOPOLOGY = ('CHIPS', 'Chip', 'GIB', 'NAMES', 'UTILIZATION', 'chip_of', 'chips_of', 'devices_of')
MOVED: dict[str, dict[str, str]] = {
  'resjax.routers': {
    'mix': '=resjax.routing.random.mix',
    'shuffled': '=resjax.routing.random.shuffled',
    'calibrated_cascade': 'resjax.routing.judge.crossed',
    'cascade': 'resjax.routing.cascade.Cascade(costs, knob).choose(odds)',
    'cascade_costs': 'resjax.routing.cascade.Cascade(costs).charged',
    'known': 'resjax.routing.known.Known(costs, resolutions).choose(needed)',
    'oracle': 'resjax.routing.oracle.Oracle(costs).choose(right)',
    'predictor': 'resjax.routing.predictor.Predictor(costs).choose(scores)',
    'score': 'resjax.routing.score.score',
    'threshold_for': 'resjax.routing.dial.dialled(Cascade(costs), odds, target).knob',
  },
  'resjax.dial': {
    'dialled': '=resjax.routing.dial.dialled',
    'reachable': '=resjax.routing.dial.reachable',
    'ranks_within': '=resjax.routing.detail.ranks_within',
    'Follower': 'resjax.routing.dial.Follower(dialled(router, column, target), column, target)',
    'Router': 'a class of resjax.routing.ROUTERS',
    'COLUMNS': "each router's read(seen)",
  },
  'resjax.inference.calibration': {
    'FILE': '=resjax.inference.calibrating.FILE',
    'KEPT': '=resjax.inference.calibrating.KEPT',
    'even_draws': '=resjax.routing.random.even_draws',
    'Table': '=resjax.routing.Columns',
    'column': 'router.read(columns)',
    'dialled': 'resjax.inference.calibrating.set_to',
    'follower': 'resjax.routing.dial.Follower',
    'network_of': 'network.digest',
    'parse_budget': 'resjax.Budget.parse(budget)',
    'reachable': 'resjax.inference.calibrating.limits',
    'read': 'resjax.inference.calibrating.read(workdir, network)',
    'write': 'resjax.inference.calibrating.write(workdir, network, columns)',
  },
  'resjax.inference.compilations': {
    'EVENT': "a runtime's attribute compiled",
    'count': "a runtime's attribute compiled",
  },
  'resjax.inference.routing': {
    'energy': '=resjax.routing.detail.energy',
    'log_odds': '=resjax.routing.cascade.log_odds',
    'milliseconds': '=resjax.inference.engines.milliseconds',
    'Routed': '=resjax.routing.Routed',
    'Network': 'resjax.inference.engines.Engines(resjax.trained.load(workdir))',
  },
  'resjax.training.plan': {
    **{name: f'=resjax.planning.needs.{name}' for name in _PLANNED},
    'Program': '=resjax.planning.needs.ProgramNeed',
    'collectives': '=resjax.planning.compiler.collectives',
    'refused': '=resjax.planning.compiler.refused',
  },
  'resjax.training.topology': {name: f'=resjax.planning.topology.{name}' for name in _TOPOLOGY},
  'resjax.data.decode': {'SUFFIXES': 'resjax.data.decode.suffixes()'},
  'resjax.data.places': {
    'is_remote': '=resjax.paths.is_remote',
    'local': '=resjax.paths.local',
    'place': '=resjax.paths.path_of',
  },
  # Names of modules that are still there: these end with `moved.tell(globals())`.
  'resjax.checkpoint': {'load_variables': 'resjax.trained.read(workdir)'},
  'resjax.drnet': {
    'Predictor': 'resjax.drnet.predictor_of(config)',
    'ESTIMATORS': "('dense', 'routed', 'supervised')",
  },
  'resjax.inference.runtime': {
    'XlaRuntime': 'resjax.inference.XlaRuntime(resjax.inference.programs.of_network(network))',
    'AXIS': "'data'",
  },
  'resjax.measuring.curves': {
    'Table': '=resjax.routing.Columns',
    'oracle': 'resjax.routing.oracle.Oracle(costs, budget).choose(right)',
  },
  'resjax.measuring.speed': {'Way': 'resjax.measuring.speed.Contender'},
  'resjax.report.charts': {'STYLES': 'resjax.routing.ROUTERS[name].style'},
  'resjax.switchable': {'check_resolutions': 'resjax.resolution.sides(resolution)'},
  'resjax.training.backbone': {'pretraining': 'resjax.drnet.pretraining(config)'},
  'resjax.training.devices': {'WAYS': "('shard_map', 'pmap')"},
  'resjax.training.judge': {'gallery_rows': 'resjax.report.gallery.sent'},
}


def tell(names: dict[str, Any]) -> None:
  """Lets a module find what moved, or say what to type instead; a type checker does not see it.

  Args:
    names: The module's globals.
  """
  module = names['__name__']

  def find(name: str) -> Any:
    now = MOVED[module].get(name)
    if now is None:
      raise AttributeError(f'module {module!r} has no attribute {name!r}')
    if not now.startswith('='):
      raise ImportError(f'{module}.{name} is gone since 0.2: type {now}')
    place, _, same = now[1:].rpartition('.')
    return getattr(importlib.import_module(place), same)

  names['__getattr__'] = find


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
  """Finds the modules of `MOVED` that are no files any more, when all else has not found them."""

  def find_spec(
    self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
  ) -> importlib.machinery.ModuleSpec | None:
    """See `importlib.abc.MetaPathFinder`."""
    del path, target
    return importlib.util.spec_from_loader(name, self) if name in MOVED else None

  def exec_module(self, module: types.ModuleType) -> None:
    """Fills a module."""
    tell(vars(module))


def install() -> None:
  """Lets the modules of version 0.1 be imported."""
  if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
    sys.meta_path.append(_Finder())
