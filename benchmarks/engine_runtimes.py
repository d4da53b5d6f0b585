"""The engine's two runtimes on one CPU, in turns: XLA and ONNX Runtime, the same programs, from crops to logits.

  pip install -e '.[ort]'
  python benchmarks/engine_runtimes.py [--models=resnet18,mobilenetv2] [--resolutions=224,96] [--batches=1,8,64]
    [--rounds=7]

Random weights, crops of the largest of the resolutions; answers are compared before anything is timed. `ratio` is the
median over rounds of ONNX Runtime's seconds over XLA's of the same round, with the quartiles: below 1, ONNX Runtime is
faster. `once` is ONNX Runtime with the weights there once for all resolutions (`OnnxRuntime(..., share=True)`).
"""

import argparse
import functools
import os
import platform
from collections.abc import Callable

os.environ['JAX_PLATFORMS'] = 'cpu'

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime

from resjax import models, switchable
from resjax.inference import XlaRuntime, programs
from resjax.inference.runtimes.onnx import OnnxRuntime
from resjax.measuring import turns
from resjax.network import Network

TOLERANCE = 1e-4  # of the largest logit: sums of thousands of float32 products in another order


def network(name: str, resolutions: tuple[int, ...]) -> Network:
  """A network as it is initialised."""
  model = models.create(name, num_classes=1000)
  plain = jax.jit(lambda key: model.init(key, jnp.zeros((1, 64, 64, 3)), train=False))(jax.random.key(0))
  return Network(model, switchable.share(plain, resolutions), resolutions)


def call(runtime: XlaRuntime | OnnxRuntime, crops: np.ndarray, place: int) -> Callable[[], np.ndarray]:
  """One program, from crops on the host to logits on the host."""
  rows = np.arange(len(crops))
  return lambda: np.asarray(runtime.dispatch(runtime.put(crops), place, len(crops), rows))


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--models', default='resnet18,mobilenetv2')
  parser.add_argument('--resolutions', default='224,96')
  parser.add_argument('--batches', default='1,8,64')
  parser.add_argument('--rounds', type=int, default=7)
  options = parser.parse_args()
  resolutions, batches = (tuple(map(int, text.split(','))) for text in (options.resolutions, options.batches))
  print(
    f'float32, {len(os.sched_getaffinity(0))} processors, {options.rounds} rounds; python {platform.python_version()}'
  )
  print(f'jax {jax.__version__}, onnxruntime {onnxruntime.__version__}\n')
  print('| model | input | batch | XLA, ms per image | ONNX Runtime | ratio [quartiles] | once | ratio [quartiles] |')
  print('|---|---|---|---|---|---|---|---|')
  for name in options.models.split(','):
    made = programs.of_network(network(name, resolutions))
    ways = {'xla': XlaRuntime, 'onnx': OnnxRuntime, 'once': functools.partial(OnnxRuntime, share=True)}
    runtimes = {way: make(made) for way, make in ways.items()}
    for runtime in runtimes.values():
      runtime.compile(batches)
    for place, resolution in enumerate(resolutions):
      for batch in batches:
        crops = np.random.default_rng(0).integers(0, 256, (batch, *made[0].shape), np.uint8)
        calls = {way: call(runtime, crops, place) for way, runtime in runtimes.items()}
        logits = {way: run() for way, run in calls.items()}
        for other in logits.values():
          np.testing.assert_allclose(other, logits['xla'], rtol=0, atol=TOLERANCE * np.abs(logits['xla']).max())
        seconds = turns.seconds(calls, rounds=options.rounds)
        cells = [f'{1e3 * turns.spread(seconds["xla"])["median"] / batch:.1f}']
        for way in ('onnx', 'once'):
          ratio = turns.ratio(seconds[way], seconds['xla'])
          cells += [f'{1e3 * turns.spread(seconds[way])["median"] / batch:.1f}']
          cells += [f'{ratio["median"]:.2f} [{ratio["low"]:.2f}, {ratio["high"]:.2f}]']
        print(f'| {name} | {resolution} | {batch} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
  main()
