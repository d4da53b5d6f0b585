"""ResNets' convolutions on a CPU, one by one: XLA's, and what resjax runs of 1x1, beside PyTorch's.

  pip install -e '.[test]'
  python benchmarks/conv_layers.py [--batch=8] [--threads=2] [--rounds=21] [--json=FILE]

For each shape at 224 px: the layer forward, its input's and its kernel's gradient, float32, channels last, in turns;
`over PyTorch` is the median over rounds of a way's seconds over PyTorch's. Rates are of the multiply-adds of one of the
three. XLA's programs are compiled as training's are (`compiling.options`). The sums are of ResNet-18's layers, but for
its three shortcuts of 1x1.
"""

import argparse
import json
import os
import pathlib
from collections.abc import Callable

os.environ['JAX_PLATFORMS'] = 'cpu'

# Input's side, channels in and out, kernel, stride; how many there are in ResNet-18. Those of 1x1 are ResNet-50's.
LAYERS = {
  (224, 3, 64, 7, 2): 1,
  (56, 64, 64, 3, 1): 4,
  (56, 64, 128, 3, 2): 1,
  (28, 128, 128, 3, 1): 3,
  (28, 128, 256, 3, 2): 1,
  (14, 256, 256, 3, 1): 3,
  (14, 256, 512, 3, 2): 1,
  (7, 512, 512, 3, 1): 3,
  (56, 64, 256, 1, 1): 0,
  (56, 256, 64, 1, 1): 0,
  (28, 512, 128, 1, 1): 0,
  (14, 1024, 256, 1, 1): 0,
  (7, 512, 2048, 1, 1): 0,
}
TOLERANCE = 1e-4  # of the largest entry: float32 sums of thousands in another order


def parse() -> argparse.Namespace:
  """The options."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--threads', type=int, default=2, help='processors')
  parser.add_argument('--rounds', type=int, default=21)
  parser.add_argument('--json', help='write the figures to this file')
  return parser.parse_args()


def calls(layer: tuple[int, ...], batch: int) -> dict[tuple[str, str], Callable]:
  """Ways to compute a layer's parts, by way and part; each waits for its result and returns it."""
  import jax
  import numpy as np
  import torch

  from resjax import compiling
  from resjax.models.cpu.pointwise import pointwise

  side, inputs, outputs, kernel, stride = layer
  rng, pad = np.random.default_rng(0), kernel // 2
  x = rng.normal(size=(batch, side, side, inputs)).astype(np.float32)
  w = rng.normal(size=(kernel, kernel, inputs, outputs)).astype(np.float32)

  def conv(x, w):
    numbers = ('NHWC', 'HWIO', 'NHWC')
    return jax.lax.conv_general_dilated(x, w, (stride, stride), [(pad, pad)] * 2, dimension_numbers=numbers)

  g = rng.normal(size=jax.eval_shape(conv, x, w).shape).astype(np.float32)
  given = [jax.device_put(array) for array in (x, w, g)]

  def compiled(function: Callable) -> Callable:
    run = jax.jit(function, compiler_options=compiling.options('cpu', 'training'))
    return lambda: run(*given).block_until_ready()

  found: dict[tuple[str, str], Callable] = {}
  for way, function in {'XLA': conv, **({'resjax': pointwise} if kernel == 1 else {})}.items():
    of = {
      'forward': lambda x, w, g, function=function: function(x, w),
      'input': lambda x, w, g, function=function: jax.vjp(lambda x: function(x, w), x)[1](g)[0],
      'kernel': lambda x, w, g, function=function: jax.vjp(lambda w: function(x, w), w)[1](g)[0],
    }
    found |= {(way, part): compiled(run) for part, run in of.items()}

  def last(array: np.ndarray, *order: int) -> torch.Tensor:
    return torch.tensor(array).permute(*order).contiguous(memory_format=torch.channels_last)

  tx, tw, tg = last(x, 0, 3, 1, 2), last(w, 3, 2, 0, 1), last(g, 0, 3, 1, 2)

  def backward(which: int) -> torch.Tensor:
    mask = [place == which for place in range(3)]
    sizes = (stride, stride), (pad, pad), (1, 1), False, (0, 0), 1
    return torch.ops.aten.convolution_backward(tg, tx, tw, None, *sizes, mask)[which]

  found['PyTorch', 'forward'] = lambda: torch.nn.functional.conv2d(tx, tw, None, stride, pad).permute(0, 2, 3, 1)
  found['PyTorch', 'input'] = lambda: backward(0).permute(0, 2, 3, 1)
  found['PyTorch', 'kernel'] = lambda: backward(1).permute(2, 3, 1, 0)
  if inputs == 3:  # images: nobody asks for their gradient
    found = {(way, part): call for (way, part), call in found.items() if part != 'input'}
  return found


def measure(layer: tuple[int, ...], options: argparse.Namespace) -> dict:
  """The figures of one layer."""
  import numpy as np

  from resjax.measuring import turns

  ways = calls(layer, options.batch)
  for (_, part), call in ways.items():
    expected = np.asarray(ways['PyTorch', part]())
    np.testing.assert_allclose(np.asarray(call()), expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())
  seconds = turns.seconds(ways, rounds=options.rounds, warm_up=2, settle=turns.SETTLE)
  side, inputs, outputs, kernel, stride = layer
  macs = options.batch * (-(-side // stride)) ** 2 * inputs * outputs * kernel**2
  row = {'layer': layer, 'times': LAYERS[layer], 'macs': macs, 'ways': {}}
  for (way, part), spent in seconds.items():
    found = turns.spread(spent) | {'over_pytorch': turns.ratio(spent, seconds['PyTorch', part])}
    row['ways'].setdefault(way, {})[part] = found
  return row


def main() -> None:
  """Prints the table."""
  options = parse()
  if hasattr(os, 'sched_setaffinity'):  # before the libraries start their threads
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
  import cpu_tables
  import figures
  import torch

  from resjax import compiling

  compiling.keep_memory()  # as `resjax train` does, before JAX looks for devices
  torch.set_num_threads(options.threads)
  torch.set_grad_enabled(False)
  rows = [measure(layer, options) for layer in LAYERS]
  note = f'{options.batch} images, float32, {options.threads} threads, {options.rounds} rounds'
  kept = figures.described('jax', 'torch') | {'note': note, 'rows': rows}
  print('\n'.join(cpu_tables.conv_layers([kept])))
  if options.json:
    pathlib.Path(options.json).write_text(json.dumps(kept, indent=1) + '\n')


if __name__ == '__main__':
  main()
