"""A run's workdir as a `Network`: the one way from what training saved to all that uses it, and for imports back."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from resjax import checkpoint, formats, models
from resjax import config as configuration
from resjax.models import predictor, quantised
from resjax.network import Network
from resjax.preprocess import Preprocessing
from resjax.quantisation import BASES
from resjax.resolution import at_widths
from resjax.switchable import Variables


@dataclasses.dataclass(frozen=True)
class Trained:
  """A trained network and the run that it is from.

  Attributes:
    network: As the run's evaluation uses it.
    config: Of the run: where its data are, and how it was trained.
    step: Of the checkpoint.
    finished: Whether the run had reached its end.
    origin: Of a network from elsewhere, its source, architecture and license, as far as they are known; else None.
    data: Of the run, as `data.identity.stored` has it; None: not known.
  """

  network: Network
  config: ConfigDict
  step: int
  finished: bool
  origin: dict[str, Any] | None = None
  data: dict[str, Any] | None = None


def read(
  workdir: str | pathlib.Path,
  *,
  step: int | None = None,
  sharding: jax.sharding.Sharding | None = None,
  fixed: bool = True,
) -> Trained:
  """Returns a run's network, with the run's config.

  Args:
    workdir: The run's folder; only read, also while the run goes on.
    step: One of those saved; None: the latest.
    sharding: Where the arrays stand; None: on this process's first device.
    fixed: Weights that the network quantises are quantised once, here; False: they are as training has them.

  Raises:
    FileNotFoundError: There is no such checkpoint.
    ValueError: It is damaged, its weights are not finite, or a newer version wrote it.
    OSError: The disk does not let it be read.
  """
  variables, meta = checkpoint.load(workdir, step=step, sharding=sharding)
  config = configuration.complete(meta, workdir)
  network = of_config(config, variables, meta.get('class_names') or ())
  network.check_finite(f'{workdir}, step {meta["step"]}')
  network = with_fixed(network) if fixed else network
  return Trained(network, config, meta['step'], meta.get('finished', False), meta.get('origin'), meta.get('data'))


def load(workdir: str | pathlib.Path, *, step: int | None = None) -> Network:
  """Returns a run's network; arguments and errors as of `read`."""
  return read(workdir, step=step).network


def with_fixed(network: Network) -> Network:
  """Returns a network that gives the same answers, its weights quantised already where it is one that does so."""
  conv, variables = getattr(network.model, 'conv', None), network.variables
  bases = variables.get('batch_stats', {}).get(BASES)
  if conv is None or bases is None:
    return network
  params = variables['params']
  conv, shared = quantised.fixed(conv, params['shared'], bases)
  variables = variables | {'params': params | {'shared': shared}}
  return network.replace(model=network.model.clone(conv=conv), variables=variables)  # type: ignore[union-attr]


def save(found: Trained, workdir: str | pathlib.Path) -> None:
  """Writes a network as the workdir of a run, at step 0.

  Raises:
    FileExistsError: The workdir holds a run already.
    OSError: It can't be written.
  """
  meta = {
    'format': formats.FORMAT,
    'config': configuration.to_json(found.config),
    'class_names': list(found.network.class_names),
    'train_seconds': 0.0,
    'finished': found.finished,
    'origin': found.origin,
    **({} if found.data is None else {'data': found.data}),
  }
  checkpoint.write(workdir, found.network.variables, meta)


def of_config(config: ConfigDict, variables: Variables, class_names: Sequence[str] = ()) -> Network:
  """Returns the network that a config describes, with these variables.

  Args:
    config: As a run's; read: model, resolutions, data.normalize, data.max_pixels, eval.interpolation,
      eval.crop_fraction, and with a predictor drnet.predictor.
    variables: Of the switchable network, and of its predictor where it has one.
    class_names: By class index.
  """
  return Network(
    model=models.from_config(config),
    variables=variables,
    resolutions=at_widths(config),
    preprocessing=Preprocessing.of_config(config),
    class_names=tuple(class_names),
    predictor=predictor.from_config(config) if 'predictor' in variables['params'] else None,
  )
