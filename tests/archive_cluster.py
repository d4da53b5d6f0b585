"""Runs a script on a cluster of Ray on this machine, two nodes, one of which is killed in the middle of the work.

  python archive_cluster.py MARKS SCRIPT ARGUMENT ...

Prints as JSON what was seen: the script's exit code, images that were done when the node was killed, whether its worker
lives at the end, and how many other nodes worked on.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

MARKS = 'RESJAX_TEST_MARKS'  # a folder: a file for each batch that was done, named node.process.images.number
MEMORY = 200 * 2**20  # bytes of a node's objects
SECONDS = 600  # a machine that is busy starts workers in minutes

# The script, by predictors that leave marks, and take their time.
RUN = """
import runpy, sys
import resjax
from archive_cluster import watched
resjax.BatchPredictor = watched()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def watched():
  """A BatchPredictor that marks each batch."""
  import ray

  import resjax

  class Watched(resjax.BatchPredictor):
    def __call__(self, batch):
      found = super().__call__(batch)
      node = ray.get_runtime_context().get_node_id()
      (pathlib.Path(os.environ[MARKS]) / f'{node}.{os.getpid()}.{len(found["path"])}.{time.time_ns()}').touch()
      time.sleep(0.2)
      return found

  return Watched


def marks():
  """Of each batch, its node, process and number of images; in their order."""
  names = [path.name.split('.') for path in pathlib.Path(os.environ[MARKS]).iterdir()]
  names.sort(key=lambda parts: int(parts[-1]))
  return [(node, int(process), int(count)) for node, process, count, _ in names]


def lives(process):
  try:
    return pathlib.Path(f'/proc/{process}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
  except FileNotFoundError:
    return False


def main():
  os.environ[MARKS], *command = sys.argv[1:]
  from ray.cluster_utils import Cluster

  cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 0, 'object_store_memory': MEMORY})
  try:
    nodes = [cluster.add_node(num_cpus=4, object_store_memory=MEMORY) for _ in range(2)]
    environment = os.environ | {'RAY_ADDRESS': cluster.address}
    script = subprocess.Popen([sys.executable, '-c', RUN, *command], env=environment, stdout=sys.stderr)
    end = time.monotonic() + SECONDS
    while script.poll() is None and time.monotonic() < end and len({node for node, *_ in marks()}) < 2:
      time.sleep(0.05)
    done = marks()
    killed, process, _ = done[0]
    cluster.remove_node(next(node for node in nodes if node.node_id == killed), allow_graceful=False)
    code = script.wait(max(1, end - time.monotonic()))
    before, alive = sum(count for *_, count in done), lives(process)
    others = {node for node, *_ in marks()[len(done) :]} - {killed}
    print(json.dumps({'code': code, 'done': before, 'lives': alive, 'others': len(others)}))
  finally:
    cluster.shutdown()


if __name__ == '__main__':
  main()
