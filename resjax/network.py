"""A trained network as a value: all that predicting, measuring, exporting and serving it takes, and nothing of runs."""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from resjax import finite, macs, preprocess, switchable, unseen, widths
from resjax.apply import Apply, run
from resjax.macs import Traced
from resjax.models.predictor import Predictor
from resjax.preprocess import Preprocessing
from resjax.resolution import Resolution, at_width, check_order, sides, width_of
from resjax.switchable import Variables

Forward = Callable[[Any, jax.Array], jax.Array]

_ADDRESS = re.compile(r' at 0x[0-9a-f]+')


class Function(NamedTuple):
  """What is run of a network: at one resolution, or its predictor, before shapes and a runtime are chosen.

  Attributes:
    forward: `forward(variables, crops)`, crops `[b, H, W, 3]` of values 0 to 255 to float32 `[b, K]`. It holds the
      resizing, the normalisation, and the network in inference mode.
    variables: Its ordinary variables.
    description: What is computed, whatever the weights are: functions of one description take the same time.
    dtype: Of the computation.
  """

  forward: Forward
  variables: Any
  description: str
  dtype: str


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
  """A resolution-switchable network, trained, with what its images and its answers mean.

  Made by `resjax.trained.load` from a workdir, or by hand from any Flax module and variables that `share` returned.

  Attributes:
    model: A plain network: a Flax (linen) module, called as `model(images, train=...)`, or an `apply.Apply` function.
    variables: As `switchable.share` returns them; with a predictor also `params['predictor']` and
      `batch_stats['predictor']`.
    resolutions: That it was trained at, in pixels, highest first; squares, or (height, width), or these at a width.
    preprocessing: Of its images.
    class_names: By class index; a class without a name gets its number.
    predictor: DRNet's, or None.
  """

  model: nn.Module | Apply
  variables: Variables = dataclasses.field(repr=False)
  resolutions: tuple[Resolution, ...]
  preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)
  class_names: tuple[str, ...] = ()
  predictor: Predictor | None = None

  # As of `inference.programs.Servable`: any runtime runs it, and its routers are set by a calibration.
  runtime: ClassVar[None] = None
  knobs: ClassVar[None] = None

  def __post_init__(self) -> None:
    """Completes the class names.

    Raises:
      ValueError: Resolutions are not the highest first, or have no normalisers; the model gives no logits of images;
        there are more names than classes; the predictor's variables are missing, or it or `alpha` is of another number
        of resolutions.
    """
    for field in ('resolutions', 'class_names'):
      value = getattr(self, field)
      if not isinstance(value, Iterable) or isinstance(value, str):
        raise ValueError(f'{field}: got {value!r}, expected a tuple')
      object.__setattr__(self, field, tuple(value))
    if not isinstance(self.preprocessing, Preprocessing):
      raise ValueError(f'preprocessing: got {self.preprocessing!r}, expected a resjax.Preprocessing')
    check_order(self.resolutions)
    for resolution in self.resolutions:
      switchable.set_of(self.variables, resolution)
    names, classes = self.class_names, self._classes(self.resolutions[0])
    self.__dict__['num_classes'] = classes  # which else would be traced once more
    if len(self.resolutions) > 1 and (fewer := self._classes(self.resolutions[-1])) != classes:
      raise ValueError(
        f'model: gives {fewer} logits at {self.resolutions[-1]} px, expected {classes} as at the highest'
      )
    if len(names) > classes:
      raise ValueError(f'class_names: got {len(names)}, expected {classes}, one for each logit')
    object.__setattr__(self, 'class_names', names + tuple(map(str, range(len(names), classes))))
    if self.predictor is not None:
      self._check_predictor(self.predictor)
    count = len(self.resolutions)
    alpha = np.shape(self.variables.get('params', {}).get('alpha', [0.0] * count))
    if count > 1 and alpha != (count,):
      raise ValueError(f'variables: alpha {alpha}, expected {(count,)}: one weight of the ensemble a resolution')

  def _classes(self, resolution: Resolution) -> int:
    """The length of the logits at a resolution; ValueError where the model gives none."""
    shape, kind = _image(resolution).shape, type(self.model).__name__
    try:
      logits = self._traced(resolution).logits.shape
    except Exception as error:  # whatever a user's model does
      first = next(iter(str(error).splitlines()), '')
      raise ValueError(f'model: {kind} fails at images {shape} ({type(error).__name__}: {first[:300]})') from error
    if len(logits) != 2:
      raise ValueError(f'model: {kind} gives {logits} for images {shape}, expected logits (1, classes)')
    return logits[1]

  def _check_predictor(self, predictor: Predictor) -> None:
    """Refuses a predictor that is not this network's."""
    missing = [kind for kind in ('params', 'batch_stats') if 'predictor' not in self.variables.get(kind, {})]
    if missing:
      raise ValueError(f"variables: no 'predictor' in {' and '.join(missing)}, expected the predictor's variables")
    found = predictor.outputs(self.predictor_variables)
    if found != len(self.resolutions):
      raise ValueError(f'predictor: got one of {found} scores, expected {len(self.resolutions)}: one a resolution')

  @functools.cached_property
  def num_classes(self) -> int:
    """The length of the logits."""
    return self._traced(self.resolutions[0]).logits.shape[-1]

  @functools.cached_property
  def macs(self) -> tuple[int, ...]:
    """Multiply-adds of one image at each resolution, the predictor's left out."""
    return tuple(self._traced(resolution).macs for resolution in self.resolutions)

  @functools.cached_property
  def digest(self) -> str:
    """A digest of all weights and statistics: what belongs to this network belongs to no other."""
    return digest_of(self.variables)

  def check_finite(self, where: str = 'variables') -> None:
    """Raises ValueError where an array holds what is no finite number, and names it; what runs a network asks this."""
    if 'is_finite' not in self.__dict__:
      finite.check(self.variables, where)
      self.__dict__['is_finite'] = True  # arrays do not change

  @property
  def predictor_variables(self) -> Variables:
    """The predictor's ordinary variables."""
    return {kind: self.variables[kind]['predictor'] for kind in ('params', 'batch_stats')}

  def view(self, resolution: Resolution) -> Variables:
    """Returns the ordinary variables at one resolution, see `switchable.view`."""
    return switchable.view(self.variables, resolution, self.model)

  def forward(self, resolution: Resolution, *, softmax: bool = False) -> Forward:
    """Returns what is run at one resolution, see `Function`; with `softmax` it gives probabilities, not logits.

    Raises:
      ValueError: The weights are not finite.
    """
    self.check_finite()
    preprocessing = self.preprocessing

    def forward(variables: Any, crops: jax.Array) -> jax.Array:
      (inputs,) = preprocess.prepare(
        (crops,), (resolution,), preprocessing.normalize, interpolation=preprocessing.interpolation
      )
      logits = self.apply(variables, inputs, width_of(resolution)).astype(jnp.float32)
      return jax.nn.softmax(logits) if softmax else logits

    return forward

  def function(self, resolution: Resolution) -> Function:
    """Returns what is run at one resolution."""
    preprocessing, (highest, *_) = self.preprocessing, self.resolutions
    described = _description(self.model, self.view(highest), self.apply, highest)
    described += f', width {width_of(resolution)}' * (width_of(resolution) < 1)
    described += f', {preprocessing.normalize}, {preprocessing.interpolation}'
    return Function(self.forward(resolution), self.view(resolution), described, _dtype(self.model))

  def scoring(self) -> Function:
    """Returns what is run of the predictor, which gives a score for each resolution.

    Raises:
      ValueError: The network has none, or its weights are not finite.
    """
    self.check_finite()
    predictor, normalize = self.predictor, self.preprocessing.normalize
    if predictor is None:
      raise ValueError('network: it has no predictor, expected one')

    def scores(variables: Any, crops: jax.Array) -> jax.Array:
      (inputs,) = preprocess.prepare((crops,), (predictor.size,), normalize)
      found: Any = predictor.model.apply(variables, inputs, train=False)
      return found.astype(jnp.float32)

    described = _description(predictor.model, self.predictor_variables, scores, self.resolutions[0])
    described += f', {normalize}, bilinear'
    return Function(scores, self.predictor_variables, described, _dtype(predictor.model))

  def at(self, resolution: Resolution, how: str = 'interpolate') -> tuple['Network', str]:
    """Returns this network at one size alone, at a width the narrow one, without its predictor; and what was done.

    Args:
      resolution: In pixels, of a square, or (height, width), or these at a trained width.
      how: 'interpolate' or 'nearest', see `unseen.add`.

    Raises:
      ValueError: It is no resolution, or there is no such way.
    """
    variables, note = unseen.add(self.variables, resolution, how)
    model = widths.narrowed(self.model, width_of(resolution))
    if model is not self.model:
      plain, resolution = switchable.view(variables, resolution, self.model), at_width(resolution, 1.0)
      variables = switchable.share(plain, (resolution,))
    return self.replace(model=model, variables=variables, resolutions=(resolution,), predictor=None), note

  def at_all(self, resolutions: Sequence[Resolution], how: str = 'interpolate') -> tuple['Network', list[str]]:
    """Returns this network at some sizes, the highest first, as `at` does at one; see `unseen.add_all`."""
    variables, notes = unseen.add_all(self.variables, self.resolutions, resolutions, how)
    return self.replace(variables=variables, resolutions=tuple(resolutions), predictor=None), notes

  def with_dtype(self, dtype: str | None) -> 'Network':
    """Returns this network computing in 'float32' or 'bfloat16', its variables as they are; None: as it is.

    Raises:
      ValueError: It is neither, or the model has no attribute `dtype`.
    """
    if dtype is None:
      return self
    if dtype not in ('float32', 'bfloat16'):
      how = '; resjax export --format=bundle --dtype=int8 writes what computes in it' if dtype == 'int8' else ''
      raise ValueError(f"dtype: got {dtype!r}, expected 'float32' or 'bfloat16'{how}")
    if not isinstance(self.model, nn.Module) or not hasattr(self.model, 'dtype'):
      raise ValueError(f'dtype: got {dtype!r}, expected none: {type(self.model).__name__} has no attribute dtype')
    return self.replace(model=self.model.clone(dtype=dtype))

  def recalibrated(self, resolution: Resolution, inputs: Iterable[jax.Array]) -> tuple['Network', str]:
    """Returns this network at one size alone, with the statistics of these images; and what was done for it.

    Arguments and errors as of `at` and `unseen.recalibrate`.
    """
    network, _ = self.at(resolution)
    variables, note = unseen.recalibrate(network.model, network.variables, network.resolutions[0], inputs)
    return network.replace(variables=variables), note

  def replace(self, **fields: Any) -> 'Network':
    """Returns this network with other values of some fields."""
    return dataclasses.replace(self, **fields)

  def apply(self, view: Variables, images: jax.Array, width: float = 1.0) -> jax.Array:
    """Returns the logits `[B, K]` of normalised images, floating `[B, H, W, 3]`, by one `view`, which is at a width."""
    return run(self.model, view, images, train=False, width=width)[0]

  def _traced(self, resolution: Resolution) -> Traced:
    """What is known of a forward pass at a resolution."""
    return macs.traced(self.model, self.view(resolution), _image(resolution), width_of(resolution))


def digest_of(variables: Variables, what: str = '') -> str:
  """Returns a digest of all arrays and their names.

  Args:
    variables: Any tree of arrays.
    what: Else that they depend on.
  """
  digest = hashlib.sha256(what.encode())
  for name, leaf in jax.tree.leaves_with_path(variables):
    if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):  # as the states of NNX have
      leaf = jax.random.key_data(leaf)
    digest.update(jax.tree_util.keystr(name).encode() + np.asarray(leaf).tobytes())
  return digest.hexdigest()


def _image(resolution: Resolution) -> jax.ShapeDtypeStruct:
  """One normalised image, as a shape."""
  return jax.ShapeDtypeStruct((1, *sides(resolution), 3), jnp.float32)


def _dtype(model: Any) -> str:
  """What a model computes in."""
  return str(getattr(model, 'dtype', 'float32'))


def _description(model: Any, variables: Any, apply: Forward, resolution: Resolution) -> str:
  """What a model is, the same in every process: its attributes, and its number of parameters.

  Where a function is among them, as in a model that is one, its name says too little, or an address that no other
  process has; what is computed of an image of this size is said too.
  """
  named = _ADDRESS.sub('', repr(model))
  if named != repr(model) or '<lambda>' in named:
    traced = jax.make_jaxpr(apply)(variables, _image(resolution))
    named += f' {digest_of(traced.consts, _ADDRESS.sub("", str(traced.jaxpr)))[:16]}'
  return f'{named} with {sum(map(np.size, jax.tree.leaves(variables))):,} values'
