"""What other programs make of names: terminals, spreadsheets, tables, who reads a refusal, who closes a pipe."""

import ast
import csv
import errno
import io
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console
from test_inference_writing import GOOD, written

from resjax import cli, ending, telling
from resjax.commands import predict
from resjax.data import identity
from resjax.data.classes import labels_of
from resjax.data.sources import FolderSource
from resjax.inference import writing
from resjax.inference.predictions import Guess, Prediction
from resjax.report import confusion, letters, mistakes, table

LABELS = ('=1+1', '+a', '-x', '@sum', '\tx', '\rx', "'x", "'", '=', '-', '-1', '+2.5', 'a=b', '7', '', '[new]', '-1\n')


def test_a_cell_is_never_a_formula_and_comes_back_by_leaving_out_one_apostrophe():
  cells = [telling.cell(label) for label in LABELS]
  assert cells == [
    "'=1+1", "'+a", "'-x", "'@sum", "'\tx", "'\rx", "''x", "''", '=', '-', '-1', '+2.5', 'a=b', '7', '', '[new]',
    "'-1\n",
  ]  # fmt: skip
  assert [value[1:] if value.startswith("'") else value for value in cells] == list(LABELS)
  assert telling.cell(-1.5) == -1.5 and telling.cell(None) is None


@pytest.mark.parametrize('raw', [False, True])
def test_predictions_for_spreadsheets_or_as_they_are(tmp_path, raw):
  top = (Guess(1, '=x()', 0.75), Guess(0, '@y', 0.25))
  p = Prediction('-a.jpg', *top[0], resolution=(8, 8), macs=1.0, top=top)
  with writing.writer(str(tmp_path / 'a.csv'), 'csv', 2, raw=raw) as write:
    write(p)
    write(Prediction('b', error='+bad'))
  with open(tmp_path / 'a.csv', newline='', encoding='utf-8') as file:
    good, bad = csv.DictReader(file)
  before = '' if raw else "'"
  assert (good['image'], good['label'], good['label_2']) == (f'{before}-a.jpg', f'{before}=x()', f'{before}@y')
  assert bad['error'] == f'{before}+bad'
  for kind in ('jsonl', 'parquet'):  # no spreadsheet computes these
    path = written(tmp_path / kind / 'out' if (tmp_path / kind).mkdir() is None else None, kind, 2, rows=(p,))
    text = path.read_bytes()
    assert b'-a.jpg' in text and b"'-a.jpg" not in text


def test_tables_of_an_evaluation_are_guarded_too(tmp_path):
  names = ('=1+1', 'caf\udce9')
  confusion.write(np.array([[1, 1], [0, 2]]), names, tmp_path / 'c.csv')
  assert (tmp_path / 'c.csv').read_text(encoding='utf-8').splitlines() == [
    "\"true class, taken for:\",'=1+1,caf\\udce9", "'=1+1,1,1", 'caf\\udce9,0,2',
  ]  # fmt: skip
  row = {'image': '-a', 'label': '=1+1', 'guess': '@b', 'probability': 0.5, 'rank': 2, 'wrong_at': '8'}
  mistakes.write([row], tmp_path / 'm.csv')
  assert (tmp_path / 'm.csv').read_text().splitlines()[1] == "'-a,'=1+1,'@b,0.500000,2,8"
  mistakes.draw([row | {'label': '$\\frac', 'guess': 'a$b\x1b'}], [np.zeros((4, 4, 3), np.uint8)], '').savefig(
    tmp_path / 'm.png'
  )


@pytest.mark.parametrize('kind', writing.FORMATS)
def test_a_name_that_is_no_utf8_or_a_row_that_fails_loses_no_other(tmp_path, kind, monkeypatch):
  rows = (Prediction('caf\udce9.jpg', error='gone'), Prediction('b\ud800', 0, 'x', object(), (8, 8), 1.0), GOOD)
  path = written(tmp_path / 'out', kind, rows=rows)
  if kind == 'parquet':
    found = pytest.importorskip('pyarrow.parquet').read_table(path).to_pylist()
  elif kind == 'jsonl':
    found = [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
  else:
    found = list(csv.DictReader(io.StringIO(path.read_text(encoding='utf-8'))))
  assert [row['image'] for row in found][::2] == ['caf\udce9.jpg' if kind == 'jsonl' else 'caf\\udce9.jpg', 'ü.jpg']
  if kind == 'jsonl':
    assert found[1]['image'] == 'b\\ud800' and found[1]['error'].startswith('can not be written (Object of type object')


def test_lines_for_the_reader_move_no_cursor_and_refusals_neither(capsys, monkeypatch):
  p = Prediction('a\x1b[2J\u202egpj.exe', 0, 'x\ny', 0.5, (8, 8), 1e6, top=(Guess(0, 'x\ny', 0.5),))
  assert predict.line(p).startswith(r'a\x1b[2J\u202egpj.exe  x\ny  50.0 %')
  predict.summary([Prediction('caf\udce9\r', error='bad\x07')], None, 1.0)
  assert capsys.readouterr().err == 'caf\\udce9\\r: bad\\x07\n'
  monkeypatch.setattr(predict, 'run', lambda options: (_ for _ in ()).throw(ValueError('one\x1b[31m\ntwo')))
  with pytest.raises(SystemExit, match=r'^error: one\\x1b\[31m two$'):
    cli.main(['predict', 'a', '--workdir=b'])


def test_tables_show_names_that_look_like_markup():
  results = {
    'resolutions': {'8': {'macs': 1, 'top1': 0.5, 'top5': 1.0}},
    'routers': {'r': {'share': {'8': 1.0}}},
    'share_by_class': {'[new]': {'8': 1.0}, '[/bold]': {'8': 1.0}},
    'groups': {'[red]x': {'8': 0.5}},
  }
  out = io.StringIO()
  console = Console(file=out, width=100)
  console.print(table._shares(results))
  console.print(table._groups(results))
  assert all(name in out.getvalue() for name in ('class [new]', 'class [/bold]', '[red]x'))


def test_names_that_look_the_same_are_shown_by_their_code_points(tmp_path):
  for split, name in (('train', 'e\u0301'), ('val', '\u00e9')):
    (tmp_path / split / name).mkdir(parents=True)
  with pytest.raises(ValueError, match=r"\('e\\u0301'\): no such class in .*/val, expected the same in both$"):
    FolderSource(str(tmp_path), 'train', ('train', 'val'))
  with pytest.raises(ValueError, match=r"no class of the network: 'e\\u0301'; expected"):
    labels_of(['e\u0301', 'b'], ['\u00e9', 'b'], 'photos')
  assert telling.distinct('é', ['a', 'é']) == "'é'"
  for one, other in (('glаss', 'glass'), ('ΑΒΕ', 'ABE'), ('ｇlass', 'glass'), ('a\u212b', 'aÅ'), ('сор', 'cop')):
    assert telling.distinct(one, [one, other]) == ascii(one) and telling.distinct(other, [one]) == ascii(other)
  assert telling.distinct('кот', ['cat', 'кит']) == "'кот'" and telling.distinct('a ', ['a']) == "'a '"


CLOSED = """
import os, sys
from resjax import cli
from resjax.commands import summary
def run(options):
  print('data')
  print('news', file=sys.stderr)
  sys.stdout.flush(), sys.stderr.flush()
  with open(sys.argv[1], 'w') as file:
    assert file.fileno() > 2, file.fileno()
    os.write(2, b'noise of a library')
summary.run = run
cli.main(['summary', '--config=quickstart'])
"""


@pytest.mark.parametrize('closed', ['<&-', '>&-', '2>&-', '<&- >&- 2>&-'])
def test_closed_streams_are_no_fault_and_files_do_not_take_their_place(tmp_path, closed):
  file = tmp_path / 'file'
  code = f'"$0" -c "$1" "$2" {closed}'
  environment = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)}
  command = ['sh', '-c', code, sys.executable, CLOSED, file]
  done = subprocess.run(command, env=environment, capture_output=True, text=True)
  assert (done.returncode, file.read_text()) == (0, ''), done.stderr
  assert done.stdout == ('' if ' >' in f' {closed}' else 'data\n')


COMMAND = """
import sys
from resjax import cli
from resjax.commands import predict
from resjax.inference.predictions import Guess, Prediction
def run(options):
  for number in range(int(options.images[0])):
    print(predict.line(Prediction('caf\\u00e9\\udce9', 0, 'x', 0.5, (8, 8), 1e6, top=(Guess(0, '\\u4e2d', 0.5),))))
predict.run = run
cli.main(['predict', sys.argv[1], '--workdir=x'])
"""


def test_a_terminal_without_the_letters_and_a_reader_who_goes_end_nothing_noisily():
  environment = os.environ | {'PYTHONIOENCODING': 'ascii', 'PYTHONPATH': os.pathsep.join(sys.path)}
  done = subprocess.run([sys.executable, '-c', COMMAND, '1'], env=environment, capture_output=True, text=True)
  assert (done.returncode, done.stderr) == (0, '') and done.stdout.startswith(r'caf\xe9\udce9  \u4e2d  50.0 %')
  process = subprocess.Popen(
    [sys.executable, '-c', COMMAND, '100000'], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
  )
  process.stdout.readline()
  process.stdout.close()
  assert process.stderr.read() == b'' and process.wait() == 141
  process.stderr.close()


def test_classes_that_look_the_same_are_told_by_their_code_points_and_thousands_are_compared_soon():
  before, now = (
    identity.Identity(('glass', 'e\u0301'), ('glass/a\t1',)),
    identity.Identity(('gl\u0430ss', '\u00e9'), ('gl\u0430ss/a\t1',)),
  )
  assert identity.difference(before, now) == (
    r"class 'glass' is called 'gl\u0430ss'; no class 'e\u0301'; a new class '\xe9'"
  )
  many = [identity.Identity(tuple(f'{kind}{n}' for n in range(20_000)), (f'{kind}0/a\t1', 'x/b\t1')) for kind in 'ab']
  begin = time.process_time()
  said = identity.difference(*many)
  assert said.startswith("class 'a0' is called 'b0'; no class 'a1', 'a2', 'a3' and 19,996 others; a new class 'b1'")
  assert time.process_time() - begin < 5


@pytest.mark.parametrize('named', [None, '.half'])
def test_an_error_of_the_system_names_the_file_that_was_meant_and_no_number(tmp_path, named):
  with pytest.raises(OSError) as error, telling.naming(tmp_path / 'a.csv'):
    raise OSError(errno.ENOSPC, 'No space left on device', named)
  assert ending.line_of(error.value) == f'{tmp_path}/a.csv: No space left on device'
  assert ending.line_of(OSError(errno.ENOENT, 'No such file')) == 'No such file'
  assert ending.line_of(OSError('a:\n b')) == 'a: b'
  assert ending.line_of(FileNotFoundError(errno.ENOENT, 'gone', b'a\xe9\x1b')) == r'a\udce9\x1b: gone'
  with pytest.raises(BrokenPipeError), telling.naming('a'):
    raise BrokenPipeError(errno.EPIPE, 'Broken pipe')


def test_what_is_said_of_a_path_is_one_line_of_letters_and_what_is_to_be_typed_is_quoted(capsys):
  telling.say('In a\x1b[31m\nb\u202e')
  assert capsys.readouterr().out == r'In a\x1b[31m\nb\u202e' + '\n'
  assert telling.flag('workdir', pathlib.Path('a b')) == "'--workdir=a b'"
  assert telling.flag('workdir', 'runs/a') == '--workdir=runs/a'


@pytest.mark.parametrize('folder', ['commands', 'training'])
def test_what_holds_a_path_is_never_printed_as_it_is(folder):
  """Every text with something in it goes through `say`, or is made of numbers and names of ours."""
  for path in sorted((pathlib.Path(telling.__file__).parent / folder).glob('*.py')):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'print':
        held = {leaf.id for part in node.args for leaf in ast.walk(part) if isinstance(leaf, ast.Name)}
        paths = held & {'workdir', 'options', 'out', 'path', 'numbers', 'message', 'error'}
        assert not paths, f'{path.name}:{node.lineno}: {ast.unparse(node)}'


def test_letters_that_the_font_has_not_are_written_out_in_pictures():
  assert letters.drawn('猫🐈é', 20) == r'\u732b\U0001f408é'
  assert letters.drawn('a$b\x1b' + 'c' * 30, 8) == r'a\$b\x1bccc…'
  figure = mistakes.draw([], [], letters.drawn('猫', 9))
  figure.savefig(io.BytesIO())  # else a warning, which is an error here
