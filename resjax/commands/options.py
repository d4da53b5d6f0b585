"""What several subcommands share: the trained network that they open, and how options are read and shown."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib.util
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress, track

from resjax.fields import near
from resjax.home import expanded
from resjax.resolution import Resolution, name, parse
from resjax.telling import printable, say, shown

# Fields of a run's config that may be set where its network is used.
_DATA = (
  *('data.source', 'data.name', 'data.dir', 'data.train_split', 'data.eval_split', 'data.size', 'data.cache'),
  'data.classes',
  'eval.calibration_split',
)

_LARGEST_BATCH = 2**16  # images

if TYPE_CHECKING:
  from resjax.inference import Classifier
  from resjax.inference.images import Chunk, Item


IMAGES = "a file, a folder of files, a pattern in quotes ('photos/*.jpg'), or - for a list of paths on standard input"


def images(named: Sequence[str]) -> list[Item]:
  """Returns what `IMAGE` arguments name; errors as of `inference.images.items` and `listed`."""
  from resjax.inference.images import items, listed

  return [item for name in named for item in (listed(sys.stdin.buffer) if name == '-' else items(name))]


def add_workdir(parser: argparse.ArgumentParser, *, bundles: bool = False, several: bool = False) -> None:
  """Adds what says which network is meant, and of which kind, and how it runs."""
  add_network(parser.add_mutually_exclusive_group(required=True), bundles=bundles, several=several)
  parser.add_argument('--step', type=step, help='of the checkpoint; default: the latest')
  parser.add_argument('--max-batch', type=batch, default=64, help='images of the largest program (64)')
  add_dtype(parser)
  add_runtime(parser)


def add_dtype(parser: argparse.ArgumentParser) -> None:
  """Adds the dtype of the computation; int8 is of bundles alone, and `with_dtype` says so of others."""
  about = "of the computation; default: the model's; int8: of a bundle that was exported so"
  parser.add_argument('--dtype', choices=('float32', 'bfloat16', 'int8'), help=about)


def add_network(which: Any, *, bundles: bool = False, several: bool = False) -> None:
  """Adds to a group what says which network is meant; a bundle that a command does not take is refused by `load`."""
  where = f'of the run that trained the network{", or a bundle" if bundles else ""}{"; or several" if several else ""}'
  action = 'append' if several else 'store'
  which.add_argument('--workdir', type=path, action=action, help=where)
  about = 'the folder that resjax export wrote, in the place of --workdir' if bundles else argparse.SUPPRESS
  which.add_argument('--bundle', dest='workdir', type=a_bundle, action=action, metavar='DIR', help=about)


def a_bundle(text: str) -> str:
  """Reads the folder of a bundle."""
  from resjax.exporting import bundle

  text = path(text)
  if not bundle.is_bundle(text):
    raise argparse.ArgumentTypeError(f'got {text}, without a {bundle.MANIFEST}, expected a bundle (--workdir: a run)')
  return text


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
  """Lets larger images pass, or fewer."""
  parser.add_argument('--max-pixels', type=positive, help='larger images are refused; default: as in the training')


def missing(package: str) -> str | None:
  """Returns the package's name where it is not installed, else None."""
  return package if importlib.util.find_spec(package) is None else None


def needs(package: str, flag: str) -> None:
  """Raises ValueError, saying what to install, where a package that an option needs is missing."""
  if missing(package):
    raise ValueError(f"{flag}: needs {package}: pip install 'resjax[{package}]'")


def add_runtime(parser: argparse.ArgumentParser) -> None:
  """Adds what says what runs the programs."""
  from resjax.inference.runtimes import NAMES

  extras = ', '.join(f'{name} needs resjax[{place.extra}]' for name, place in NAMES.items() if place.extra)
  parser.add_argument('--runtime', choices=NAMES, help=f'what runs it: {extras}; default: onnx on one CPU, if there')


def add_data(parser: argparse.ArgumentParser) -> None:
  """Lets fields say where the data are, for a run whose data were elsewhere, and for an imported network."""
  parser.set_defaults(config=None)
  parser.epilog = 'Other data than the run has are named as --config.data.source=folder --config.data.dir=DIR.'


def load(options: argparse.Namespace, *, bundles: bool = False) -> tuple[Classifier, Any]:
  """Returns the classifier that the options name, and the config of the run that trained it; of a bundle None.

  Args:
    options: As `add_workdir` describes them.
    bundles: A bundle may be named.

  Raises:
    ValueError: As of `check_data_fields`; a field is set for a bundle; a bundle is named, and none may be; and as of
      `trained.read` and `bundle.read`.
  """
  check_data_fields(options.fields)
  from absl import logging

  from resjax import compiling, trained
  from resjax.exporting import bundle
  from resjax.inference import Classifier
  from resjax.inference.opening import limited, opened

  logging.set_verbosity(logging.WARNING)
  compiling.keep_compiled_programs()
  options_of_engine = {'max_batch': options.max_batch, 'dtype': options.dtype, 'runtime': options.runtime}
  if bundle.is_bundle(options.workdir):
    if options.fields or not bundles:
      got = f'{options.workdir}, a bundle{"".join(f", and {field}" for field in options.fields)}'
      raise ValueError(f'--workdir: got {got}, expected one of a run; predict, calibrate and serve take bundles')
    network = opened(options.workdir, options.step, options.max_pixels)
    return Classifier(network, workdir=options.workdir, **options_of_engine), None
  found = trained.read(options.workdir, step=options.step)
  config = with_data(found.config, options.fields)
  network = limited(found.network, options.max_pixels)
  return Classifier(network, workdir=options.workdir, **options_of_engine), config


def tell_left_out(chunk: Chunk) -> None:
  """Names the images of a chunk that could not be read, and why."""
  for image, error in zip(chunk.names, chunk.errors):
    if error is not None:
      say(f'{printable(image)}: {printable(error)}; left out', sys.stderr)


def tell_unfinished(found: Any) -> None:
  """Says so where a network is not what its run ends with, since what is written of it does not say that any more."""
  if not found.finished:
    say(f'of step {found.step}, before the end of its training', sys.stderr)


def check_images_or_data(options: argparse.Namespace) -> None:
  """Raises ValueError where images are named and fields say where others are."""
  given = [field for field in options.fields if field.startswith('--config.')]
  if options.images and given:
    raise ValueError(f'{given[0]}: got with IMAGE, expected one of the two: images, or where the data of the run are')


def check_data_fields(fields: Sequence[str]) -> None:
  """Raises ValueError where a field is set that does not say where the data are."""
  for field in fields:
    name = field.removeprefix('--config.').partition('=')[0]
    if field.startswith('--config.') and name not in _DATA:
      hint = near(name, _DATA, 'config.')
      raise ValueError(f'{field}: got with --workdir, expected some of {", ".join(_DATA)} (where the data are){hint}')


def with_data(config: Any, fields: Sequence[str]) -> Any:
  """Returns a run's config with other data than the run had."""
  from resjax import recipes
  from resjax.data import subset

  config = recipes.with_fields(config.copy_and_resolve_references(), fields)
  if any(field.startswith('--config.data.classes') for field in fields):  # of the network's, which has more
    config.model.num_classes = len(subset.names_of(config.data.classes)) or config.model.num_classes
  return config


def without_data(config: Any, workdir: str) -> bool:
  """Whether a workdir holds an imported network, which has no images of its own, and fields name none either."""
  from resjax import checkpoint

  return config.data.source == 'tfds' and not config.data.dir and bool(checkpoint.load_meta(workdir).get('origin'))


def resolution(text: str) -> Resolution:
  """Reads `160` or `128x192` (height x width), in pixels."""
  try:
    return parse(text)
  except ValueError as error:
    raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
  """Reads an integer above 0."""
  return _integer(text, 1, 'a positive integer')


def step(text: str) -> int:
  """Reads the number of a step."""
  return _integer(text, 0, 'an integer, 0 or more')


def batch(text: str) -> int:
  """Reads how many images a program takes at once."""
  return _integer(text, 1, f'a positive integer, at most {_LARGEST_BATCH:,}', _LARGEST_BATCH)


def _integer(text: str, least: int, expected: str, most: int = 2**31 - 1) -> int:
  """Reads an integer from some range."""
  number = int(text) if text.isdecimal() and len(text) < 20 else -1
  if not least <= number <= most:
    raise argparse.ArgumentTypeError(f'got {shown(text)}, expected {expected}')
  return number


def fraction(text: str) -> float:
  """Reads a number above 0, at most 1."""
  try:
    found = float(text)
  except ValueError:
    found = 0.0
  if not 0 < found <= 1:
    raise argparse.ArgumentTypeError(f'got {shown(text)}, expected more than 0, at most 1')
  return found


def path(text: str) -> str:
  """Reads the path of a file or folder; `~` stands for the home folder."""
  if not text:
    raise argparse.ArgumentTypeError("got '', expected a path")
  try:
    found = expanded(text, 'path')
    os.path.lexists(found) or os.stat(found)
  except ValueError as error:  # the home of no user, or what no file name holds
    raise argparse.ArgumentTypeError(f'{error}') from None
  except OSError as error:
    if error.errno == errno.ENAMETOOLONG:
      raise argparse.ArgumentTypeError(f'got {shown(text)}, expected a shorter path') from None
  return found


def image(text: str) -> str:
  """Reads what names images: one that is there as it is named, else as of `path`."""
  return text if os.path.lexists(text) else path(text)


def pixels(resolution: Resolution | None) -> str:
  """Shows a resolution as `resolution` reads it."""
  return '' if resolution is None else name(resolution)


def shard(text: str) -> tuple[int, int]:
  """Reads `I/N`."""
  numbers = [int(number[:18]) if number.isdecimal() else -1 for number in text.split('/')]
  if len(numbers) != 2 or not 0 <= numbers[0] < numbers[1]:
    raise argparse.ArgumentTypeError(f'got {shown(text)}, expected I/N with I from 0 to N - 1')
  return numbers[0], numbers[1]


def tell_other_data(workdir: str, config: Any, split: str, source: Any, step: int | None = None) -> None:
  """Says so where a split is no longer what a run was scored on, or trained on.

  Args:
    workdir: Of the run.
    config: Of the run, with what was set here.
    split: That `source` is of.
    source: What is to be used.
    step: Of the checkpoint; None: the latest.
  """
  from resjax import checkpoint
  from resjax.data import identity

  before = checkpoint.load_meta(workdir, step=step).get('data') or {}
  uses = {config.data.train_split: ('train', 'trained'), config.data.eval_split: ('eval', 'scored')}
  part, done = uses.get(split, ('', ''))
  if part in before:
    for line in identity.check(before, {part: identity.of(source)}, pathlib.Path(workdir), allowed=True):
      say(f'{workdir}: these are not the images that the run was {done} on; {line}', sys.stderr)


@contextlib.contextmanager
def bar(total: int, what: str) -> Iterator[Callable[[int], None]]:
  """Yields a function that says how many more are done, shown as a bar where standard error is a terminal."""
  console = Console(stderr=True)
  with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
    task = progress.add_task(what, total=total)
    yield lambda count: progress.advance(task, count)


def progress(rows: Iterable[Any], total: int, what: str) -> Iterator[Any]:
  """Yields the rows, with a bar on standard error where that is a terminal."""
  console = Console(stderr=True)
  yield from track(rows, what, total=total, console=console, disable=not console.is_terminal, transient=True)
