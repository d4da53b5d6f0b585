"""Kills a run over and over and compares what comes out with a run that was left alone.

python tests/faults/kill.py --kills=20 --during_save=5 --sigterm=5

Of the kills (SIGKILL), so many hit while a checkpoint is being written, a quarter of the others while a life starts,
the rest at random steps. Whatever is killed is started again with the same command. In the end the parameters,
statistics and optimiser state must be those of the undisturbed run bit for bit, every life must have seen the same
images at the same steps, and no checkpoint may ever have been unreadable. Exits 1 where one of that fails.
"""

import argparse
import os
import pathlib
import random
import shutil
import signal
import tempfile
import time

import lives

DEVICES = 2


def die(group, fate, noted, workdir, rng):
  """Waits for the moment that `fate` names and sends the signal; returns the exit code, None if the run ended first."""
  (process,) = group
  deadline = time.monotonic() + rng.uniform(0, 4) if fate == 'starting' else None
  target = noted + rng.randint(1, 25)
  saves, busy = rng.randint(1, 3), False
  while process.poll() is None:
    if fate == 'saving' and len(lives.noted(workdir)) > noted:  # what an earlier life began is cleared away by then
      before, busy = busy, lives.saving(workdir)
      saves -= busy and not before
      ready = busy and saves <= 0
    elif fate == 'saving':
      ready = False
    elif deadline:
      ready = time.monotonic() >= deadline
    else:
      ready = len(lives.noted(workdir)) >= target
    if ready:
      time.sleep(rng.uniform(0, 0.02 if fate == 'saving' else 0.1))
      os.kill(process.pid, signal.SIGTERM if fate == 'sigterm' else signal.SIGKILL)
      return process.wait(300)
    time.sleep(0.001 if fate == 'saving' else 0.01)
  return None


def torture(root, fates, rng):
  """Gives each fate to a life, in as many runs as it takes; returns the runs' workdirs and the counts."""
  counts, runs, fates = {}, [], list(fates)
  while fates or not runs:
    workdir = root / f'run{len(runs)}'
    runs.append(workdir)
    while True:
      start = (lives.saved(workdir) or [0])[-1]
      before = len(lives.noted(workdir))
      group = lives.start(workdir, devices=DEVICES, pause=0.01 if fates else 0)
      fate = fates[-1] if fates else None
      code = die(group, fate, before, workdir, rng) if fate else group[0].wait(600)
      if not fate or code is None:  # this run is over
        assert group[0].wait(0) == 0, lives.log(workdir)[-3000:]
        break
      noted, steps = (lives.noted(workdir) or [0])[-1], lives.saved(workdir)
      cut = fate != 'starting' and lives.saving(workdir)
      if fate == 'sigterm':
        assert code == lives.PREEMPTED, (code, lives.log(workdir)[-3000:])
        assert steps[-1] == noted, f'SIGTERM at step {noted}, but the newest checkpoint is {steps}'
      else:
        assert code == -signal.SIGKILL, (code, lives.log(workdir)[-3000:])
      if fate != 'saving' or cut:  # a save that ended before the signal does not count
        fates.pop()
        counts[fate] = counts.get(fate, 0) + 1
        counts['cut'] = counts.get('cut', 0) + (cut and fate != 'sigterm')
      note = ', a save cut short' if cut else ''
      print(f'{fate:8} from step {start:3}, last batch {noted:3}, saved {steps}{note}', flush=True)
  return runs, counts


def main():
  """Runs what the flags ask for."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--kills', type=int, default=20)
  parser.add_argument('--during_save', type=int, default=5)
  parser.add_argument('--sigterm', type=int, default=5)
  parser.add_argument('--seed', type=int, default=0)
  options = parser.parse_args()
  rng = random.Random(options.seed)
  others = options.kills - options.during_save
  fates = ['saving'] * options.during_save + ['starting'] * (others // 4) + ['training'] * (others - others // 4)
  fates += ['sigterm'] * options.sigterm
  rng.shuffle(fates)
  root = pathlib.Path(tempfile.mkdtemp(prefix='resjax-kill-'))
  begin = time.monotonic()
  whole = root / 'whole'
  lives.run(whole, devices=DEVICES)
  runs, counts = torture(root, fates, rng)
  for run in runs:
    assert lives.seen(run) == lives.seen(whole), f'{run}: other images than in the undisturbed run'
    assert not (run / 'damaged').exists(), f'{run}: a checkpoint was unreadable'
    ours, theirs = lives.state(run), lives.state(whole)
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours), f'{run}: another result'
  killed = sum(counts.get(fate, 0) for fate in ('saving', 'starting', 'training'))
  print(
    f'SIGKILL {killed} times, {counts.get("cut", 0)} of them during a save; SIGTERM {counts.get("sigterm", 0)} times; '
    f'{len(runs)} run(s) of {max(lives.seen(whole))} steps: no checkpoint unreadable, the same images at every step, '
    f'{len(lives.state(whole))} arrays bit-identical to the undisturbed run; {time.monotonic() - begin:.0f} s'
  )
  shutil.rmtree(root)


if __name__ == '__main__':
  main()
