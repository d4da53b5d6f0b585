"""Inference at one resolution: this library's programs beside PyTorch and ONNX Runtime, in turns on one CPU.

  pip install -e '.[test,bench]'
  python benchmarks/runtimes.py [--model=resnet18] [--resolutions=224,96] [--batches=1,8,64] [--threads=2] [--rounds=7]

All three run the same weights on the same float32 images, each in the layout that suits it: PyTorch eager in
channels_last, ONNX Runtime a graph that PyTorch exported (it folds BatchNorm itself), XLA the plain Flax network as the
engine compiles it. Outputs are compared before anything is timed. `ratio` is the median over rounds of seconds over
PyTorch's of the same round, with the quartiles: below 1 is faster.
"""

import argparse
import functools
import io
import json
import os
import pathlib
import platform
import sys
import warnings
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

TOLERANCE = 1e-3  # of the largest logit: sums of thousands of float32 products in another order


def parse() -> argparse.Namespace:
  """The options."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--model', default='resnet18', help='a network that tests/torch_models.py has a twin of')
  parser.add_argument('--resolutions', default='224,96')
  parser.add_argument('--batches', default='1,8,64')
  parser.add_argument('--threads', type=int, default=2, help='processors that each may use')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--json', help='write the figures to this file')
  return parser.parse_args()


def network(name: str):
  """The PyTorch network, its BatchNorm statistics as if it had been trained."""
  import torch
  import torch_models

  torch.manual_seed(0)
  twin = torch_models.create(name, 1000).eval()
  for module in twin.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
      torch.nn.init.uniform_(module.running_var, 0.8, 1.2)
      torch.nn.init.uniform_(module.weight, 0.5, 1.0)
  return twin


def pytorch(twin, images) -> Callable:
  """PyTorch eager, channels_last."""
  import torch

  moved = twin.to(memory_format=torch.channels_last)
  inputs = torch.from_numpy(images).permute(0, 3, 1, 2)  # NHWC in memory is channels_last

  def run():
    with torch.inference_mode():
      return moved(inputs).numpy()

  return run


def onnx_runtime(session, images) -> Callable:
  """ONNX Runtime, which takes NCHW and chooses its own layouts."""
  import numpy as np

  inputs = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
  return lambda: session.run(None, {'images': inputs})[0]


def xla(name: str, twin, images) -> Callable:
  """The plain Flax network, compiled as for the engine."""
  import jax
  import numpy as np
  import torch_models

  from resjax import compiling, models

  model = models.create(name, num_classes=1000)
  like = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)
  variables = jax.device_put(torch_models.from_torch(dict(twin.state_dict()), like))
  program = jax.jit(functools.partial(model.apply, train=False), compiler_options=compiling.options('cpu', 'inference'))
  compiled, inputs = program.lower(variables, images).compile(), jax.device_put(images)
  return lambda: np.asarray(compiled(variables, inputs))


def session_of(twin, threads: int):
  """An ONNX Runtime session for any batch and size."""
  import onnxruntime
  import torch

  file = io.BytesIO()
  axes = {'images': {0: 'batch', 2: 'height', 3: 'width'}, 'logits': {0: 'batch'}}
  names = {'input_names': ['images'], 'output_names': ['logits'], 'dynamic_axes': axes}
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of the exporter that needs nothing but onnx
    torch.onnx.export(twin, (torch.zeros(1, 3, 224, 224),), file, dynamo=False, **names)
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = threads
  # Threads that spin while they wait, as they do by default, would slow whoever's turn is next.
  options.add_session_config_entry('session.intra_op.allow_spinning', '0')
  return onnxruntime.InferenceSession(file.getvalue(), options, providers=['CPUExecutionProvider'])


def compare(ways: dict[str, Callable], rounds: int) -> dict[str, dict[str, float]]:
  """Seconds of each way, and their ratio to PyTorch's."""
  import numpy as np

  from resjax.measuring import turns

  expected = ways['PyTorch']()
  for name, way in ways.items():
    error = np.abs(way() - expected).max() / np.abs(expected).max()
    if not error < TOLERANCE:
      sys.exit(f'error: {name}: logits differ from PyTorch by {error:.1e} of the largest, expected {TOLERANCE:.0e}')
  seconds = turns.seconds(ways, rounds=rounds)
  return {
    name: {'seconds': turns.spread(spent)['median'], **turns.ratio(spent, seconds['PyTorch'])}
    for name, spent in seconds.items()
  }


def main() -> None:
  """Prints the table."""
  options = parse()
  if hasattr(os, 'sched_setaffinity'):  # before the libraries start their threads: as many processors for each
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
  os.environ['JAX_PLATFORMS'] = 'cpu'
  import jax
  import numpy as np
  import onnxruntime
  import torch

  torch.set_num_threads(options.threads)
  twin = network(options.model)
  session = session_of(twin, options.threads)
  versions = f'jax {jax.__version__}, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}'
  print(f'{options.model}, float32, {options.threads} threads, {options.rounds} rounds; {versions}')
  print(f'python {platform.python_version()}\n\n| input | batch | runtime | ms per image | ratio [quartiles] |')
  print('|---|---|---|---|---|')
  found = []
  for resolution in map(int, options.resolutions.split(',')):
    for batch in map(int, options.batches.split(',')):
      shape = (batch, resolution, resolution, 3)
      images = np.random.default_rng(0).standard_normal(shape, np.float32)
      ways = {
        'PyTorch': pytorch(twin, images),
        'ONNX Runtime': onnx_runtime(session, images),
        'resjax (XLA)': xla(options.model, twin, images),
      }
      for name, figures in compare(ways, options.rounds).items():
        found.append({'resolution': resolution, 'batch': batch, 'runtime': name, **figures})
        ratio = f'{figures["median"]:.2f} [{figures["low"]:.2f}, {figures["high"]:.2f}]'
        print(f'| {resolution} | {batch} | {name} | {1e3 * figures["seconds"] / batch:.1f} | {ratio} |', flush=True)
  if options.json:
    pathlib.Path(options.json).write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
  main()
