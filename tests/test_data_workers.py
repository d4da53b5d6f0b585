"""How many processes decode: by processors and images, none in small runs, none where a script would run again."""

import os
import sys
import types

import pytest
from numbered import make_config

from resjax.data import workers


@pytest.mark.parametrize(
  ('count', 'images', 'fields', 'expected'),
  [
    (2, 1e6, {}, 0),
    (4, 1e6, {}, 0),
    (96, 1e6, {}, 24),
    (6, 1e6, {'data__threads': 1}, 6),
    (96, 19_999, {}, 0),
    (96, 1e6, {'data__source': 'scaled_digits'}, 0),
    (96, 1e6, {'data__cache': 'memory'}, 0),
    (96, 1e6, {'data__cache': '/local'}, 24),
    (2, 10, {'data__workers': 8}, 8),
    (96, 1e6, {'data__workers': 0}, 0),
  ],
)
def test_workers_go_by_the_processors(count, images, fields, expected, monkeypatch):
  monkeypatch.setattr(workers, 'processors', lambda: count)
  config = make_config(**({'data__source': 'folder', 'data__workers': -1, 'data__threads': 4} | fields))
  assert workers.processes(config, images) == expected


@pytest.mark.parametrize(('text', 'expected'), [("if __name__ == '__main__':\n  run()", 48), ('run()', 0), (None, 48)])
def test_a_script_that_would_run_again_in_each_gets_none(text, expected, monkeypatch, tmp_path):
  script = types.ModuleType('__main__')
  if text is not None:
    script.__file__ = str(tmp_path / 'script.py')
    (tmp_path / 'script.py').write_text(text)
  monkeypatch.setitem(sys.modules, '__main__', script)
  monkeypatch.setattr(workers, 'processors', lambda: 96)
  assert workers.processes(make_config(data__source='folder', data__workers=-1), 1e6) == expected


def test_processors_are_those_that_the_process_may_use():
  allowed = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else None
  assert 1 <= workers.processors() <= (len(allowed) if allowed else os.cpu_count())
