"""What others log: handed on as without resjax, but what an error of ours has said already."""

import asyncio
import gc
import logging
import subprocess
import sys

import pytest

from resjax import checkpoint, logs

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


def test_what_is_left_of_a_failed_read_is_not_told_of_later_and_what_others_leave_is(tmp_path, caplog):
  async def fails(what):
    raise ValueError(what)

  async def leaves(what):
    asyncio.create_task(fails(what))  # noqa: RUF006
    await asyncio.sleep(0.01)

  with pytest.raises(ValueError, match='expected a whole checkpoint'):
    checkpoint.whole(lambda: {}['array'], tmp_path)
  asyncio.run(leaves('run/checkpoints/3/state/d/1f [tensorstore_spec={}]'))
  asyncio.run(leaves('of somebody else'))
  gc.collect()
  (record,) = caplog.records
  assert 'of somebody else' in record.getMessage()


@pytest.mark.parametrize('kind', ['Task', 'Future'])
def test_arrays_that_fail_after_the_one_that_is_raised_are_passed_over(kind, caplog):
  logs.leave_out_leftovers()
  say = logging.getLogger('asyncio').error
  say(f"{kind} exception was never retrieved\nfuture: OUT_OF_RANGE: /run/3/state/: [tensorstore_spec='...']")
  assert caplog.records == []
  say(f'{kind} exception was never retrieved\nfuture: somebody else')
  assert len(caplog.records) == 1
