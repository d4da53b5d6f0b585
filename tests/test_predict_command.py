"""`resjax predict` over several hosts: their files together have every image once, each is complete or absent."""

import csv
import json
import pathlib

import networks
import numpy as np
import pytest
from PIL import Image

from resjax import cli
from resjax.commands import predict
from resjax.inference import Classifier


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
  folder, rng = tmp_path_factory.mktemp('photographs'), np.random.default_rng(0)
  for i in range(7):
    Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / f'{i}.png')
  (folder / '3.png').write_bytes(b'no image')
  return folder


@pytest.fixture(scope='module')
def classifier():
  return Classifier(networks.tiny(), max_batch=4)


@pytest.fixture
def run(photographs, classifier, monkeypatch):
  """Predicts one shard, and returns whether it ended well."""
  monkeypatch.setattr(predict.shared, 'load', lambda options, **others: (classifier, None))

  def command(*flags):
    try:
      cli.main(['predict', str(photographs), '--workdir=run', *flags])
    except SystemExit as exit:
      if str(exit.code).startswith('error: 1 of '):  # what can't be read is a row
        return False
      raise
    return True

  return command


def rows(path):
  if path.suffix == '.csv':
    with path.open(newline='', encoding='utf-8') as file:
      return [(pathlib.Path(row['image']).name, row['label'] or None) for row in csv.DictReader(file)]
  if path.suffix == '.jsonl':
    found = [json.loads(line) for line in path.read_text().splitlines()]
  else:
    found = pytest.importorskip('pyarrow.parquet').read_table(path).to_pylist()
  return [(pathlib.Path(row['image']).name, row['label']) for row in found]


@pytest.mark.parametrize('kind', ['csv', 'jsonl', 'parquet'])
@pytest.mark.parametrize('count', [1, 3, 9])  # also more hosts than images
def test_the_files_of_all_shards_have_every_image_once(run, photographs, classifier, tmp_path, kind, count):
  if kind == 'parquet':
    pytest.importorskip('pyarrow')
  ended = [run(f'--output={tmp_path}/out/', f'--format={kind}', f'--shard={i}/{count}') for i in range(count)]
  files = sorted((tmp_path / 'out').iterdir())
  assert [file.name for file in files] == [f'part-{i:05}-of-{count:05}.{kind}' for i in range(count)]
  assert ended.count(False) == 1
  expected = [(pathlib.Path(p.image).name, p.label) for p in classifier.predict(str(photographs))]
  assert sorted(row for file in files for row in rows(file)) == expected


def test_a_shard_that_ends_early_leaves_no_file(run, classifier, tmp_path, monkeypatch):
  def stream(*args, **options):
    yield from list(Classifier.stream(classifier, *args, **options))[:2]
    raise KeyboardInterrupt

  monkeypatch.setattr(classifier, 'stream', stream)
  with pytest.raises(SystemExit):
    run(f'--output={tmp_path}/out/', '--format=jsonl', '--shard=0/2')
  assert not list((tmp_path / 'out').iterdir())


def test_shards_of_other_counts_are_not_mixed(run, tmp_path):
  run(f'--output={tmp_path}/out/', '--format=csv', '--shard=0/2')
  run(f'--output={tmp_path}/out', '--format=csv', '--shard=0/2')  # again, the folder as it is
  for flags in (['--format=csv', '--shard=0/3'], ['--format=jsonl', '--shard=0/2']):
    with pytest.raises(SystemExit, match=r'^error: --output: got .*, which has part-00000-of-00002\.csv; expected'):
      run(f'--output={tmp_path}/out/', *flags)
  assert [file.name for file in (tmp_path / 'out').iterdir()] == ['part-00000-of-00002.csv']


def test_a_folder_takes_files_of_a_named_format(run, tmp_path):
  with pytest.raises(SystemExit, match=r'^error: --output: got .*out/, expected a name ending in .*, or --format'):
    run(f'--output={tmp_path}/out/')


@pytest.mark.parametrize(
  ('images', 'budget', 'largest'),
  [(1, None, 1), (2, '0.5', 2), (5, None, 8), (64, None, 64), (1000, None, 64), (0, None, 1), (1, '12ms', 64)],
)
def test_no_program_is_made_that_is_larger_than_what_is_predicted(images, budget, largest):
  assert predict.enough(images, 64, budget) == largest
