"""Runs and caches know their data: what differs is told in words, refused, and gone on with where that is asked for."""

import os
import shutil

import jax
import numpy as np
import pytest
from absl import logging
from PIL import Image

from configs import default
from resjax import checkpoint, checksums, cli, compiling, report, trained
from resjax.commands import train
from resjax.data import identity, sources
from resjax.data.identity import Identity
from resjax.training import loop
from resjax.training.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures('shallow')


def photographs(folder, classes=('cat', 'dog'), count=8, seed=0):
  """Writes train/ and val/ with so many images of each class."""
  rng = np.random.default_rng(seed)
  for split in ('train', 'val'):
    for name in classes:
      (folder / split / name).mkdir(parents=True, exist_ok=True)
      for number in range(count):
        pixels = rng.integers(0, 256, (18, 18, 3), np.uint8)
        Image.fromarray(pixels).save(folder / split / name / f'{number}.png')
  return folder


def config(folder, **fields):
  """Four steps of a small network on image files."""
  made = default.get_config()
  made.update_from_flattened_dict(
    {'resolutions': (16, 8), 'model.name': 'resnet_small', 'model.num_classes': 2, 'model.width': 0.25}
    | {'data.source': 'folder', 'data.name': '', 'data.dir': str(folder), 'data.workers': 0, 'data.eval_split': 'val'}
    | {'batch_size': 8, 'eval.batch_size': 8, 'epochs': 2.0, 'eval.every_epochs': 0, 'checkpoint.every_epochs': 1.0}
    | fields
  )
  return made


@pytest.fixture(scope='module')
def made(shallow, tmp_path_factory):
  """A finished run and its data."""
  root = tmp_path_factory.mktemp('made')
  loop.train_and_evaluate(config(photographs(root / 'data')), root / 'run')
  return root


@pytest.fixture
def root(made, tmp_path):
  """A copy of both, and its data once more elsewhere, where they may change."""
  shutil.copytree(made, tmp_path / 'made')
  shutil.copytree(made / 'data', tmp_path / 'other')
  return tmp_path


def renamed(folder):
  for split in ('train', 'val'):
    (folder / split / 'dog').rename(folder / split / 'wolf')


def grown(folder):
  photographs(folder, count=12)


def shrunk(folder):
  (folder / 'train' / 'cat' / '3.png').unlink()
  (folder / 'train' / 'dog' / '5.png').unlink()


def exchanged(folder):
  Image.new('RGB', (18, 18)).save(folder / 'val' / 'dog' / '0.png')


def another(folder):
  shutil.rmtree(folder)
  photographs(folder, ('apple', 'pear', 'cat')[:2], count=5, seed=1)


CHANGES = {
  r'train: class .dog. is called .wolf.; eval: class .dog. is called .wolf.': renamed,
  r'train: 8 added of 16 images; eval: 8 added of 16 images': grown,
  r'train: 2 removed of 16 images': shrunk,
  r'eval: 1 changed of 16 images': exchanged,
  r"train: no class 'cat', 'dog'; a new class 'apple', 'pear'; 10 added, 16 removed of 16 images; eval: no": another,
}


@pytest.mark.parametrize('finished', [True, False], ids=['finished', 'stopped'])
@pytest.mark.parametrize('words', CHANGES, ids=lambda words: CHANGES[words].__name__)
def test_other_data_are_refused_before_anything_is_done(root, words, finished, monkeypatch):
  CHANGES[words](root / 'other')
  workdir = root / 'made' / 'run'
  if not finished:
    (workdir / 'results.json').unlink()
  before = {path: path.read_bytes() for path in workdir.rglob('*') if path.is_file() and path.name != '.lock'}
  monkeypatch.setattr(loop, 'train', None)
  with pytest.raises(ValueError, match=rf'^workdir \S+/run holds a run on other data \({words}') as error:
    loop.train_and_evaluate(config(root / 'other'), workdir)
  assert str(error.value).endswith('expected the same, another --workdir, or --other-data to go on all the same')
  assert {path: path.read_bytes() for path in workdir.rglob('*') if path.is_file() and path.name != '.lock'} == before


def test_the_same_data_in_another_place_are_the_same(root, capsys):
  before = report.read(root / 'made' / 'run')
  results = loop.train_and_evaluate(config(root / 'other'), root / 'made' / 'run')
  out = capsys.readouterr().out
  assert 'Going on from step 4 of 4' in out and 'other data' not in out and 'older version' not in out
  assert results['resolutions'] == before['resolutions'] and results['data'] == before['data']


def test_a_result_is_shown_when_its_data_are_gone_and_not_for_a_place_where_none_are(made, root, capsys):
  again = config(made / 'data')
  (made / 'data').rename(made / 'away')
  try:
    loop.train_and_evaluate(again, root / 'made' / 'run')
    assert 'holds this run, finished' in capsys.readouterr().out
  finally:
    (made / 'away').rename(made / 'data')
  with pytest.raises(FileNotFoundError, match='config.data.dir: no folder .*/nowhere/train'):
    loop.train_and_evaluate(config(root / 'nowhere'), root / 'made' / 'run')


def test_a_run_goes_on_with_other_data_where_that_is_asked_for(root, capsys):
  renamed(root / 'other')
  photographs(root / 'other', ('cat', 'wolf'), count=12)
  workdir = root / 'made' / 'run'
  before = (workdir / 'results.json').read_bytes()
  results = loop.train_and_evaluate(config(root / 'other'), workdir, other_data=True)
  out = capsys.readouterr().out
  assert "Going on with other data; train: class 'dog' is called 'wolf'; 24 changed" not in out
  assert (
    "Going on with other data; train: class 'dog'" in out or "Going on with other data; train: no class 'dog'" in out
  )
  assert 'kept: results-4.json, accuracy-4.png' in out and 'Going on from step 4 of 6' in out
  assert (workdir / 'results-4.json').read_bytes() == before
  assert results['resolutions']['16']['images'] == 24 and report.read(workdir)['data'] == results['data']
  assert checkpoint.load_meta(workdir)['class_names'] == ['cat', 'wolf']
  loop.train_and_evaluate(config(root / 'other'), workdir)
  assert 'holds this run, finished' in capsys.readouterr().out


def test_a_run_of_an_older_version_notes_its_data_and_refuses_other_classes(root, capsys, monkeypatch):
  workdir = root / 'made' / 'run'
  values = report.read(workdir)
  del values['data']
  (workdir / 'results.json').write_bytes(checksums.to_json(values))
  (workdir / 'data.lists').unlink()
  saved = Checkpoints.meta
  monkeypatch.setattr(Checkpoints, 'meta', lambda *args: {k: v for k, v in saved(*args).items() if k != 'data'})
  again = config(root / 'other', **{'eval.mistakes': 2})  # not shown, but evaluated
  loop.train_and_evaluate(again, workdir)
  out = capsys.readouterr().out
  assert (
    'an older version made this run and did not note its data; from now on they are known (train 16, eval 16)' in out
  )
  assert report.read(workdir)['data']['train']['entries'] == 16
  renamed(root / 'other')
  (workdir / 'results.json').unlink()
  with pytest.raises(ValueError, match=r"holds a run on other data \(train: class 'dog' is called 'wolf'; eval"):
    loop.train_and_evaluate(again, workdir)


def test_an_extension_by_other_fields_of_the_data_is_meant(root, capsys):
  (root / 'other' / 'train').rename(root / 'other' / 'more')
  (root / 'other' / 'val').rename(root / 'other' / 'train')
  shutil.copytree(root / 'other' / 'train', root / 'other' / 'val')
  more = config(root / 'other', **{'data.train_split': 'more', 'epochs': 3.0})
  with pytest.raises(ValueError, match='holds a run with another config'):
    loop.train_and_evaluate(more, root / 'made' / 'run')
  exchanged(root / 'other')
  with pytest.raises(ValueError, match=r'holds a run on other data \(eval: 1 changed of 16 images\)'):
    loop.train_and_evaluate(config(root / 'other', epochs=3.0), root / 'made' / 'run', extend=True)
  out = capsys.readouterr().out
  assert 'Extending' not in out
  loop.train_and_evaluate(more, root / 'made' / 'run', extend=True)
  assert 'Going on with other data; eval: 1 changed of 16 images' in capsys.readouterr().out


def test_the_command_has_the_flag(root, monkeypatch, capsys):
  seen = {}
  monkeypatch.setattr(loop, 'train_and_evaluate', lambda config, workdir, **options: seen.update(options))
  for module, name in (
    (train.faulthandler, 'enable'),
    (logging, 'use_absl_handler'),
    (logging, 'set_verbosity'),
    (compiling, 'keep_compiled_programs'),
    (compiling, 'keep_memory'),
  ):
    monkeypatch.setattr(module, name, lambda *_: None)  # what is the process's
  cli.main(['train', '--config=quickstart', f'--workdir={root}', '--processes=1', '--other-data'])
  assert seen == {'extend': False, 'other_data': True}


def test_what_made_and_prepared_data_are_is_told(tmp_path):
  fake = config('', **{'data.source': 'fake', 'data.size': 8})
  one = identity.of(sources.create(fake, 'train'))
  assert one == Identity(('0', '1'), ('fake/train, 8 images, 16 px',))
  fake.data.size = 9
  other = identity.of(sources.create(fake, 'train'))
  assert identity.difference(one, other) == 'fake/train, 8 images, 16 px there, fake/train, 9 images, 16 px here'
  assert one.digest != other.digest != one._replace(classes=('0', 'one')).digest

  class Own:
    class_names = ('a',)

    def __len__(self):
      return 3

  assert identity.of(Own()) == Identity(('a',), ('Own: 3 images',))


def test_the_digest_counts_names_sizes_and_order_and_not_where_one_ends():
  digests = {
    Identity(('a', 'b'), ('x\t1', 'y\t2')).digest,
    Identity(('a', 'b'), ('y\t2', 'x\t1')).digest,
    Identity(('a', 'b'), ('x\t1', 'y\t3')).digest,
    Identity(('a',), ('b', 'x\t1', 'y\t2')).digest,
    Identity(('a', 'b', 'x\t1'), ('y\t2',)).digest,
    Identity(('b', 'a'), ('x\t1', 'y\t2')).digest,
  }
  assert len(digests) == 6
  two = Identity(('a',), ('x\t1', 'y\t2')), Identity(('a',), ('y\t2', 'x\t1'))
  assert identity.difference(*two) == 'the same in another order'
  assert identity.difference(None, two[0], 5) == '5 images there, 2 here'
  assert identity.difference(None, two[0], 2) == '2 images, but not the same'


def test_names_of_any_bytes_are_listed_and_kept(tmp_path):
  names = ['ü.png', os.fsdecode(b'\xff.png'), 'a\nb.png', 'gone.png']
  for name in names[:3]:
    (tmp_path / name).write_bytes(b'123')
  one = Identity(('a',), tuple(identity.listed(tmp_path, names)))
  assert one.entries == tuple(f'{name}\t{size}' for name, size in zip(names, (3, 3, 3, '?')))
  identity.write(tmp_path / 'run', {'train': one})
  assert identity.read(tmp_path / 'run') == {one.digest: one}
  many = [f'{number}.png' for number in range(2500)]
  assert identity.listed(tmp_path, many) == [f'{name}\t?' for name in many]


def test_damaged_lists_are_named_and_the_difference_is_counted(root, caplog):
  grown(root / 'other')
  path = root / 'made' / 'run' / 'data.lists'
  path.write_bytes(path.read_bytes()[:-20])
  with pytest.raises(ValueError, match='train: 16 images there, 24 here'):
    loop.train_and_evaluate(config(root / 'other'), root / 'made' / 'run')
  assert any(str(path) in record.getMessage() and 'damaged' in record.getMessage() for record in caplog.records)


def test_hosts_that_see_other_data_say_so(monkeypatch):
  one, other = Identity(('a',), ('x\t1',)), Identity(('a',), ('x\t2',))
  monkeypatch.setattr(identity.jax, 'process_count', lambda: 2)
  monkeypatch.setattr(identity.jax, 'process_index', lambda: 1)
  first = np.frombuffer(bytes.fromhex(one.digest), np.uint8)
  monkeypatch.setattr(identity.multihost_utils, 'broadcast_one_to_all', lambda mine: first)
  identity.agree({'train': one})
  with pytest.raises(ValueError, match=r'^config.data.dir: host 1 sees other data \(train\) than host 0; expected'):
    identity.agree({'train': other})


@pytest.mark.parametrize('command', ['evaluate', 'calibrate'])
def test_other_images_than_the_run_was_scored_on_are_told_of_and_its_result_stays(root, command, capsys):
  workdir = root / 'made' / 'run'
  before = (workdir / 'results.json').read_bytes()
  cli.main([command, f'--workdir={workdir}', '--max-batch=4'])
  assert 'scored on' not in capsys.readouterr().err
  exchanged(root / 'other')
  cli.main([command, f'--workdir={workdir}', '--max-batch=4', f'--config.data.dir={root / "other"}'])
  line = f'{workdir}: these are not the images that the run was scored on; eval: 1 changed of 16 images'
  assert line in capsys.readouterr().err.splitlines()
  assert (workdir / 'results.json').read_bytes() == before


def test_what_is_made_of_a_run_is_of_its_step_and_knows_its_data(root, capsys):
  workdir = root / 'made' / 'run'
  cli.main(['recalibrate', f'--workdir={workdir}', '--step=2', f'--out={root}/again'])
  read = trained.load(workdir, step=2), trained.load(workdir), trained.load(root / 'again')
  first, last, again = (network.variables['params']['shared'] for network in read)
  same = [jax.tree.map(np.array_equal, again, each) for each in (first, last)]
  assert all(jax.tree.leaves(same[0])) and not any(jax.tree.leaves(same[1]))
  cli.main(['evaluate', f'--workdir={root}/again', '--max-batch=4'])
  assert 'these are not the images' not in capsys.readouterr().err
  grown(root / 'other')
  where = f'--config.data.dir={root / "other"}'
  cli.main(['recalibrate', f'--workdir={workdir}', f'--out={root}/other/again', where])
  line = f'{workdir}: these are not the images that the run was trained on; train: 8 added of 16 images'
  assert line in capsys.readouterr().err.splitlines()
  cli.main(['evaluate', f'--workdir={root}/again', '--max-batch=4', where])
  line = f'{root}/again: these are not the images that the run was scored on; eval: 16 images there, 24 here'
  assert line in capsys.readouterr().err.splitlines()
