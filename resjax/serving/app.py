"""The process below the front: mosec with its workers. It ends with the front, however that ends.

It is started as `python -m resjax.serving.app`, told by its surroundings where mosec listens and what is served.
"""

import logging
import os
import shutil
import signal
import sys
import threading

from mosec import Server

from resjax.serving.settings import ROUTE, Settings, folder
from resjax.serving.workers import Classify, Decode

# Milliseconds that a batch waits for more images; under load they wait for the batch before.
_GATHER = 2

# Seconds after which a batch is given up; requests are given up by the front, and nothing is cut off in the middle.
_FORWARD = 3600.0


def main() -> None:
  """Serves until SIGTERM, or until the front is no more: it holds the other end of standard input."""
  settings = Settings.read(folder())
  alone = threading.Event()
  threading.Thread(target=_end_with_the_front, args=[alone], daemon=True).start()
  # Ended while it starts, mosec's own process says so as of an error; why it was ended, the front says.
  logging.getLogger('mosec.log').addFilter(lambda record: 'halted with signal' not in record.getMessage())
  server = Server()
  server.append_worker(Decode, num=settings.decoders, timeout=_FORWARD, route=ROUTE)
  server.append_worker(
    Classify, max_batch_size=settings.max_batch, max_wait_time=_GATHER, timeout=_FORWARD, route=ROUTE
  )
  server.run()
  if alone.is_set():
    shutil.rmtree(folder(), ignore_errors=True)  # as the front does, where it can


def _end_with_the_front(alone: threading.Event) -> None:
  """Waits for the end of standard input, says so, then ends as at SIGTERM."""
  os.read(sys.stdin.fileno(), 1)  # not through its buffer, whose lock would be held when the process ends
  alone.set()
  os.kill(os.getpid(), signal.SIGTERM)


if __name__ == '__main__':
  main()
