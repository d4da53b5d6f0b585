"""Ends are quiet: one line, last, and the exit code of docs/reliability.md."""

import contextlib
import logging
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import pytest

from resjax import checkpoint, cli, ending
from resjax.data import loader, workers
from resjax.training import loop
from resjax.training.preemption import Notice

ROOT = pathlib.Path(__file__).parents[1]


def test_what_a_signal_kills_among_the_processes_that_decode_is_the_notice_itself():
  def dying(told):
    yield 1, 'a'
    if told:
      os.kill(os.getpid(), signal.SIGTERM)
    raise OSError('a process that decodes ended')

  with Notice() as notice, notice.patient():
    assert list(notice.until_told(dying(True), 0)) == [(1, 'a'), (1, None)]
  with Notice() as notice, notice.patient(), pytest.raises(OSError, match='a process that decodes ended'):
    list(notice.until_told(dying(False), 0))


def test_a_script_that_would_run_again_in_each_process_is_refused_before_it_does(tmp_path, monkeypatch):
  (tmp_path / 'script.py').write_text('train()\n')
  monkeypatch.setattr(sys.modules['__main__'], '__file__', str(tmp_path / 'script.py'), raising=False)
  monkeypatch.setattr(sys.modules['__main__'], '__spec__', None)
  from resjax.recipes import default

  config = default.get_config()
  config.data.workers = 2
  with pytest.raises(ValueError, match="config.data.workers: got 2 in a script .* below `if __name__ == '__main__':`"):
    workers.processes(config, 10)
  config.data.workers = 0
  assert workers.processes(config, 10) == 0
  config.data.workers = 2
  (tmp_path / 'script.py').write_text("if __name__ == '__main__':\n  train()\n")
  assert workers.processes(config, 10) == 2


def test_a_worker_that_is_gone_is_one_line():
  batches = object.__new__(loader.Batches)

  def gone():
    raise RuntimeError('Worker process was terminated unexpectedly with exit code -9. Search the logs above for')
    yield

  batches._batches = gone()
  with pytest.raises(OSError, match='config.data.workers: a process that decodes ended with code -9, as of a kill'):
    next(batches)


def test_ctrl_c_at_any_moment_of_a_command_is_one_line_and_130(monkeypatch, capsys):
  ended = []
  monkeypatch.setattr(sys, 'argv', ['resjax', 'summary', '--config=quickstart'])
  monkeypatch.setattr(ending, 'at_once', ended.append)
  monkeypatch.setattr(ending, 'nothing_more', list)

  def interrupt(*_):
    raise KeyboardInterrupt

  for place in ('import_module',):
    with monkeypatch.context() as patch:
      patch.setattr(cli.importlib, place, interrupt)
      cli.main()
  assert ended == [130] and capsys.readouterr().err == 'Stopped\n'


COMMAND = [sys.executable, ROOT / 'main.py', f'--config={ROOT / "tests" / "faults" / "recipe.py"}', '--config.epochs=2']


@contextlib.contextmanager
def life(workdir, *fields, **environment):
  """A run in a session of its own, with an empty compilation cache."""
  variables = os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': str(workdir) + '.cache'} | environment
  process = subprocess.Popen(
    [*COMMAND, f'--workdir={workdir}', *fields], env=variables, start_new_session=True, stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  try:
    yield process
  finally:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()


def news(text):
  """What is said besides the bar of progress."""
  lines = text.replace('\r', '\n').splitlines()
  return [line for line in lines if line.strip() and not line.startswith('epoch ')]


@pytest.mark.slow
@pytest.mark.parametrize(('number', 'expected'), [(signal.SIGTERM, 75)])
def test_a_signal_to_all_processes_of_a_run_with_workers(tmp_path, number, expected):
  run = tmp_path / 'run'
  with life(run, '--config.data.workers=2', '--config.epochs=40') as process:
    while not list((run / 'checkpoints').glob('[0-9]*')):
      assert process.poll() is None, process.stderr.read()
      time.sleep(0.05)
    os.killpg(process.pid, number)
    code, said = process.wait(120), news(process.stderr.read())
  assert code == expected and len(said) == 1 and said[0].startswith('Stopped'), (code, said)


def test_a_full_disk_is_no_lack_of_memory_and_what_tensorstore_answers_late_is_not_told(monkeypatch, caplog):
  assert ending.line_of(OSError('RESOURCE_EXHAUSTED: No space left')) == 'RESOURCE_EXHAUSTED: No space left'
  assert ending.line_of(RuntimeError('RESOURCE_EXHAUSTED: Out of memory')).startswith('not enough memory: ')
  told = []
  monkeypatch.setattr(sys, 'unraisablehook', told.append)
  late = types.SimpleNamespace(exc_value=RuntimeError('Event loop is closed'), object=None)
  other = types.SimpleNamespace(exc_value=RuntimeError('Event loop is closed'), object=print)
  with checkpoint.news_only():
    with checkpoint.news_only():
      pass
    sys.unraisablehook(late)
    sys.unraisablehook(other)
    logging.getLogger('absl').error('of orbax: within another one, which has ended')
  assert told == [other] and caplog.records == []
  sys.unraisablehook(late)
  logging.getLogger('absl').error('of orbax')
  assert told == [other, late] and len(caplog.records) == 1


def test_a_run_whose_reader_is_gone_ends_quietly(monkeypatch, tmp_path):
  def gone(*_, **__):
    raise BrokenPipeError

  monkeypatch.setattr(loop, 'train_and_evaluate', gone)
  monkeypatch.setattr(cli, '_end_quietly', lambda: sys.exit(141))
  with pytest.raises(SystemExit) as end:
    cli.main(['train', '--config=quickstart', f'--workdir={tmp_path}', '--processes=1'])
  assert end.value.code == 141


def ended(code):
  """Returns the exit code and what is said on stderr of a process that runs so."""
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
  return done.returncode, done.stderr


COMMAND_OF = """
import os, signal, sys
from resjax import cli
from resjax.commands import summary
{}
summary.run = run
sys.argv = ['resjax', 'summary', '--config=quickstart']
cli.main()
"""

LATER = """
def run(options):
  try:
    os.kill(os.getpid(), signal.SIGINT)
  except KeyboardInterrupt:
    raise ValueError('what a library makes of it') from None
"""


def test_what_a_library_makes_of_ctrl_c_is_ctrl_c():
  assert ended(COMMAND_OF.format(LATER)) == (130, 'Stopped\n')


LEFT = """
async def write():
  pass
def run(options):
  left = [write()]
  left.append(left)  # collected late
  write()
  raise OSError('no room')
"""


def test_what_a_library_leaves_undone_where_it_fails_is_not_told():
  assert ended(COMMAND_OF.format(LEFT)) == (1, 'error: no room\n')


QUICK = """
import os, signal, sys
from resjax import ending
with ending.importing():
  try:
    os.kill(os.getpid(), signal.SIGINT)
  except BaseException as error:
    raise ImportError('of a library that was interrupted') from error
"""


def test_ctrl_c_while_libraries_are_imported_is_one_line():
  assert ended(QUICK) == (130, 'Stopped\n')


def test_what_processes_leave_in_shared_memory_is_removed_without_a_word():
  code = 'from resjax.data import loader; from multiprocessing import shared_memory; import os; loader._clean_quietly()'
  code += "; print(shared_memory.SharedMemory('resjax-left', create=True, size=8).name, flush=True); os._exit(0)"
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
  assert (done.stdout, done.stderr) == ('resjax-left\n', '')
  assert not pathlib.Path('/dev/shm/resjax-left').exists()
