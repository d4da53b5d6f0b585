"""Absl gives the root logger a handler with its first line: not inside `logs.untouched`, and nothing is lost there."""

import logging
import subprocess
import sys

from resjax import logs

CODE = """
import logging
from absl import logging as absl
from resjax import logs

root = logging.getLogger()
with logs.untouched():
  absl.warning('one from absl')
  logging.getLogger('other').warning('one from another')
  root.info('not this')
assert root.handlers == [], root.handlers
try:
  with logs.untouched():
    1 / 0
except ZeroDivisionError:
  assert root.handlers == []
absl.warning('a last one')
assert root.handlers, 'this test shows nothing: absl leaves the root logger alone by itself'
"""


def test_absl_leaves_the_root_logger_alone():
  done = subprocess.run([sys.executable, '-c', CODE], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert 'one from absl' in done.stderr and 'one from another' in done.stderr and 'not this' not in done.stderr


def test_handlers_that_are_there_stay():
  before = list(logging.getLogger().handlers)
  assert before  # pytest's
  with logs.untouched():
    assert logging.getLogger().handlers == before
  assert logging.getLogger().handlers == before
