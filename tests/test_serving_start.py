"""Servers that can't start: why, in one line."""

import re
import socket
import subprocess
import sys
import tempfile

import pytest
import serving

from resjax import cli
from resjax.serving import server
from resjax.serving.settings import Settings


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return serving.bundled(tmp_path_factory.mktemp('bundle') / 'tiny', serving.photographs())


def test_what_can_not_be_served_ends_in_one_line(folder, tmp_path):
  for arguments, error in (
    ([f'--workdir={tmp_path}'], rf'error: no checkpoints in {tmp_path}, expected .*'),
    ([f'--bundle={folder}', '--budget=0.001'], r"error: budget: got 0\.001, expected .* with router 'cascade'"),
  ):
    command = [sys.executable, '-m', 'resjax', 'serve', '--port=0', '--max-batch=4', *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and re.fullmatch(error + '\n', ended.stderr), ended.stderr


@pytest.mark.parametrize(
  ('arguments', 'error'),
  [
    (['--capacity=100000'], "argument --capacity: got '100000', expected a positive integer, at most 65,536"),
    (['--decoders=10000'], "argument --decoders: got '10000', expected 2 to 9,999"),
    (['--host=256.0.0.1'], '--host, --port: got 256.0.0.1 and 0, which can not be listened on: .+'),
    (['--port={taken}'], '--host, --port: got 127.0.0.1 and {taken}, which can not be listened on: .*in use'),
  ],
)
def test_what_can_not_be_listened_on_is_named(folder, capsys, arguments, error):
  with socket.create_server(('127.0.0.1', 0)) as opened, pytest.raises(SystemExit) as ended:
    taken = opened.getsockname()[1]
    cli.main(['serve', f'--bundle={folder}', '--port=0', *(argument.format(taken=taken) for argument in arguments)])
  said = capsys.readouterr().err or f'{ended.value}\n'
  assert re.fullmatch(f'error: {error.format(taken=taken)}(; see resjax serve --help)?\n', said)


def test_sockets_have_no_long_names(folder, tmp_path, monkeypatch):
  (tmp_path / ('x' * 60)).mkdir()
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / ('x' * 60)))
  with pytest.raises(SystemExit, match=r'^error: TMPDIR: got .*x, expected a shorter path: sockets are made in it$'):
    cli.main(['serve', f'--bundle={folder}', '--port=0'])
  assert list(tmp_path.glob('*/*')) == []


def test_a_deadline_that_no_image_meets_is_told():
  found = {'notes': [], 'steps': [('16 px', 0.05), ('8 px', 0.02)]}
  dial = 'the dial: 16 px (50.0 ms), 8 px (20.0 ms) an image'
  assert server._lines(found, Settings('', p95=0.02)) == [f'p95 20 ms; {dial}']
  late = 'p95 19 ms is less than an image takes at 8 px: answers will be late'
  assert server._lines(found, Settings('', p95=0.019)) == [f'p95 19 ms; {dial}', late]
