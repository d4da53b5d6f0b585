"""A network in int8 beside float32 by ONNX Runtime: how many photographs it gets right, and how long an image takes.

  python benchmarks/int8.py WORKDIR LABELS.csv IMAGE ... [--resolutions=224,96] [--batches=1,8] [--threads=1]
    [--rounds=31] [--ways=int8,entropy] [--images=256] [--json=FILE]

Ranges are set on the IMAGEs, as `resjax export --dtype=int8` sets them; LABELS.csv, as of benchmarks/exported.py, names
others with their classes. `int8` is what is exported; the other ways are what it was chosen among. Each resolution is
a file of its own, and gets crops of its own size. `float32 over it` is the median over rounds, in turns in one process,
of float32's seconds over the way's of the same round, with the quartiles: above 1, int8 is faster; `CPU` is the same
in CPU seconds, which other work on the machine disturbs less.
"""

import argparse
import csv
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]
os.environ['JAX_PLATFORMS'] = 'cpu'

import figures  # noqa: E402
import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
from onnx import ModelProto  # noqa: E402
from onnxruntime.quantization import CalibrationMethod  # noqa: E402

from resjax import trained  # noqa: E402
from resjax.data.crops import evaluation_crops  # noqa: E402
from resjax.exporting import onnx  # noqa: E402
from resjax.exporting.onnx import int8  # noqa: E402
from resjax.exporting.onnx.graph import INPUT  # noqa: E402
from resjax.inference.images import chunks, items  # noqa: E402
from resjax.measuring import study, turns  # noqa: E402
from resjax.network import Network  # noqa: E402
from resjax.resolution import Resolution  # noqa: E402

FLOAT, AT_ONCE = 'float32', 8
FEW = 64  # images, of ways that keep all that is computed of them in memory


def ways(model: ModelProto) -> dict[str, dict[str, Any]]:
  """What each way asks of `int8.quantised`, besides what is exported."""
  groups = {
    f'{node.op_type}_{number}': next((a.i for a in node.attribute if a.name == 'group'), 1)
    for number, node in enumerate(model.graph.node)
    if node.op_type in ('Conv', 'MatMul', 'Gemm')
  }
  names = list(groups)
  return {
    'int8': {},
    'a scale for each layer': {'per_channel': False},
    'entropy': {'calibrate_method': CalibrationMethod.Entropy},
    'percentile': {
      'calibrate_method': CalibrationMethod.Percentile,
      'extra_options': {'CalibPercentile': 99.99},
    },
    'first and last in float32': {'nodes_to_exclude': [names[0], names[-1]]},
    'depthwise in float32': {'nodes_to_exclude': [name for name, group in groups.items() if group > 1]},
  }


def session(model: ModelProto, threads: int) -> Callable[[np.ndarray], np.ndarray]:
  """A model as a function, its threads as the engine has them."""
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads, options.log_severity_level = threads, 3
  options.add_session_config_entry('session.intra_op.allow_spinning', '0')
  made = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=['CPUExecutionProvider'])
  return lambda crops: made.run(None, {INPUT: crops})[0]


def measure(
  network: Network,
  resolution: Resolution,
  ranges: np.ndarray,
  photographs: np.ndarray,
  classes: np.ndarray,
  options: argparse.Namespace,
) -> list[dict[str, Any]]:
  """Returns the rows of one resolution."""
  model = onnx.of_network(network.at(resolution)[0], resolution)
  named = options.ways.split(',')
  models = {FLOAT: model} | {
    way: int8.quantised(model, ranges[:FEW] if 'calibrate_method' in asked else ranges, **asked)
    for way, asked in ways(model).items()
    if way in named
  }
  runs = {way: session(each, options.threads) for way, each in models.items()}
  parts = [photographs[i : i + AT_ONCE] for i in range(0, len(photographs), AT_ONCE)]
  answers = {way: np.concatenate([run(part) for part in parts]).argmax(-1) for way, run in runs.items()}
  rows: dict[str, dict[str, Any]] = {
    way: {
      'resolution': resolution,
      'way': way,
      'right': int((answers[way] == classes).sum()),
      'agree': int((answers[way] == answers[FLOAT]).sum()),
      'of': len(classes),
      'mb': each.ByteSize() / 1e6,
      **{key: {} for key in ('ms', 'gain', 'cpu_gain')},
    }
    for way, each in models.items()
  }
  for batch in map(int, options.batches.split(',')):
    cpu: dict[str, list[float]] = {way: [] for way in runs}

    def timed(way: str, crops: np.ndarray, cpu: dict[str, list[float]] = cpu) -> None:
      begin = time.process_time()
      runs[way](crops)
      cpu[way].append(time.process_time() - begin)

    crops = np.resize(photographs, (batch, *photographs.shape[1:]))
    seconds = turns.seconds(
      {way: lambda way=way, crops=crops: timed(way, crops) for way in runs}, rounds=options.rounds, warm_up=3
    )
    for way, row in rows.items():
      row['ms'][str(batch)] = 1e3 * turns.spread(seconds[way])['median'] / batch
      row['gain'][str(batch)] = turns.ratio(seconds[FLOAT], seconds[way])
      row['cpu_gain'][str(batch)] = turns.ratio(cpu[FLOAT][3:], cpu[way][3:])
  return list(rows.values())


def parse() -> argparse.Namespace:
  """The options."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('workdir')
  parser.add_argument('labels', type=pathlib.Path)
  parser.add_argument('ranges', nargs='+', metavar='IMAGE')
  parser.add_argument('--resolutions', default='224,96')
  parser.add_argument('--batches', default='1,8')
  parser.add_argument('--threads', type=int, default=1)
  parser.add_argument('--rounds', type=int, default=31)
  parser.add_argument('--ways', default='int8')
  parser.add_argument('--images', type=int, default=256, help='that ranges are set on, at most')
  parser.add_argument('--json', help='write the figures to this file')
  return parser.parse_args()


def main() -> None:
  """Prints the table."""
  options = parse()
  with options.labels.open(newline='') as file:
    labelled = [(options.labels.parent / row[0], int(row[1])) for row in list(csv.reader(file))[1:]]
  network = trained.load(options.workdir)
  ranges = items(options.ranges)
  ranges = [ranges[number] for number in study.sample(len(ranges), options.images)]
  rows = []
  for resolution in map(int, options.resolutions.split(',')):
    crop = evaluation_crops(network.at(resolution)[0].preprocessing, (resolution,))
    read = {'crop': lambda image, crop=crop: crop(image)[0], 'threads': os.cpu_count() or 1}
    (few,) = chunks(ranges, size=len(ranges), **read)
    (some,) = chunks(items([path for path, _ in labelled]), size=len(labelled), **read)
    known = np.array([index for (_, index), error in zip(labelled, some.errors) if error is None])
    rows += measure(network, resolution, few.crops, some.crops, known, options)
  found = {**figures.described('onnx', 'onnxruntime', 'numpy'), 'rows': rows}
  found['note'] = f'{options.threads} threads; {options.rounds} rounds; ranges of {len(ranges)} images'
  import cpu_tables

  print('\n'.join(cpu_tables.int8([found])))
  if options.json:
    pathlib.Path(options.json).write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
  main()
