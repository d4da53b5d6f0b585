"""The network that a run starts from: that of an RS-Net run which is finished."""

import dataclasses
import pathlib
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from resjax import config as configuration
from resjax import trained
from resjax.switchable import Variables
from resjax.training import state
from resjax.training.devices import Devices

# Fields that say what the weights mean: the same in the RS-Net run and in the run that starts from it.
_SAME = ('model.name', 'model.num_classes', 'model.width', 'data.normalize', 'shared_batch_norm')


def start(
  fresh_state: Callable[[], state.TrainState], config: ConfigDict, workdir: str | pathlib.Path | None, devices: Devices
) -> state.TrainState:
  """Returns the state before the first step: fresh, with the network of an RS-Net run where one is given.

  Args:
    fresh_state: Returns the state as drawn from the seed; called when the network is known to fit.
    config: Of the run that starts.
    workdir: The RS-Net run's workdir, or None.
    devices: Where the state stands.

  Raises:
    FileNotFoundError: There is no checkpoint.
    ValueError: It is not of an RS-Net with this network and these resolutions.
  """
  if workdir is None:
    return fresh_state()
  loaded = load(workdir, config, devices)
  fresh = fresh_state()
  params = fresh.params | loaded['params']
  ema = fresh.ema if fresh.ema is None else fresh.ema | jax.tree.map(lambda x: x.copy(), loaded['params'])
  return dataclasses.replace(fresh, params=params, batch_stats=fresh.batch_stats | loaded['batch_stats'], ema=ema)


def load(workdir: str | pathlib.Path, config: ConfigDict, devices: Devices) -> Variables:
  """Returns an RS-Net's variables, alpha included, at the resolutions of a config: what its evaluation used.

  Args:
    workdir: The RS-Net run's workdir.
    config: Reads `resolutions` and what must be the same in both runs.
    devices: Where the arrays stand.

  Raises:
    FileNotFoundError: There is no checkpoint.
    ValueError: It is not of an RS-Net with this network and these resolutions.
  """
  try:
    found = trained.read(workdir, sharding=devices.replicated)
  except FileNotFoundError as error:
    raise FileNotFoundError(f'config.drnet.checkpoint: {error}') from None
  variables, saved = found.network.variables, found.config
  if not found.finished:
    raise ValueError(f'config.drnet.checkpoint: the run in {workdir} was stopped, expected one that reached its end')
  _check(saved, config, workdir)
  keys = list(variables['batch_stats']) if saved.shared_batch_norm else [str(r) for r in config.resolutions]
  places = [saved.resolutions.index(r) for r in config.resolutions]
  params = variables['params']
  return {
    'params': {
      'shared': params['shared'],
      'private': {key: params['private'][key] for key in keys},
      'alpha': jax.device_put(params['alpha'][jax.numpy.array(places)], devices.replicated),
    },
    'batch_stats': {key: variables['batch_stats'][key] for key in keys},
  }


def _check(saved: ConfigDict, config: ConfigDict, workdir: str | pathlib.Path) -> None:
  """Refuses a run that holds another network."""
  if saved.method != 'rsnet':
    raise ValueError(f"config.drnet.checkpoint: {workdir} holds a run of method {saved.method!r}, expected 'rsnet'")
  unknown = [r for r in config.resolutions if r not in saved.resolutions]
  if unknown:
    raise ValueError(
      f'config.resolutions: {", ".join(map(str, unknown))} not among the resolutions {tuple(saved.resolutions)} '
      f'that {workdir} was trained at'
    )
  here, there = configuration.flatten(config), configuration.flatten(saved)
  for field in _SAME:
    if here[field] != there[field]:
      raise ValueError(f'config.{field}: got {here[field]!r}, expected {there[field]!r} as in {workdir}')
