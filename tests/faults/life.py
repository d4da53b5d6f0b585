"""One life of a run: training, in a process that notes which images it trains on.

python life.py NOTES STOP_AFTER PAUSE FLAGS...: a line `[step, image ids]` in the file NOTES for each batch;
SIGTERM to itself at the batch of step STOP_AFTER (0: never); PAUSE seconds of rest before each step.
"""

import functools
import json
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from resjax import cli, models
from resjax.data import loader, scaled_digits
from resjax.training import loop  # noqa: F401


def noting(train_batches, notes, stop_after, pause):
  """`loader.train_batches`, with a note of each batch."""

  def batches(source, config, start_step=0, **options):
    inner = train_batches(source, config, start_step, **options)
    try:
      for step, batch in enumerate(inner, start_step + 1):
        notes.write(json.dumps([step, batch['index'].tolist()]) + '\n')
        notes.flush()
        if step == stop_after:
          os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(pause)
        yield batch
    finally:
      inner.close()

  return batches


def live(notes, stop_after, pause, *flags):
  """Runs `resjax train` with these flags; ends the process."""
  scaled_digits.SPLITS['test'] = 203  # an odd number, and a short evaluation
  models.MODELS['resnet_small'] = functools.partial(models.MODELS['resnet_small'], stages=(1,))
  with pathlib.Path(notes).open('a') as file:
    loader.train_batches = noting(loader.train_batches, file, int(stop_after), float(pause))
    cli.main(['train', *flags])


if __name__ == '__main__':
  live(*sys.argv[1:])
