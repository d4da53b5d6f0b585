"""A network of torch as a Network of ours: layout found, keys checked, images prepared as the source says."""

import functools
import importlib.resources
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from resjax import config as configuration
from resjax import finite, models, preprocess, recipes, trained
from resjax.interop import layouts, sources
from resjax.interop import torch as torch_layout
from resjax.network import Network

# What torch's users call our models, and the width of each.
ARCHITECTURES: dict[str, tuple[str, float]] = {
  **{name: (name, 1.0) for name in ('resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152', 'resnext50_32x4d')},
  'resnext50': ('resnext50_32x4d', 1.0),
  'mobilenetv2': ('mobilenetv2', 1.0),
  'mobilenet_v2': ('mobilenetv2', 1.0),
  **{f'mobilenetv2_{width}': ('mobilenetv2', int(width) / 100) for width in ('035', '050', '075', '100', '140')},
}

# What timm called some of them before it had tags, such as 'resnet50.a1_in1k'.
_OLDER = (r'\..*$', r'^parallel_', r'^(tv|ssl|swsl|gluon)_', r'_v1b$')

# By what is found in a name: what makes a network another than ours.
_DIFFERENT = {
  r'resne(t|xt)(aa|blur)': 'smooths before each stride, also where its keys are the same',
  r'(^|_)seres|^resnetrs': 'has squeeze-excite',
  '^eca': 'has channel attention',
  '_(gn|frn|evos)$': 'has other normalisers than BatchNorm',
  '^resnetv2': 'normalises before its convolutions',
  r'^resne(t|xt)\d+(d|t|ts)(_|$)': 'has a deep stem and average-pool shortcuts',
  r'^resne(t|xt)\d+[cs](_|$)': 'has a deep stem',
}


class Imported(NamedTuple):
  """A network from elsewhere.

  Attributes:
    network: At its resolutions.
    config: That of a finished run which would have made it.
    source: Its weights, and what was said of them there.
    notes: What a user should know, a line each.
  """

  network: Network
  config: ConfigDict
  source: sources.Source
  notes: tuple[str, ...]


def load(source: str | pathlib.Path, model: str | None = None, **options: Any) -> Network:
  """Returns a network of torch's; arguments and errors as of `read`."""
  return read(source, model, **options).network


def read(
  source: str | pathlib.Path,
  model: str | None = None,
  *,
  resolutions: Sequence[int] | None = None,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  crop_fraction: float | None = None,
  interpolation: str | None = None,
  class_names: Sequence[str] | None = None,
  averaged: bool = False,
  fields: Sequence[str] = (),
) -> Imported:
  """Returns a network of torch's, with what its source says of it.

  Nothing in a file is run. What is not given here is taken from the source, and where that says nothing, from
  torchvision's evaluation: ImageNet's mean and deviation, 0.875, bilinear; for the layout of RS-Net's authors no
  normalisation.

  Args:
    source: A file (safetensors, `.pth`, `.pth.tar`), a folder with config.json and model.safetensors, or
      `hf-hub:OWNER/NAME`.
    model: A key of `ARCHITECTURES`; None: as the source says, or where that says nothing, as its keys do.
    resolutions: Input sizes in pixels, highest first; None: those of the default recipe, or of several BatchNorms those
      that the source says. The weights of one network
      give each the same normalisers.
    mean: Of each channel, of values in [0, 1]; goes with `std`.
    std: The standard deviation of each channel.
    crop_fraction: The crop's share of the resized image's shorter side.
    interpolation: 'bilinear' or 'bicubic'.
    class_names: By class index.
    averaged: Whether a checkpoint's moving average of the weights is meant; where it has nothing else, that is taken.
    fields: Else that the config of the workdir says, such as where the data are, as `--config.FIELD=VALUE`.

  Raises:
    FileNotFoundError: The source is not there.
    ValueError: It is damaged, its keys are not those of the model (all are named), a tensor is not finite, or an option
      does not fit.
    OSError: It can't be read.
  """
  config = recipes.make('default', fields)
  if resolutions is not None:
    config.resolutions = tuple(resolutions)
  configuration.validate(config)
  found = sources.read(source, config.resolutions[0], averaged)
  torch_layout.check_layout(found.tensors, found.name)
  finite.check(found.tensors, found.name)
  (name, config.model.width), *notes = _architecture(found, model)
  layout = layouts.layout_of(found.tensors)
  notes.append(_sizes(config, found, layout, resolutions is None))
  head = found.tensors.get(layouts.head_of(name, layout))
  config.model.name, config.model.num_classes = name, len(head) if head is not None and head.ndim == 2 else 1000
  _preprocessing(config, found, layout, mean, std, crop_fraction, interpolation)
  configuration.validate(config, settled=True)
  _check_fields(config, fields)
  network = models.from_config(config)
  variables = torch_layout.variables_of(found.tensors, network, config.resolutions, found.name)
  names, note = _class_names(found, class_names, config.model.num_classes)
  notes = [line for line in (*notes, found.note, note) if line]
  return Imported(trained.of_config(config, variables, names), config, found, tuple(notes))


def save(imported: Imported, workdir: str | pathlib.Path) -> None:
  """Writes an imported network as the workdir of a finished run, which all commands open.

  Raises:
    FileExistsError: The workdir holds a run already.
    OSError: It can't be written.
  """
  source = imported.source
  origin = {'source': source.name, 'architecture': source.architecture, 'license': source.license}
  trained.save(trained.Trained(imported.network, imported.config, 0, True, origin), workdir)


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
  """Returns the names of ImageNet's 1,000 classes by index, as torchvision (BSD 3-Clause) has them."""
  text = importlib.resources.files('resjax.interop').joinpath('imagenet_classes.txt').read_text(encoding='utf-8')
  return tuple(text.splitlines())


def _architecture(found: sources.Source, model: str | None) -> tuple[tuple[str, float], str]:
  """Which of our models is meant, and its width; and what should be said of that."""
  known = ', '.join(ARCHITECTURES)
  meant = None if model is None else ARCHITECTURES.get(_plain(model))
  if model is not None and meant is None:
    raise ValueError(f'model: got {model!r}, expected one of {known}')
  by_keys = layouts.guess(found.tensors)
  of = next((name for name, ours in ARCHITECTURES.items() if ours == by_keys), None)
  if found.architecture is None:
    if meant is not None and of is not None and meant != by_keys:
      raise ValueError(f'model: got {model!r}, expected {of!r}, whose keys {found.name} has')
    if meant is not None:
      return meant, ''
    if by_keys is None or of is None:
      raise ValueError(
        f'model: missing, and {found.name} does not say it, nor has it the keys and shapes of one of {known}; with '
        '--model=NAME all that differs from that one is listed'
      )
    return by_keys, f'model: taken for {of} by its keys, which is all that the source says'
  said = _plain(found.architecture)
  if said not in ARCHITECTURES:
    reason = next((what for part, what in _DIFFERENT.items() if re.search(part, said)), 'is a network that is not ours')
    raise ValueError(f'{found.name}: is a {said}, which {reason}; expected one of {known}')
  if meant is not None and meant != ARCHITECTURES[said]:
    raise ValueError(f'model: got {model!r}, expected {said!r}, which {found.name} says that it is')
  return ARCHITECTURES[said], ''


def _plain(name: str) -> str:
  """A name of torch's users without a tag, and what was before or behind it once."""
  return functools.reduce(lambda text, part: re.sub(part, '', text), _OLDER, name)


def _sizes(config: ConfigDict, found: sources.Source, layout: str, left: bool) -> str:
  """Takes the sizes that BatchNorms of several are of, where none were given; returns what to say of other ones."""
  there = found.resolutions
  if layout != 'rsnets' or there is None or there == config.resolutions:
    return ''
  if left and config.resolutions == recipes.make('default').resolutions:
    config.resolutions = there
    return ''
  sizes = ', '.join(map(str, there))
  return f'resolutions: the source was trained at {sizes} px, whose BatchNorms those given take, in their order'


def _check_fields(config: ConfigDict, fields: Sequence[str]) -> None:
  """Refuses fields that say of the network what its source, or an option, says otherwise; all are named."""
  usual, made = (configuration.flatten(each) for each in (recipes.make('default'), config))
  asked = configuration.flatten(recipes.make('default', fields))
  expected = {field: made[field] for field in made if field != 'resolutions'}
  expected |= {field: usual[field] for field in ('method', 'private', 'shared_batch_norm')}
  wrong = [field for field in expected if asked[field] not in (usual[field], expected[field])]
  if wrong:
    said = '; '.join(f'config.{field}: got {asked[field]!r}, expected {expected[field]!r}' for field in wrong)
    raise ValueError(f'{said}, which the source or an option of resjax import says')


def _preprocessing(
  config: ConfigDict,
  found: sources.Source,
  layout: str,
  mean: Sequence[float] | None,
  std: Sequence[float] | None,
  crop_fraction: float | None,
  interpolation: str | None,
) -> None:
  """Sets how images are prepared: as given, as the source says, or as its layout lets expect."""
  if (mean is None) != (std is None):
    raise ValueError('mean: got one of mean and std, expected both or neither')
  default = preprocess.NORMALIZATIONS['unit' if layout == 'rsnets' else 'imagenet']
  if mean is None or std is None:
    mean, std = found.mean or default[0], found.std or default[1]
  for what, values in (('mean', mean), ('std', std)):
    if any(not value <= 1 for value in values):
      raise ValueError(f'{what}: got {tuple(values)}, expected those of values from 0 to 1: divide them by 255')
  pair = tuple(mean), tuple(std)
  key = next((key for key, known in preprocess.NORMALIZATIONS.items() if known == pair), None)
  with config.ignore_type():
    config.data.normalize = key or pair
  for field, given, said in (
    ('crop_fraction', crop_fraction, found.crop_fraction),
    ('interpolation', interpolation, found.interpolation),
  ):
    chosen = said if given is None else given
    if chosen is not None:
      config.eval[field] = chosen


def _class_names(found: sources.Source, given: Sequence[str] | None, classes: int) -> tuple[tuple[str, ...], str]:
  """The names of the classes, and what should be said of them."""
  if given is not None:
    if len(given) != classes:
      raise ValueError(f'class_names: got {len(given)}, expected {classes}, one for each class')
    return tuple(given), ''
  if found.class_names is not None and len(found.class_names) == classes:
    return found.class_names, ''
  if found.class_names is not None:
    return (), f'classes: the source names {len(found.class_names)}, and there are {classes}, called by their numbers'
  if classes == len(imagenet_classes()):
    return imagenet_classes(), "classes: the source does not name them; 1,000 are taken for ImageNet's"
  return (), f'classes: the source does not name them; the {classes} are called by their numbers'
