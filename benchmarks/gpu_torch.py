"""The part of gpu.py that is PyTorch's: RS-Net's training step in channels_last and bfloat16 autocast."""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch_models
import torch_rsnet
from gpu_figures import seconds_of, tell

from resjax.measuring import turns


def torch_step(options: dict) -> None:
  """Times PyTorch's step, by torch.compile and eager.

  What torch.compile does comes first; then the part waits for a line on the standard input: its turn on the device.
  Reads `model`, `classes`, `resolutions`, `batch`, `dtype` and `compiled`.
  """
  make = maker(options)
  prepared = None
  if options['compiled']:
    try:
      prepared = first(make(True))
    except Exception as error:  # of any kind, from a compiler
      tell(what='step', way='compiled', batch=options['batch'], error=f'{type(error).__name__}: {error}'[:300])
  print('READY', flush=True)
  sys.stdin.readline()
  torch.backends.cudnn.benchmark = True
  torch.set_float32_matmul_precision('high')
  if prepared:
    measure('compiled', *prepared, options)
  prepared = None  # the memory of the other is free
  measure('eager', *first(make(False)), options)


def maker(options: dict) -> Callable[[bool], Callable[[], torch.Tensor]]:
  """Returns what makes a step, compiled or not."""
  rng, side, batch = np.random.default_rng(0), options['resolutions'][0], options['batch']
  data = {
    'images': [rng.integers(0, 256, (batch, side, side, 3), np.uint8)],
    'label': rng.integers(0, options['classes'], batch),
  }

  def make(compiled: bool) -> Callable[[], torch.Tensor]:
    torch.manual_seed(0)
    return torch_rsnet.stepper(
      torch_models.create(options['model'], options['classes']),
      data,
      rate=0.1,
      channels_last=True,
      compiled=compiled,
      resolutions=options['resolutions'],
      device='cuda' if torch.cuda.is_available() else 'cpu',
      half=options['dtype'] == 'bfloat16',
      flip=True,
    )

  return make


def first(take: Callable[[], torch.Tensor]) -> tuple[Callable[[], torch.Tensor], list[float], float]:
  """Takes two steps, and returns the step, their losses and their seconds."""
  begin = time.perf_counter()
  losses = [float(take()), float(take())]
  return take, losses, time.perf_counter() - begin


def measure(way: str, take: Callable[[], Any], losses: list[float], start: float, options: dict) -> None:
  """Tells what a step takes."""
  batch, there = options['batch'], torch.cuda.is_available()
  if there:
    torch.cuda.reset_peak_memory_stats()
  found = seconds_of(take, torch.cuda.synchronize if there else lambda: None, options)
  tell(
    what='step',
    way=way,
    batch=batch,
    ms=turns.spread([1e3 * second for second in found]),
    images_per_s=turns.spread([batch / second for second in found]),
    start_s=start,
    peak_bytes=torch.cuda.max_memory_allocated() if there else None,
    loss=losses,
    versions={'torch': torch.__version__, 'cudnn': torch.backends.cudnn.version()},
  )
