"""A results.json that was changed by hand: shown as far as it can be read, else refused in one line."""

import copy
import io
import json

import pytest
from rich.console import Console
from test_report import make

from resjax.report import results, table


def nodes(tree, path=()):
  """The paths of all entries of nested dicts."""
  for name, value in tree.items():
    yield (*path, name)
    if isinstance(value, dict):
      yield from nodes(value, (*path, name))


@pytest.mark.parametrize('value', [None, 'x', [], {}, [1], -1])
def test_an_entry_of_another_kind_is_told_in_one_line(tmp_path, value):
  """Of whatever is changed by hand: what can be read is shown, and all else names the file."""
  whole = make(unreadable=3, needed={'agreement': 0.5, 'agreement_or_right': 1.0, 'share': {'16': {'16': 1.0}}})
  whole |= {'routers': {'predictor': {'macs': 3e5, 'top1': 0.5, 'share': dict.fromkeys(whole['resolutions'], 0.5)}}}
  refused = 0
  for path in [*nodes(whole), ('format',)]:
    damaged = copy.deepcopy(whole)
    node = damaged
    for name in path[:-1]:
      node = node[name]
    node[path[-1]] = value
    (tmp_path / 'results.json').write_text(json.dumps(damaged))
    try:
      table.show(results.read(tmp_path), Console(file=io.StringIO()))
    except ValueError as error:
      assert 'results.json: ' in str(error) and '\n' not in str(error), path
      refused += 1
  assert refused > 20
