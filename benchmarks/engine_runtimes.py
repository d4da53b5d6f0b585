"""The engine's two runtimes on one CPU, in turns: XLA and ONNX Runtime, the same programs, from crops to logits.

  pip install -e '.[ort]'
  python benchmarks/engine_runtimes.py [--models=resnet18,mobilenetv2] [--resolutions=224,96] [--batches=1,8,64]
    [--rounds=7] [--json=FILE]

Random weights, crops of the largest of the resolutions; answers are compared before anything is timed. `ratio` is the
median over rounds of ONNX Runtime's seconds over XLA's of the same round, with the quartiles: below 1, ONNX Runtime is
faster. `once` is ONNX Runtime with the weights there once for all resolutions (`OnnxRuntime(..., share=True)`).

  python benchmarks/engine_runtimes.py --waits [--resolutions=224,192,160,128,96] [--rounds=15]

What threads that wait cost others: one image through all resolutions, one session after the other, and XLA at the
lowest resolution just after ONNX Runtime, where ONNX Runtime's threads sleep, as the engine has them, or spin, as they
do by default. A tenth of a second between all calls.

  python benchmarks/engine_runtimes.py --one [--resolutions=224,96] [--rounds=101]

One image at a time: `Classifier.predict_crops`, prediction and all, beside ONNX Runtime's program alone, in turns.
"""

import argparse
import functools
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator

os.environ['JAX_PLATFORMS'] = 'cpu'

import cpu_tables
import figures
import jax
import jax.numpy as jnp
import numpy as np
from figures import Figures

from resjax import Classifier, models, switchable
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


def waits(names: list[str], resolutions: tuple[int, ...], rounds: int) -> Iterator[Figures]:
  """Yields what threads that wait cost others."""
  last = len(resolutions) - 1
  for name in names:
    made = programs.of_network(network(name, resolutions))
    crops = np.random.default_rng(0).integers(0, 256, (1, *made[0].shape), np.uint8)
    xla = XlaRuntime(made)
    xla.compile((1,))
    after, shown = call(xla, crops, last), {}
    for way, spin in (('sleep', False), ('spin', True)):
      runtime = OnnxRuntime(made, spin=spin)
      runtime.compile((1,))
      shown[way] = [call(runtime, crops, place) for place in range(last, -1, -1)]
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
      for way, each in shown.items():
        for what, before, timed in (('all resolutions', (), each), ('XLA after it', each[:1], [after])):
          time.sleep(0.1)
          for run in before:
            run()
          begin = time.perf_counter()
          for run in timed:
            run()
          found.setdefault((what, way), []).append(1e3 * (time.perf_counter() - begin))
    for what in ('all resolutions', 'XLA after it'):
      yield {'model': name, 'what': what, **{way: turns.spread(found[what, way]) for way in shown}}


def one(names: list[str], resolutions: tuple[int, ...], rounds: int) -> Iterator[Figures]:
  """Yields what a prediction of one image takes beside its program, milliseconds."""
  for name in names:
    made = network(name, resolutions).replace(class_names=tuple(map(str, range(1000))))
    classifier = Classifier(made, runtime='onnx', max_batch=1)
    for resolution in resolutions:
      runtime = OnnxRuntime(programs.of_network(made.at(resolution)[0]))
      runtime.compile((1,))
      crops = np.random.default_rng(0).integers(0, 256, (1, *runtime.shape), np.uint8)
      predict = functools.partial(classifier.predict_crops, crops, resolution=resolution)
      assert predict()[0].class_index == call(runtime, crops, 0)().argmax()
      found = turns.seconds({'alone': call(runtime, crops, 0), 'predict': predict}, rounds=rounds, warm_up=5)
      medians = {way: 1e3 * turns.spread(spent)['median'] for way, spent in found.items()}
      ratio = turns.ratio(found['predict'], found['alone'])
      yield {'model': name, 'resolution': resolution, **medians, 'ratio': ratio}


def runtimes(
  names: list[str], resolutions: tuple[int, ...], rounds: int, batches: tuple[int, ...]
) -> Iterator[Figures]:
  """Yields milliseconds an image of XLA and ONNX Runtime, and ratios to XLA."""
  for name in names:
    made = programs.of_network(network(name, resolutions))
    ways = {'xla': XlaRuntime, 'onnx': OnnxRuntime, 'once': functools.partial(OnnxRuntime, share=True)}
    each = {way: make(made) for way, make in ways.items()}
    for runtime in each.values():
      runtime.compile(batches)
    for place, resolution in enumerate(resolutions):
      for batch in batches:
        crops = np.random.default_rng(0).integers(0, 256, (batch, *made[0].shape), np.uint8)
        calls = {way: call(runtime, crops, place) for way, runtime in each.items()}
        logits = {way: run() for way, run in calls.items()}
        for other in logits.values():
          np.testing.assert_allclose(other, logits['xla'], rtol=0, atol=TOLERANCE * np.abs(logits['xla']).max())
        seconds = turns.seconds(calls, rounds=rounds)
        yield {
          **{'model': name, 'resolution': resolution, 'batch': batch},
          'ms': {way: 1e3 * turns.spread(spent)['median'] / batch for way, spent in seconds.items()},
          'ratio': {way: turns.ratio(seconds[way], seconds['xla']) for way in ('onnx', 'once')},
        }


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--models', default='resnet18,mobilenetv2')
  parser.add_argument('--resolutions', default='224,96')
  parser.add_argument('--batches', default='1,8,64')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--waits', action='store_true')
  parser.add_argument('--one', action='store_true')
  parser.add_argument('--json', help='write the figures to this file')
  options = parser.parse_args()
  resolutions, batches = (tuple(map(int, text.split(','))) for text in (options.resolutions, options.batches))
  names = options.models.split(',')
  if options.waits or options.one:
    found, table = (one, cpu_tables.one) if options.one else (waits, cpu_tables.waits)
    rows = found(names, resolutions, options.rounds)
  else:
    rows, table = runtimes(names, resolutions, options.rounds, batches), cpu_tables.engine
  kept = figures.described('jax', 'onnxruntime') | {'note': f'float32, {options.rounds} rounds', 'rows': list(rows)}
  print('\n'.join(table([kept])))
  if options.json:
    pathlib.Path(options.json).write_text(json.dumps(kept, indent=1) + '\n')


if __name__ == '__main__':
  main()
