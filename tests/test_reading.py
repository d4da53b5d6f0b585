"""Checkpoints are read while the run that writes them goes on."""

import shutil

import jax
import pytest
from test_checkpoint import make

from resjax import checkpoint
from resjax.training.checkpoints import Checkpoints
from resjax.training.devices import Devices


@pytest.mark.parametrize('read', [checkpoint.load, checkpoint.load_meta])
def test_who_reads_the_latest_while_a_run_deletes_it_gets_the_next_and_damage_stays_damage(tmp_path, monkeypatch, read):
  one, seal = Devices(devices=jax.devices()[:1]), checkpoint.checksums.verify
  with Checkpoints(tmp_path, keep=3) as checkpoints:
    for step in (1, 2, 3):
      checkpoints.save(make(one, step), {'config': {'a': step}}, None)
  steps, aside, seen = tmp_path / 'checkpoints', tmp_path / 'aside', []
  aside.mkdir()
  for step in '23':
    (steps / step).rename(aside / step)

  def goes_on(path, *below):
    """The run saves a step and gives up the one that is being read, in the middle of that."""
    seen.append(path.name)
    if (newer := aside / str(int(path.name) + 1)).is_dir():
      newer.rename(steps / newer.name)
      shutil.rmtree(path / 'meta')
    return seal(path, *below)

  monkeypatch.setattr(checkpoint.checksums, 'verify', goes_on)
  found = read(tmp_path)
  assert (found if read is checkpoint.load_meta else found.meta)['step'] == 3 and seen == ['1', '2', '3']
  shutil.rmtree(steps / '3' / 'meta')
  with pytest.raises(ValueError, match='expected a whole checkpoint'):
    read(tmp_path)
  with pytest.raises(ValueError, match='expected a whole checkpoint'):
    read(tmp_path, step=2)
