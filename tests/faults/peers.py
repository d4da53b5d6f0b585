"""What a run of two processes does when something happens to one.

python tests/faults/peers.py MOMENT...: `killed` (process 1 by SIGKILL), `coordinator` (process 0 by SIGKILL), `frozen`
(process 1 by SIGSTOP, as a machine that is gone from the network), `sigterm` (to process 1).

Prints the other's exit code, the seconds it took and its last line. Exits 1 where the other lives on for two minutes or
ends without an error; with `sigterm`, where not both exit with 75 after one and the same save.
"""

import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

import lives

MOMENTS = {'killed': (1, signal.SIGKILL), 'coordinator': (0, signal.SIGKILL), 'frozen': (1, signal.SIGSTOP)}
LIMIT = 120  # seconds


def training(workdir):
  """Two processes that have trained a few steps."""
  group = lives.start(workdir, '--config.epochs=500', processes=2, pause=0.05)
  while len(lives.noted(workdir)) < 8:
    assert all(process.poll() is None for process in group), lives.log(workdir)[-3000:] + lives.log(workdir, 1)[-3000:]
    time.sleep(0.1)
  return group


def lose(workdir, moment):
  """Takes one process away and waits for the other."""
  number, sign = MOMENTS[moment]
  group = training(workdir)
  try:
    os.kill(group[number].pid, sign)
    begin = time.monotonic()
    code = group[1 - number].wait(LIMIT)
  finally:
    for process in group:
      process.kill()
  last = lives.log(workdir, 1 - number).strip().splitlines()[-1]
  print(f'{moment}: the other ended with {code} after {time.monotonic() - begin:.1f} s: {last[:150]}', flush=True)
  assert code != 0


def notice(workdir):
  """Sends SIGTERM to one of two."""
  group = training(workdir)
  group[1].terminate()
  begin = time.monotonic()
  codes = lives.finish(group, LIMIT)
  print(f'sigterm: both ended with {codes} after {time.monotonic() - begin:.1f} s, saved {lives.saved(workdir)}')
  assert codes == [lives.PREEMPTED] * 2 and lives.saved(workdir)[-1] == lives.noted(workdir)[-1]


if __name__ == '__main__':
  root = pathlib.Path(tempfile.mkdtemp(prefix='resjax-peers-'))
  for moment in sys.argv[1:]:
    notice(root / moment) if moment == 'sigterm' else lose(root / moment, moment)
  shutil.rmtree(root)
