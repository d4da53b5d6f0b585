"""A bundle: a folder with a network as ONNX files and all that routing with them takes; written, checked and read."""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, NoReturn

import jax
import numpy as np

from resjax import checksums, formats, preprocess
from resjax.exporting.names import PREDICTOR, WEIGHTS, file_of
from resjax.network import Function, Network
from resjax.preprocess import Preprocessing
from resjax.resolution import Branch, Resolution, name, parse, sides, square
from resjax.routing import Budget
from resjax.telling import utf8

# What the files are called, besides those of ONNX.
MANIFEST = 'manifest.json'
EXAMPLE = 'example.py'
KIND = 'resjax bundle'

# Knobs by router and budget.
Knobs = Mapping[tuple[str, Budget], float]


class Scorer(NamedTuple):
  """What a bundle says of its predictor: the size that it looks at images in, pixels, and its multiply-adds."""

  size: int
  macs: int


@dataclasses.dataclass(frozen=True)
class OnnxFile:
  """A function that is a file, in the place of one of JAX.

  Attributes:
    path: Of the ONNX file.
  """

  path: pathlib.Path

  def __call__(self, variables: Any, crops: Any) -> NoReturn:
    """Refuses: JAX does not run it."""
    raise ValueError(f'runtime: got xla for {self.path}, expected onnx, which runs the files of a bundle')


@dataclasses.dataclass(frozen=True, eq=False)
class Bundle:
  """A network as the files of a bundle: what predicting takes of a `Network`, and no variables.

  Attributes:
    folder: Of the files.
    resolutions: As of `Network`.
    preprocessing: As of `Network`.
    class_names: As of `Network`.
    macs: As of `Network`.
    digest: Of the network that it was made from.
    predictor: Of its predictor, or None.
    knobs: That routers were set to.
    dtype: Of the network's computation, 'float32' or 'int8'; its predictor's is float32.
  """

  folder: pathlib.Path
  resolutions: tuple[Resolution, ...]
  preprocessing: Preprocessing
  class_names: tuple[str, ...]
  macs: tuple[int, ...]
  digest: str
  predictor: Scorer | None
  knobs: Knobs
  dtype: str = 'float32'

  runtime: ClassVar[str] = 'onnx'

  @property
  def num_classes(self) -> int:
    """The length of the logits."""
    return len(self.class_names)

  def function(self, resolution: Resolution) -> Function:
    """Returns what is run at one resolution."""
    return self._file(file_of(resolution), self.dtype)

  def scoring(self) -> Function:
    """Returns what is run of the predictor."""
    return self._file(PREDICTOR, 'float32')

  def _file(self, name: str, dtype: str) -> Function:
    """A file as what is run."""
    return Function(OnnxFile(self.folder / name), {}, f'{name} of {self.digest}', dtype)

  def recalibrated(self, resolution: Resolution, inputs: Any) -> NoReturn:
    """Refuses: files stay as they are."""
    raise ValueError(f'{self.folder}: a bundle, whose network stays as it is; expected the workdir of a run')

  def at(self, resolution: Resolution, how: str = 'interpolate') -> tuple['Bundle', str]:
    """Returns this bundle at one of its resolutions alone, without its predictor; and nothing to tell of it.

    Raises:
      ValueError: It has no such resolution.
    """
    if resolution not in self.resolutions:
      raise ValueError(
        f'resolution: got {resolution}, expected one of those in the bundle: {", ".join(map(str, self.resolutions))}'
      )
    macs = (self.macs[self.resolutions.index(resolution)],)
    return dataclasses.replace(self, resolutions=(resolution,), macs=macs, predictor=None), ''

  def with_dtype(self, dtype: str | None) -> 'Bundle':
    """Returns this bundle; ValueError for another dtype than its own."""
    if dtype not in (None, self.dtype):
      raise ValueError(f'dtype: got {dtype!r}, expected {self.dtype} with this bundle')
    return self


def is_bundle(folder: str | pathlib.Path) -> bool:
  """Whether a folder is a bundle, whole or not."""
  return (pathlib.Path(folder) / MANIFEST).is_file()


def write(
  network: Network,
  out: pathlib.Path,
  *,
  knobs: Knobs | None = None,
  origin: Mapping[str, Any] | None = None,
  stablehlo: bool = False,
  ranges: np.ndarray | None = None,
) -> None:
  """Writes a bundle.

  Args:
    network: Computing in float32.
    out: A new folder; its parent is there.
    knobs: Of routers, for the budgets that the bundle shall meet.
    origin: Where an imported network is from, its license among it.
    stablehlo: Also the network as StableHLO, which has the weights once more.
    ranges: Crops, for one that computes in int8, see `onnx.files`; None: in float32.

  Raises:
    ValueError: See `onnx.of_network` and `stablehlo.of_network`.
    OSError: It can't be written.
  """
  from resjax.exporting import onnx  # who reads needs no writer
  from resjax.exporting import stablehlo as hlo

  out.mkdir()
  files = onnx.files(network, ranges=ranges) | {EXAMPLE: _example()} | (hlo.files(network) if stablehlo else {})
  for file, content in files.items():
    (out / file).write_bytes(content)
  preprocessing, predictor = network.preprocessing, network.predictor
  mean, std = preprocess.mean_and_std(preprocessing.normalize)
  by_router: dict[str, dict[str, float]] = {}
  for (router, budget), knob in (knobs or {}).items():
    by_router.setdefault(router, {})[budget.exact] = knob
  manifest = {
    'kind': KIND,
    'format': formats.FORMAT,
    'dtype': 'float32' if ranges is None else 'int8',
    'resolutions': [name(r) if isinstance(r, Branch) else list(sides(r)) for r in network.resolutions],
    'models': [file_of(resolution) for resolution in network.resolutions],
    'macs': network.macs,
    'predictor': predictor and {'model': PREDICTOR, 'size': predictor.size, 'macs': predictor.macs},
    'preprocessing': {
      'crop_fraction': preprocessing.crop_fraction,
      'interpolation': preprocessing.interpolation,
      'max_pixels': preprocessing.max_pixels,
      'in the models': {'mean': mean, 'std': std, 'of values': '0 to 1'},
    },
    'knobs': by_router,
    'classes': network.class_names,
    'network': network.digest,
    'origin': origin and {**origin, 'source': _named(str(origin.get('source', '')))},
    'versions': {'resjax': formats.VERSION, 'jax': jax.__version__, 'onnx': importlib.metadata.version('onnx')},
    'files': {file: {'bytes': len(content), 'sha256': _sha256(content)} for file, content in files.items()},
  }
  plain = utf8(said := json.dumps(manifest, ensure_ascii=False)) == said
  checksums.write(out / MANIFEST, checksums.to_json(manifest, indent=1, ensure_ascii=not plain))


def read(folder: str | pathlib.Path) -> Bundle:
  """Returns a bundle whose files are all as they were written.

  Raises:
    FileNotFoundError: There is none.
    ValueError: It is damaged, or a newer version wrote it.
    OSError: It can't be read.
  """
  folder = pathlib.Path(folder)
  path = folder / MANIFEST
  if not path.is_file():
    raise FileNotFoundError(f'{path}: not there, expected the folder of a bundle')
  try:
    manifest = checksums.of_json(path.read_bytes())
    kind, number, files = manifest['kind'], manifest['format'], dict(manifest['files'])
  except (LookupError, TypeError, ValueError) as error:
    raise _damaged(path, error) from None
  if kind != KIND:
    raise ValueError(f'{path}: got kind {kind!r}, expected {KIND!r}')
  formats.check(number, path)
  try:
    bundle = _parsed(folder, manifest)
    sums = {pathlib.PurePath(listed).name: said['sha256'] for listed, said in files.items()}
    models = [WEIGHTS, *map(file_of, bundle.resolutions), *[PREDICTOR] * (bundle.predictor is not None)]
    if unlisted := [name for name in models if name not in sums]:
      raise ValueError(f'{unlisted[0]} is not among its files')
  except (LookupError, TypeError, AttributeError, ValueError) as error:
    raise _damaged(path, error) from None
  for listed, expected in sums.items():
    file = folder / listed
    if not file.is_file():
      raise ValueError(f'{file}: missing, and {MANIFEST} lists it; copy the bundle again')
    found = _sha256(file.read_bytes())
    if found != expected:
      raise ValueError(f'{file}: got sha256 {found[:12]}, expected {expected[:12]}; copy the bundle again')
  return bundle


def _damaged(path: pathlib.Path, error: Exception) -> ValueError:
  """What is raised for a manifest that is not one."""
  reason = f'{type(error).__name__}: {error}'
  return ValueError(f'{path}: damaged ({reason}), expected what resjax export writes; copy the bundle again')


def _parsed(folder: pathlib.Path, manifest: Mapping[str, Any]) -> Bundle:
  """A bundle as its manifest describes it."""
  preprocessing, predictor = manifest['preprocessing'], manifest['predictor']
  dtype = manifest.get('dtype', 'float32')  # which none had before some were in int8
  if dtype not in ('float32', 'int8'):
    raise ValueError(f'dtype is {dtype!r}')
  normal = preprocessing['in the models']
  return Bundle(
    folder=folder,
    resolutions=tuple(parse(r) if isinstance(r, str) else square(tuple(r)) for r in manifest['resolutions']),
    preprocessing=Preprocessing(
      (tuple(normal['mean']), tuple(normal['std'])),
      preprocessing['interpolation'],
      preprocessing['crop_fraction'],
      preprocessing['max_pixels'],
    ),
    class_names=tuple(manifest['classes']),
    macs=tuple(manifest['macs']),
    digest=manifest['network'],
    predictor=predictor and Scorer(predictor['size'], predictor['macs']),
    knobs={
      (router, Budget.parse(budget)): float(knob)
      for router, each in manifest['knobs'].items()
      for budget, knob in each.items()
    },
    dtype=dtype,
  )


def _named(source: str) -> str:
  """Where weights are from, without a folder of the machine that they were imported on."""
  return source if source.startswith('hf-hub:') else pathlib.PurePath(source).name


def _sha256(content: bytes) -> str:
  """The digest of a file."""
  return hashlib.sha256(content).hexdigest()


def _example() -> bytes:
  """The script that a bundle is run with where resjax is not."""
  return (pathlib.Path(__file__).parent / 'bundle_example.py').read_bytes()
