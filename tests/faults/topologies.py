"""The same run on other devices and hosts.

python tests/faults/topologies.py hosts: 20 steps on 1 process of 4 virtual devices, 2 of 2 and 4 of 1, on loopback.
python tests/faults/topologies.py drnet: the same of DRNet, whose network is trained first, on 1 process of 2, 2 of 1.
python tests/faults/topologies.py restart: 2 processes, stopped after step 7; the same, that checkpoint damaged, stopped
after step 12; 1 process of 2 devices, stopped after step 17; 2 processes again.
python tests/faults/topologies.py devices: 50 steps with sync_batch_norm on 4 devices; the same, stopped after step 17,
going on with 2 devices, stopped after step 34, ending on 1.
python tests/faults/topologies.py extended: 10 steps, and 10 more at another rate (--extend), stopped after step 15; on
1 process of 2 devices, and on 2 of 1.

Prints the largest differences of parameters, statistics and momentum, each relative to the array's largest entry or to
1, and of losses; the images must be the same at every step, and each epoch's all that there are. Exits 1 where one of
parameters, statistics or losses is above 1e-5 (momentum adds up gradients, which are less alike than what they move).
"""

import pathlib
import shutil
import sys
import tempfile

import lives

# Sums over devices are taken in another order: some bits in float32 per step, and steps add up.
TOLERANCE = 1e-5


def compare(name, run, reference, steps):
  """Prints how far a run is from another; AssertionError where it is too far."""
  images = lives.seen(reference)
  assert list(images) == list(range(1, steps + 1)) and lives.seen(run) == images, f'{name}: other images'
  for epoch in range(0, steps - steps % 20, 20):
    ids = sorted(i for step in range(epoch + 1, epoch + 21) for i in images[step])
    assert ids == list(range(640)), f'{name}: epoch {epoch // 20} is not every image once'
  gaps = lives.differences(run, reference)
  ours, theirs = lives.losses(run), lives.losses(reference)
  assert ours.keys() == theirs.keys()
  momentum = gaps.pop('opt_state')
  gaps['loss'] = max(abs(ours[step] - theirs[step]) / theirs[step] for step in ours)
  text = ', '.join(f'{kind} {gap:.1e}' for kind, gap in gaps.items())
  print(f'{name}: {text}, momentum {momentum:.1e}; the same images at each of {steps} steps', flush=True)
  assert max(gaps.values()) <= TOLERANCE, name


def hosts(root):
  """One host of four devices, two of two, four of one."""
  for processes in (1, 2, 4):
    lives.run(root / str(processes), '--config.epochs=1', processes=processes, devices=4 // processes)
  for processes in (2, 4):
    compare(f'{processes} processes of {4 // processes}', root / str(processes), root / '1', steps=20)
    for number in range(1, processes):
      assert 'top-1' not in lives.log(root / str(processes), number), 'printed by another process than the first'


def drnet(root):
  """Two stages, a stage a run of its own; both see the same images at the same step."""
  fields = '--config.method=drnet', '--config.drnet.predictor.size=8', '--config.drnet.predictor.width=0.5'
  fields += '--config.epochs=1', '--config.drnet.pretrain.epochs=0.5'
  for processes in (1, 2):
    lives.run(root / str(processes), *fields, processes=processes, devices=2 // processes)
  compare('DRNet, 2 processes of 1', root / '2', root / '1', steps=20)


def restart(root):
  """Several hosts go on from what several or one have saved, and go back where the newest is damaged."""
  run, parts = root / 'restarted', ((2, 7), (2, 12), (1, 17), (2, 0))
  lives.run(root / 'whole', '--config.epochs=1', devices=2)
  for life, (processes, stop) in enumerate(parts):
    if life == 1:
      newest = lives.saved(run)[-1]
      lives.damage(run, newest)
    options = {'processes': processes, 'devices': 2 // processes, 'pause': 0.3}  # hosts agree on a step in less
    lives.run(run, '--config.epochs=1', stop_after=stop, expected=lives.PREEMPTED if stop else 0, **options)
  assert (run / 'damaged' / str(newest)).is_dir() and 'going back to step 5' in lives.log(run), lives.log(run)[-3000:]
  compare('2, 2, 1, then 2 processes', run, root / 'whole', steps=20)


def devices(root):
  """Four devices, then two, then one."""
  fields = '--config.epochs=2.5', '--config.sync_batch_norm=true'
  lives.run(root / 'four', *fields, devices=4)
  for count, stop in ((4, 17), (2, 34), (1, 0)):
    lives.run(root / 'fewer', *fields, devices=count, stop_after=stop, expected=lives.PREEMPTED if stop else 0)
  compare('4, 2, then 1 device', root / 'fewer', root / 'four', steps=50)


def extended(root):
  """A finished run goes on under another config, is stopped, and goes on by the same command."""
  more = '--config.epochs=1', '--config.optimizer.learning_rate=0.01', '--extend'
  for processes in (1, 2):
    run, options = root / str(processes), {'processes': processes, 'devices': 2 // processes}
    lives.run(run, '--config.epochs=0.5', **options)
    lives.run(run, *more, stop_after=12, pause=0.8, expected=lives.PREEMPTED, **options)
    lives.run(run, *more, **options)
    assert (run / 'results-10.json').is_file() and (run / 'results.json').is_file() and 10 in lives.saved(run)
  compare('extended, 2 processes of 1', root / '2', root / '1', steps=20)


if __name__ == '__main__':
  root = pathlib.Path(tempfile.mkdtemp(prefix='resjax-topologies-'))
  {'hosts': hosts, 'drnet': drnet, 'restart': restart, 'devices': devices, 'extended': extended}[sys.argv[1]](root)
  shutil.rmtree(root)
