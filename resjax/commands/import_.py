"""Makes a pretrained network of torch resolution-switchable: a workdir as of a finished run, to predict, calibrate.

resjax import resnet50.safetensors --model=resnet50 --workdir=runs/resnet50
resjax import hf-hub:timm/resnet50.a1_in1k --workdir=runs/resnet50

SOURCE is a file (safetensors, .pth, .pth.tar), a folder with config.json and model.safetensors, or hf-hub:OWNER/NAME.
Nothing in it is ever run. How images are prepared comes from the source where it says so, else from torchvision;
options set each of it. Where the data are is set as --config.data.FIELD=VALUE, for `resjax report`.
"""

import argparse
import pathlib
from collections.abc import Sequence

from resjax.commands import options as shared
from resjax.telling import flag, say, shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Describes the arguments."""
  parser.add_argument('source', metavar='SOURCE', type=shared.image, help='a file, a folder, or hf-hub:OWNER/NAME')
  parser.add_argument('--workdir', required=True, type=shared.path, help='of the network, a new folder')
  parser.add_argument('--model', help='such as resnet50 or mobilenetv2; default: what the source, or its keys, say')
  parser.add_argument('--resolutions', help='in pixels, highest first (224,192,160,128,96)')
  parser.add_argument('--mean', help='of each channel, of values from 0 to 1: 0.485,0.456,0.406')
  parser.add_argument('--std', help='the standard deviation of each channel')
  parser.add_argument(
    '--crop-fraction', type=shared.fraction, help="the crop's share of the resized image's side (0.875)"
  )
  parser.add_argument('--interpolation', choices=('bilinear', 'bicubic'), help='of resizing (bilinear)')
  parser.add_argument(
    '--labels', type=shared.path, help="a file with a class's name a line; default: the source's, or ImageNet's 1,000"
  )
  parser.add_argument('--ema', action='store_true', help="a checkpoint's moving average of the weights")
  parser.set_defaults(config='default')


def run(options: argparse.Namespace) -> None:
  """Imports, and says what was found."""
  from absl import logging

  from resjax import interop, preprocess

  logging.set_verbosity(logging.WARNING)
  imported = interop.read(
    options.source,
    options.model,
    resolutions=_numbers(options, 'resolutions', int),
    mean=_numbers(options, 'mean', float),
    std=_numbers(options, 'std', float),
    crop_fraction=options.crop_fraction,
    interpolation=options.interpolation,
    class_names=_lines(options.labels),
    averaged=options.ema,
    fields=options.fields,
  )
  interop.save(imported, options.workdir)
  config, network = imported.config, imported.network
  mean, std = (', '.join(f'{v:g}' for v in part) for part in preprocess.mean_and_std(config.data.normalize))
  sizes = ', '.join(map(str, network.resolutions))
  print(f'{config.model.name}, {network.num_classes:,} classes, at {sizes} px')
  print(
    f'images: {config.eval.interpolation}, crop fraction {config.eval.crop_fraction:g}, mean {mean}, deviation {std}'
  )
  for note in imported.notes:
    say(note)
  if imported.source.license:
    say(f'license of the weights: {imported.source.license}')
  say(f'In {options.workdir}; now: resjax predict IMAGE ... {flag("workdir", options.workdir)}')


def _numbers(options: argparse.Namespace, name: str, kind: type) -> Sequence | None:
  """The comma-separated numbers of an option, or None where it was not given.

  Raises:
    ValueError: One is none.
  """
  text = getattr(options, name)
  if text is None:
    return None
  try:
    return tuple(kind(word) for word in text.split(','))
  except ValueError:
    example = '224,160,96' if kind is int else '0.5,0.5,0.5'
    raise ValueError(f'--{name}: got {shown(text)}, expected numbers such as {example}') from None


def _lines(path: str | None) -> list[str] | None:
  """The names in a file, a line each, printable; an empty line is its class's number. None where no file was named.

  Raises:
    ValueError: They are no text.
  """
  from resjax.telling import printable

  if path is None:
    return None
  try:
    text = pathlib.Path(path).read_text(encoding='utf-8-sig')
  except UnicodeDecodeError as error:
    raise ValueError(f"--labels: {path}: {error}; expected UTF-8, a class's name a line") from None
  lines = (printable(line.replace('\t', ' ').strip()) for line in text.rstrip().split('\n'))
  return [line or str(number) for number, line in enumerate(lines)]
