"""Inference at one resolution: this library's programs beside PyTorch, ONNX Runtime and OpenVINO, in turns on one CPU.

  pip install -e '.[test,bench]'
  python benchmarks/runtimes.py [--models=resnet18,mobilenetv2] [--resolutions=224,96] [--batches=1,8,64] [--threads=2]
    [--rounds=7] [--json=FILE]

All run the same weights on the same float32 images, each in the layout that suits it: PyTorch eager and compiled
(torch.compile, which needs a C++ compiler on a CPU) in channels_last, ONNX Runtime and OpenVINO a graph that PyTorch
exported (they fold BatchNorm themselves), XLA the plain Flax network as the engine compiles it, and `resjax` the
fastest that is shipped, which is ONNX Runtime with the graph that resjax writes: uint8 in, so normalisation is in its
time, and it runs on the same images rounded to bytes. Outputs are compared before anything is timed; what can't run
here is named. Each turn begins with 50 ms of calls that do not count: the threads of the way before spin no more then.
Ratios are medians over rounds of seconds over eager PyTorch's, and over plain ONNX Runtime's, of the same round, with
the quartiles: below 1 is faster.
"""

import argparse
import functools
import importlib.util
import io
import json
import os
import pathlib
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests'), str(ROOT / 'benchmarks')]

TOLERANCE = 1e-3  # of the largest logit: sums of thousands of float32 products in another order


def parse() -> argparse.Namespace:
  """The options."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  about = 'networks that tests/torch_models.py has a twin of'
  parser.add_argument('--models', '--model', default='resnet18,mobilenetv2', help=about)
  parser.add_argument('--resolutions', default='224,96')
  parser.add_argument('--batches', default='1,8,64')
  parser.add_argument('--threads', type=int, default=2, help='processors that each may use')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--without', default='', help='what is left out: "PyTorch, compiled;OpenVINO"')
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


def pytorch(twin, images, compiled: bool = False) -> Callable:
  """PyTorch in channels_last, eager or compiled for this very shape."""
  import torch

  moved = twin.to(memory_format=torch.channels_last)
  if compiled:
    moved = torch.compile(moved, dynamic=False)
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


def openvino(file: bytes, images, threads: int) -> Callable:
  """OpenVINO, tuned for the latency of one call after the other, in float32."""
  import numpy as np
  import openvino

  core, (batch, height, width, channels) = openvino.Core(), images.shape
  model = core.read_model(io.BytesIO(file))
  model.reshape([batch, channels, height, width])
  settings = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_NUM_THREADS': threads, 'INFERENCE_PRECISION_HINT': 'f32'}
  request = core.compile_model(model, 'CPU', settings).create_infer_request()
  inputs = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
  return lambda: request.infer([inputs], share_inputs=True)[0]


def ours(name: str, twin, resolution: int):
  """This library's network, and the variables of a plain one."""
  import jax
  import torch_models

  from resjax import models, switchable
  from resjax.network import Network

  model = models.create(name, num_classes=1000)
  image = jax.ShapeDtypeStruct((1, resolution, resolution, 3), 'float32')
  like = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)
  plain = torch_models.from_torch(dict(twin.state_dict()), like)
  return Network(model, switchable.share(plain, (resolution,)), (resolution,)), plain


def xla(network, plain, images) -> Callable:
  """The plain Flax network, compiled as for the engine."""
  import jax
  import numpy as np

  from resjax import compiling

  forward = functools.partial(network.model.apply, train=False)
  program = jax.jit(forward, compiler_options=compiling.options('cpu', 'inference'))
  variables, inputs = jax.device_put(plain), jax.device_put(images)
  compiled = program.lower(variables, images).compile()
  return lambda: np.asarray(compiled(variables, inputs))


def shipped(network, crops, threads: int) -> Callable:
  """What the engine runs on a CPU: ONNX Runtime with the graph that resjax writes, from bytes."""
  import numpy as np

  from resjax.inference import programs
  from resjax.inference.runtimes.onnx import OnnxRuntime

  runtime = OnnxRuntime(programs.of_network(network), threads=threads)
  runtime.compile(())
  rows = np.arange(len(crops))
  return lambda: runtime.dispatch(runtime.put(crops), 0, len(crops), rows)


def exported(twin) -> bytes:
  """The network as ONNX, for any batch and size."""
  import torch

  file = io.BytesIO()
  axes = {'images': {0: 'batch', 2: 'height', 3: 'width'}, 'logits': {0: 'batch'}}
  names = {'input_names': ['images'], 'output_names': ['logits'], 'dynamic_axes': axes}
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of the exporter that needs nothing but onnx
    torch.onnx.export(twin, (torch.zeros(1, 3, 224, 224),), file, dynamo=False, **names)
  return file.getvalue()


def session_of(file: bytes, threads: int):
  """An ONNX Runtime session."""
  import onnxruntime

  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = threads
  # Threads that spin while they wait, as they do by default, would slow whoever's turn is next.
  options.add_session_config_entry('session.intra_op.allow_spinning', '0')
  return onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])


def compare(ways: dict[str, Callable], rounds: int, batch: int) -> dict[str, dict]:
  """Milliseconds an image of each way, and the ratios of its seconds to PyTorch's and ONNX Runtime's."""
  import numpy as np

  from resjax.measuring import turns

  expected = ways['PyTorch']()
  for name, way in ways.items():
    error = np.abs(way() - expected).max() / np.abs(expected).max()
    if not error < TOLERANCE:
      sys.exit(f'error: {name}: logits differ from PyTorch by {error:.1e} of the largest, expected {TOLERANCE:.0e}')
  seconds = turns.seconds(ways, rounds=rounds, settle=turns.SETTLE)
  found = {}
  for name, spent in seconds.items():
    found[name] = {'ms': 1e3 * turns.spread(spent)['median'] / batch, **turns.ratio(spent, seconds['PyTorch'])}
    if 'ONNX Runtime' in seconds:
      found[name]['over_onnx'] = turns.ratio(spent, seconds['ONNX Runtime'])
  return found


def missing() -> dict[str, str]:
  """What can't run here, and why."""
  found = {}
  if importlib.util.find_spec('openvino') is None:
    found['OpenVINO'] = 'openvino is not installed (pip install openvino)'
  if not any(map(shutil.which, (os.environ.get('CXX', 'g++'), 'clang++'))):
    found['PyTorch, compiled'] = 'there is no C++ compiler'
  return found


def rows_of(model: str, options: argparse.Namespace, skipped: dict[str, str]) -> Iterator[dict]:
  """Yields the rows of a network."""
  import numpy as np
  import torch

  from resjax.preprocess import prepare

  twin = network(model)
  file = exported(twin)
  session = session_of(file, options.threads)
  for resolution in map(int, options.resolutions.split(',')):
    made, plain = ours(model, twin, resolution)
    for batch in map(int, options.batches.split(',')):
      crops = np.random.default_rng(0).integers(0, 256, (batch, resolution, resolution, 3), np.uint8)
      images = np.array(prepare((crops,), (resolution,), made.preprocessing.normalize)[0])
      torch._dynamo.reset()  # which compiles a function for a few shapes at most
      part = functools.partial
      makes = {
        'PyTorch': part(pytorch, twin, images),
        'PyTorch, compiled': part(pytorch, twin, images, compiled=True),
        'ONNX Runtime': part(onnx_runtime, session, images),
        'OpenVINO': part(openvino, file, images, options.threads),
        'resjax (XLA)': part(xla, made, plain, images),
        'resjax': part(shipped, made, crops, options.threads),
      }
      ways = {name: make() for name, make in makes.items() if name not in skipped}
      for name, figures in compare(ways, options.rounds, batch).items():
        yield {'model': model, 'resolution': resolution, 'batch': batch, 'runtime': name, **figures}


def main() -> None:
  """Prints the table."""
  options = parse()
  if hasattr(os, 'sched_setaffinity'):  # before the libraries start their threads: as many processors for each
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
  os.environ['JAX_PLATFORMS'] = 'cpu'
  import cpu_tables
  import figures
  import torch

  torch.set_num_threads(options.threads)
  skipped = missing() | {name: 'it was left out' for name in filter(None, options.without.split(';'))}
  found = figures.described('jax', 'torch', 'onnxruntime', 'openvino')
  found |= {'note': f'float32, {options.threads} threads, {options.rounds} rounds', 'skipped': skipped, 'rows': []}
  for model in options.models.split(','):
    for row in rows_of(model, options, skipped):
      found['rows'].append(row)
      print(f'{row["model"]} {row["resolution"]} {row["batch"]} {row["runtime"]} {row["median"]:.2f}', file=sys.stderr)
  print('\n'.join(cpu_tables.runtimes([found])))
  if options.json:
    pathlib.Path(options.json).write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
  main()
