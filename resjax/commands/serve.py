"""Answers images over HTTP; where answers come late, resolutions go down instead of answers getting later.

resjax serve --workdir=runs/drnet_quickstart --p95=50ms
curl --data-binary @photo.jpg http://127.0.0.1:8000/predict
"""

import argparse
import re
import sys

from resjax.commands import options as shared
from resjax.routing import choosable


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Describes the arguments."""
  shared.add_workdir(parser, bundles=True)
  shared.add_max_pixels(parser)
  parser.set_defaults(max_batch=16)
  how = parser.add_mutually_exclusive_group()
  how.add_argument('--resolution', type=shared.resolution, help='one for all, in pixels: 160, or 128x192')
  how.add_argument('--budget', help='mean cost of an image, as of resjax predict; a request may name its own')
  how.add_argument('--p95', type=seconds, metavar='TIME', help='turn the dial to keep this deadline: 50ms, or 0.5s')
  parser.add_argument('--min-resolution', type=shared.resolution, help='with --p95: the lowest to turn to')
  parser.add_argument(
    '--router', help=f'{", ".join(choosable())}; default: the first it has; with --p95 also static, see docs/serving.md'
  )
  parser.add_argument('--top-k', type=shared.positive, default=1, metavar='K', help='name so many classes (1)')
  parser.add_argument('--host', default='127.0.0.1', help='address to listen on (127.0.0.1: this machine alone)')
  parser.add_argument('--port', type=port, default=8000, help='to listen on (8000); 0: any that is free')
  parser.add_argument('--capacity', type=shared.batch, default=64, help='images under way; more are refused (64)')
  parser.add_argument('--max-bytes', type=shared.positive, default=10 << 20, help='of a request (10 MiB)')
  parser.add_argument('--timeout', type=seconds, default=10.0, metavar='TIME', help='of a request (10s)')
  parser.add_argument('--decoders', type=decoders, default=2, help='processes that decode, two or more (2)')


def run(options: argparse.Namespace) -> None:
  """Serves until it is told to stop."""
  for package in ('aiohttp', 'mosec', 'msgspec', 'prometheus_client'):
    if shared.missing(package):
      raise ValueError(f"serve: needs {package}: pip install 'resjax[serve]'")
  if options.min_resolution is not None and options.p95 is None:
    raise ValueError(f'--min-resolution: got {shared.pixels(options.min_resolution)} without --p95, expected both')
  if options.router is not None and options.resolution is not None:
    raise ValueError(f'--router: got {options.router} with --resolution, expected one or the other')
  from resjax.serving.server import serve
  from resjax.serving.settings import Settings

  settings = Settings(
    workdir=options.workdir,
    step=options.step,
    max_pixels=options.max_pixels,
    max_batch=options.max_batch,
    dtype=options.dtype,
    runtime=options.runtime,
    resolution=shared.pixels(options.resolution) or None,
    budget=options.budget,
    router=options.router,
    p95=options.p95,
    min_resolution=shared.pixels(options.min_resolution) or None,
    top_k=options.top_k,
    capacity=options.capacity,
    max_bytes=options.max_bytes,
    timeout=options.timeout,
    decoders=options.decoders,
  )
  serve(settings, options.host, options.port, lambda line: print(line, file=sys.stderr, flush=True))


def seconds(text: str) -> float:
  """Reads `50ms` or `2s`."""
  match = re.fullmatch(r'([0-9]+(?:\.[0-9]+)?)(ms|s)', text.strip())
  found = float(match[1]) * (1e-3 if match[2] == 'ms' else 1) if match else 0.0
  if not 0 < found <= 86_400:
    raise argparse.ArgumentTypeError(
      f'got {text!r}, expected a time above 0, at most a day, with its unit, such as 50ms or 2s'
    )
  return found


def port(text: str) -> int:
  """Reads 0 to 65535."""
  if not text.isdecimal() or int(text[:9]) > 65535:
    raise argparse.ArgumentTypeError(f'got {text!r}, expected 0 to 65535')
  return int(text)


def decoders(text: str) -> int:
  """Reads an integer from 2 on: while one is started again, another works."""
  if not text.isdecimal() or int(text[:9]) < 2 or len(text) > 4:
    raise argparse.ArgumentTypeError(f'got {text!r}, expected 2 to 9,999')
  return int(text)
