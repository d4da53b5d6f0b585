"""Predictions in files: every format says the same, a file is complete or absent, what can't be written is refused."""

import csv
import io
import json
import sys

import pytest

from resjax import cli
from resjax.commands import predict
from resjax.inference import writing
from resjax.inference.predictions import Guess, Prediction

TOP = (Guess(1, 'dog, brown', 0.75), Guess(0, 'Käse', 0.25))
GOOD = Prediction('ü.jpg', *TOP[0], resolution=(32, 48), macs=2.5e6, top=TOP)
BAD = Prediction('bad.jpg', error='No such file')


def written(path, kind, top_k=1, rows=(GOOD, BAD)):
  with writing.writer(str(path), kind, top_k) as write:
    for row in rows:
      write(row)
  assert [other.name for other in path.parent.iterdir()] == [path.name]
  return path


def test_a_csv_has_the_columns_that_it_had(tmp_path):
  text = written(tmp_path / 'a.csv', 'csv').read_bytes().decode()
  assert text == (
    'image,class_index,label,probability,resolution,macs,error\r\n'
    'ü.jpg,1,"dog, brown",0.75,32x48,2500000.0,\r\nbad.jpg,,,,,,No such file\r\n'
  )


def test_more_classes_are_more_columns_of_a_csv(tmp_path):
  with written(tmp_path / 'a.csv', 'csv', 2).open(newline='', encoding='utf-8') as file:
    good, bad = csv.DictReader(file)
  assert (good['label'], good['class_index_2'], good['label_2'], good['probability_2']) == (
    'dog, brown', '0', 'Käse', '0.25',
  )  # fmt: skip
  assert bad['error'] == 'No such file' and bad['label_2'] == ''


_NAMES = ('image', 'class_index', 'label', 'probability', 'resolution', 'macs', 'error')
ROWS = [
  dict(zip(_NAMES, ('ü.jpg', 1, 'dog, brown', 0.75, '32x48', 2.5e6, None))),
  dict(zip(_NAMES, ('bad.jpg', None, None, None, None, None, 'No such file'))),
]


@pytest.mark.parametrize('kind', ['jsonl', 'parquet'])
@pytest.mark.parametrize('top_k', [1, 2])
def test_the_other_formats_say_the_same(tmp_path, kind, top_k):
  path = written(tmp_path / 'out', kind, top_k)
  if kind == 'jsonl':
    found = [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
  else:
    found = pytest.importorskip('pyarrow.parquet').read_table(path).to_pylist()
  more = [{'top': [guess._asdict() for guess in row.top]} if top_k > 1 else {} for row in (GOOD, BAD)]
  assert found == [row | top for row, top in zip(ROWS, more)]


@pytest.mark.parametrize('kind', writing.FORMATS)
def test_a_file_is_complete_or_as_it_was(tmp_path, kind):
  path = tmp_path / 'out'
  path.write_text('before')
  with pytest.raises(KeyboardInterrupt), writing.writer(str(path), kind) as write:
    write(GOOD)
    raise KeyboardInterrupt
  assert path.read_text() == 'before' and list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one_and_what_is_no_file_is_written_to(tmp_path, capfdbinary):
  (tmp_path / 'there').mkdir()
  (tmp_path / 'link.csv').symlink_to(tmp_path / 'there' / 'real.csv')
  with writing.writer(str(tmp_path / 'link.csv'), 'csv') as write:
    write(GOOD)
  assert (tmp_path / 'link.csv').is_symlink() and (tmp_path / 'there' / 'real.csv').is_file()
  with writing.writer('/dev/null', 'csv') as write:
    write(GOOD)
  with open('/dev/null') as file:
    assert file.read() == ''  # a device still


def test_lines_on_standard_output(capsys):
  with writing.writer(None, 'jsonl') as write:
    write(BAD)
  assert json.loads(capsys.readouterr().out)['error'] == 'No such file'
  with writing.writer(None, 'csv') as write:
    write(BAD)
  assert capsys.readouterr().out.splitlines()[1] == 'bad.jpg,,,,,,No such file'
  assert predict.line(GOOD) == 'ü.jpg  dog, brown  75.0 %, Käse  25.0 %  32x48 px  2.50 M'


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (
      ['a.jpg', '--output=out.txt'],
      r'--output: got out.txt, expected a name ending in .csv, .jsonl, .parquet, or --format',
    ),
    (['a.jpg', '--format=parquet'], r'--format: got parquet without a file, expected --output=FILE beside it'),
    (['a.jpg', '--csv=a.csv', '--output=b.csv'], r'--csv: got a.csv and --output=b.csv, expected --output=FILE alone'),
    (['a.jpg', '--csv=a.csv', '--format=jsonl'], r'--csv: got a.csv and --format=jsonl, expected --output=FILE alone'),
    (['a.jpg', '--output=none/a.jsonl'], r'none/a.jsonl: no folder .*none, expected one to write to'),
    (['https://a.org/b.jpg'], r'images: got https://a.org/b.jpg, expected a file or folder of this machine: download'),
  ],
)
def test_what_can_not_be_done_is_said_before_anything_is_loaded(arguments, message, monkeypatch):
  monkeypatch.setattr(predict.shared, 'load', lambda options, **others: pytest.fail('loaded'))
  with pytest.raises(SystemExit, match=f'^error: {message}'):
    cli.main(['predict', '--workdir=run', *arguments])


def test_where_pyarrow_is_missing_one_line_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pyarrow.parquet', None)
  with pytest.raises(
    ValueError, match=r"^--format: got parquet, which needs pyarrow: pip install 'resjax\[parquet\]'$"
  ):
    writing.format_of('a.parquet', None)


def test_a_list_of_paths_comes_on_standard_input(monkeypatch):
  class Loaded(Exception):
    """Ends the command where its images are known."""

  def stream(wanted, **options):
    raise Loaded([item.name for item in wanted])

  classifier = type('', (), {'stream': staticmethod(stream)})
  monkeypatch.setattr(predict.shared, 'load', lambda options, **others: (classifier, None))
  monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(b'b.jpg\nc[1].jpg\n')))
  with pytest.raises(Loaded, match=r"'a.jpg', 'b.jpg', 'c\[1\].jpg'"):
    cli.main(['predict', 'a.jpg', '-', '--workdir=run'])
