"""ResNet-18's convolutions on a CPU, one by one: XLA's beside PyTorch's, and a matrix product of the same size.

  pip install -e '.[test]'
  python benchmarks/conv_layers.py [--batch=8] [--threads=2] [--rounds=21] [--json=FILE]

For each shape at 224 px: the layer forward, its input's and its kernel's gradient, float32, channels last, in turns;
`ratio` is XLA's seconds over PyTorch's, the median over rounds. Rates are of the multiply-adds of one of the three;
`as a product` is XLA's rate for `[B H W, k k C] x [k k C, O]`, what a convolution would be if its patches were there.
"""

import argparse
import json
import os
import pathlib
from collections.abc import Callable

os.environ['JAX_PLATFORMS'] = 'cpu'

# Input's side, channels in and out, kernel, stride; how many there are in the network.
LAYERS = {
  (224, 3, 64, 7, 2): 1,
  (56, 64, 64, 3, 1): 4,
  (56, 64, 128, 3, 2): 1,
  (28, 128, 128, 3, 1): 3,
  (28, 128, 256, 3, 2): 1,
  (14, 256, 256, 3, 1): 3,
  (14, 256, 512, 3, 2): 1,
  (7, 512, 512, 3, 1): 3,
}
PARTS = ('forward', 'input', 'kernel')
TOLERANCE = 1e-4  # of the largest entry: float32 sums of thousands in another order


def parse() -> argparse.Namespace:
  """The options."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--threads', type=int, default=2, help='processors')
  parser.add_argument('--rounds', type=int, default=21)
  parser.add_argument('--json', help='write the figures to this file')
  return parser.parse_args()


def calls(layer: tuple[int, ...], batch: int) -> dict[str, Callable]:
  """XLA's and PyTorch's parts of a layer, by name, and XLA's product; each waits for its result and returns it."""
  import jax
  import numpy as np
  import torch

  side, inputs, outputs, kernel, stride = layer
  rng, pad = np.random.default_rng(0), kernel // 2
  x = rng.normal(size=(batch, side, side, inputs)).astype(np.float32)
  w = rng.normal(size=(kernel, kernel, inputs, outputs)).astype(np.float32)

  def conv(x, w):
    numbers = ('NHWC', 'HWIO', 'NHWC')
    return jax.lax.conv_general_dilated(x, w, (stride, stride), [(pad, pad)] * 2, dimension_numbers=numbers)

  shape = jax.eval_shape(conv, x, w).shape
  g = rng.normal(size=shape).astype(np.float32)
  patches = rng.normal(size=(batch * shape[1] * shape[2], kernel * kernel * inputs)).astype(np.float32)
  xla = {
    'forward': (conv, x, w),
    'input': (lambda x, w, g: jax.vjp(lambda x: conv(x, w), x)[1](g)[0], x, w, g),
    'kernel': (lambda x, w, g: jax.vjp(lambda w: conv(x, w), w)[1](g)[0], x, w, g),
    'product': (lambda a, b: a @ b, patches, w.reshape(-1, outputs)),
  }
  found: dict[str, Callable] = {}
  for part, (function, *arrays) in xla.items():
    compiled, given = jax.jit(function), [jax.device_put(array) for array in arrays]
    found[f'xla {part}'] = lambda compiled=compiled, given=given: compiled(*given).block_until_ready()

  def last(array: np.ndarray, *order: int) -> torch.Tensor:
    return torch.tensor(array).permute(*order).contiguous(memory_format=torch.channels_last)

  tx, tw, tg = last(x, 0, 3, 1, 2), last(w, 3, 2, 0, 1), last(g, 0, 3, 1, 2)

  def backward(which: int) -> torch.Tensor:
    mask = [place == which for place in range(3)]
    sizes = (stride, stride), (pad, pad), (1, 1), False, (0, 0), 1
    return torch.ops.aten.convolution_backward(tg, tx, tw, None, *sizes, mask)[which]

  found['torch forward'] = lambda: torch.nn.functional.conv2d(tx, tw, None, stride, pad).permute(0, 2, 3, 1)
  found['torch input'] = lambda: backward(0).permute(0, 2, 3, 1)
  found['torch kernel'] = lambda: backward(1).permute(2, 3, 1, 0)
  if inputs == 3:  # images: nobody asks for their gradient
    del found['xla input'], found['torch input']
  return found


def measure(layer: tuple[int, ...], options: argparse.Namespace) -> dict:
  """The figures of one layer."""
  import numpy as np

  from resjax.measuring import turns

  ways = calls(layer, options.batch)
  parts = [part for part in PARTS if f'xla {part}' in ways]
  for part in parts:
    ours, theirs = (np.asarray(ways[f'{who} {part}']()) for who in ('xla', 'torch'))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())
  seconds = turns.seconds(ways, rounds=options.rounds, warm_up=2)
  side, inputs, outputs, kernel, stride = layer
  macs = options.batch * (side // stride) ** 2 * inputs * outputs * kernel**2
  row = {'layer': layer, 'times': LAYERS[layer], 'macs': macs, 'product': turns.spread(seconds['xla product'])}
  for part in parts:
    row[part] = {who: turns.spread(seconds[f'{who} {part}']) for who in ('xla', 'torch')}
    row[part]['ratio'] = turns.ratio(seconds[f'xla {part}'], seconds[f'torch {part}'])
  return row


def main() -> None:
  """Prints the table."""
  options = parse()
  if hasattr(os, 'sched_setaffinity'):  # before the libraries start their threads
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
  import cpu_tables
  import figures
  import torch

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
