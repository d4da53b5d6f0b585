"""The network that a run starts from: another run's, or an imported one."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from resjax import config as configuration
from resjax import moved, rsnet, trained, unseen
from resjax.quantisation import BASES
from resjax.recipes import default
from resjax.resolution import at_widths
from resjax.resolution import name as name_of
from resjax.rsnet import Start
from resjax.switchable import SHARED_SET, Variables, path_text
from resjax.telling import distinct, say
from resjax.trained import Trained
from resjax.training import freezing, state
from resjax.training.devices import Devices

# Fields that say what the weights mean: the same there and here.
_SAME = ('model.name', 'model.width', 'model.inner', 'data.normalize')

# And such as may differ, but say how images were prepared where the network was judged, or what its weights were.
_OTHERWISE = ('eval.interpolation', 'eval.crop_fraction', 'model.quantise')


def start(
  fresh_state: Callable[[], state.TrainState],
  config: ConfigDict,
  begin: Start | None,
  devices: Devices,
  class_names: Sequence[str] = (),
) -> state.TrainState:
  """Returns the state before the first step: fresh, with the weights of another network where one is given.

  A head of another number of classes, or of as many that are called otherwise, and a resolution that the other network
  has not, are told of.

  Args:
    fresh_state: Returns the state as drawn from the seed; called when the network is known to fit.
    config: Of the run that starts.
    begin: As the method's `backbone` gives it.
    devices: Where the state stands.
    class_names: Of what is trained on; empty: not known.

  Raises:
    FileNotFoundError: There is no checkpoint.
    ValueError: It is not of such a network.
  """
  if begin is None:
    return fresh_state()
  loaded, notes = load(begin, config, devices, class_names)
  fresh = fresh_state()
  params, new = _merged(fresh.params, loaded['params'])
  batch_stats, _ = _merged(fresh.batch_stats, loaded['batch_stats'])
  rates = freezing.pairs(config.optimizer)
  if held := [name for name in new if not freezing.factor_of(name.partition('/')[2], rates, [name])]:
    raise ValueError(
      f'config.optimizer: freeze, or rates of 0, hold {", ".join(held)}, new for {config.model.num_classes} classes: '
      'expected what is new to learn'
    )
  if new:
    notes.append(f'new for {config.model.num_classes} classes: {", ".join(new)}')
  if notes and jax.process_index() == 0:
    say(f'Starting from {begin.workdir}; ' + '; '.join(notes))
  ema = None if fresh.ema is None else state.average_from(params, batch_stats)
  return dataclasses.replace(fresh, params=params, batch_stats=batch_stats, ema=ema)


def load(
  begin: Start, config: ConfigDict, devices: Devices, class_names: Sequence[str] = ()
) -> tuple[Variables, list[str]]:
  """Returns variables to start from at the resolutions of a config, those that its evaluation used; and notes on them.

  Args:
    begin: As the method's `backbone` gives it.
    config: Reads `resolutions` and what must be the same in both.
    devices: Where the arrays stand.
    class_names: Of what is trained on; empty: not known.

  Raises:
    FileNotFoundError: There is no checkpoint.
    ValueError: It is not of such a network.
  """
  try:
    found = trained.read(begin.workdir, sharding=devices.replicated, fixed=False)
  except FileNotFoundError as error:
    raise FileNotFoundError(f'config.{begin.field}: {error}') from None
  _check(found, config, begin)
  variables, notes = found.network.variables, []
  wanted, there_are = at_widths(config), at_widths(found.config)
  for resolution in wanted:
    variables, note = unseen.add(variables, resolution, 'nearest', found.network.model)
    if resolution not in there_are:
      notes.append(note)
  params, known = variables['params'], variables['batch_stats']
  loaded: Variables = {'params': {'shared': params['shared']}, 'batch_stats': {}}
  if begin.what != 'shared':
    sets = [SHARED_SET, *map(name_of, wanted)]
    loaded['params']['private'] = {key: params['private'][key] for key in sets if key in params['private']}
    loaded['batch_stats'] = {key: known[key] for key in sets if key in known}
  same = config.model.quantise == found.config.model.quantise
  if same and BASES in known:
    loaded['batch_stats'][BASES] = known[BASES]
  here, there, usual = (configuration.flatten(each) for each in (config, found.config, default.get_config()))
  for field in _OTHERWISE:
    if here[field] != there[field]:
      notes.append(f'config.{field} is {here[field]!r} here, and was {there[field]!r} there')
    elif here[field] != usual[field]:
      notes.append(f'config.{field} is {here[field]!r}, as there')
  known_names, names = found.network.class_names, tuple(class_names)
  if names and len(names) == len(known_names) and names != known_names:
    first = next(number for number, pair in enumerate(zip(names, known_names)) if pair[0] != pair[1])
    notes.append(
      f'the head is kept, but classes have other names: {first} is {distinct(names[first], known_names)} here, and was '
      f'{distinct(known_names[first], names)} there'
    )
  if begin.what == 'all':
    ones = dict(zip(there_are, params['alpha'], strict=True))
    alpha = jnp.stack([ones.get(r, jnp.ones(())) for r in wanted])
    loaded['params']['alpha'] = jax.device_put(alpha, devices.replicated)
  return loaded, notes


def _merged(fresh: Any, loaded: Any) -> tuple[Any, list[str]]:
  """The fresh tree with all that was loaded and has the same shape; the paths of what has another one."""
  there = {path_text(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(loaded)}
  other = [path_text(path) for path, leaf in jax.tree_util.tree_leaves_with_path(fresh)
           if there.get(path_text(path), leaf).shape != leaf.shape]  # fmt: skip

  def merge(path: Any, leaf: Any) -> Any:
    name = path_text(path)
    return leaf if name in other else jnp.copy(there.get(name, leaf))

  return jax.tree_util.tree_map_with_path(merge, fresh), other


def _check(found: Trained, config: ConfigDict, begin: Start) -> None:
  """Refuses a run that holds another network."""
  saved, workdir = found.config, begin.workdir
  if begin.exact and saved.method != 'rsnet':
    raise ValueError(f"config.{begin.field}: {workdir} holds a run of method {saved.method!r}, expected 'rsnet'")
  if begin.exact and not found.finished:
    raise ValueError(f'config.{begin.field}: the run in {workdir} was stopped, expected one that reached its end')
  known = at_widths(saved)
  unknown = [r for r in at_widths(config) if r not in known]
  if begin.exact and unknown:
    raise ValueError(
      f'config.resolutions: {", ".join(map(str, unknown))} not among the resolutions ({", ".join(map(str, known))}) '
      f'that {workdir} was trained at'
    )
  here, there = (configuration.flatten(each) | {'private': rsnet.private(each)} for each in (config, saved))
  for field in (*_SAME, 'private', *('model.num_classes', 'model.quantise') * begin.exact):
    if here[field] != there[field]:
      way = " (left empty, '', it is as there)" if field == 'data.normalize' else ''
      raise ValueError(f'config.{field}: got {here[field]!r}, expected {there[field]!r} as in {workdir}{way}')


moved.tell(globals())
