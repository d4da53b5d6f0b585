"""The number of what is stored: read up to this version's, refused above it, and told where it is none."""

import pytest

from resjax import checkpoint, formats
from resjax import config as configuration


def test_numbers_up_to_this_versions_are_read():
  assert [formats.check(number, 'file') for number in range(formats.FORMAT + 1)] == [*range(formats.FORMAT + 1)]


def test_what_a_newer_version_wrote_is_refused():
  with pytest.raises(
    ValueError, match=r'^a/file: got format \d+, expected at most \d+: a newer resjax wrote it, update'
  ):
    formats.check(formats.FORMAT + 1, 'a/file')


@pytest.mark.parametrize('number', [None, '1', [], {}, -1, 1.0, True])
def test_what_is_no_number_is_damage(number):
  with pytest.raises(ValueError, match='^a/file: damaged, got format .*, expected a number from 0 to') as error:
    formats.check(number, 'a/file')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('config', [None, 'x', [], 3])
def test_a_stored_run_without_a_config_is_damaged(config):
  for stored in ({'config': config}, {}):
    with pytest.raises(ValueError, match='^runs/a: damaged, got config .*, expected the fields of a run$'):
      configuration.complete(stored, 'runs/a')


@pytest.mark.parametrize('fields', [{'resolutions': 7}, {'resolutions': []}, {'model': {'name': 'none'}}])
def test_an_old_config_that_says_nothing_ends_in_one_line(fields):
  with pytest.raises(ValueError, match='^runs/a: the stored config can not be brought to this version ') as error:
    configuration.complete({'config': {'method': 'drnet', **fields}}, 'runs/a')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('meta', 'found'),
  [
    (None, 'None beside the state, expected a dict'),
    ([], r'\[\] beside the state, expected a dict'),
    ({'config': None}, 'config None, expected a dict'),
    ({'class_names': 'abc'}, "class_names 'abc', expected a list or tuple"),
    ({'train_seconds': '1'}, "train_seconds '1', expected a float or int"),
    ({'finished': 1}, 'finished 1, expected a bool'),
    ({'format': '1'}, "format '1', expected a number from 0 to"),
  ],
)
def test_what_stands_beside_a_state_is_checked(meta, found):
  whole = {'config': {}, 'class_names': [], 'train_seconds': 1, 'finished': True, 'format': 1}
  assert checkpoint.checked(whole, 'runs/a') == whole
  damaged = whole | meta if isinstance(meta, dict) else meta
  with pytest.raises(ValueError, match=f'^runs/a: damaged, got {found}'):
    checkpoint.checked(damaged, 'runs/a')
