"""Which classes folders are, by name or by number; what is none is listed in one line."""

import pytest

from resjax.data.classes import labels_of

NAMES = ('ant', 'bee', 'cat')
KNOWN = ('tench', 'French horn', 'crane', 'T-shirt', 'crane')


@pytest.mark.parametrize(
  ('folders', 'names', 'labels'),
  [
    (('bee', 'ant'), NAMES, [1, 0]),
    (('french_horn', 't shirt', 'TENCH'), KNOWN, [1, 3, 0]),
    (('2', '001'), NAMES, [2, 1]),
    (('000', '4', '1'), KNOWN, [0, 4, 1]),
    (('1', '0'), ('1', '0'), [0, 1]),  # names come before numbers
    (('0', '3'), ('7', '3', '0'), [2, 1]),
    (('n01', 'n02', 'n03'), NAMES, [0, 1, 2]),
    (KNOWN, KNOWN, [0, 1, 2, 3, 4]),
  ],
)
def test_folders_stand_for_classes_by_name_or_by_number(folders, names, labels):
  assert labels_of(folders, names, 'here') == labels


@pytest.mark.parametrize(
  ('folders', 'names', 'message'),
  [
    ((), NAMES, 'no class folders, expected here/<class>/'),
    (('ant', 'dog'), NAMES, "1 of 2 folders are no class of the network: 'dog'; expected all .* such as 'ant', or all"),
    (('0', '3'), NAMES, "2 of 2 folders are no class of the network: '0', '3'; .* their numbers, 0 to 2$"),
    (('ant', '1'), NAMES, "1 of 2 folders are no class of the network: '1'; expected"),
    (('ant', 'bee', 'dog'), NAMES, "1 of 3 folders are no class of the network: 'dog'"),
    (('crane', 'ant'), ('crane', 'ant', 'crane'), r"1 of 2 folders .*: 'crane' \(the name of 2 classes\); expected"),
    (('crane',), KNOWN, r"1 of 1 folders .*: 'crane' \(the name of 2 classes\)"),
    (tuple(f'{n}x' for n in range(30)), NAMES, "30 of 30 folders .*'19x', ...; expected"),
  ],
)
def test_folders_that_are_no_classes_are_listed_in_one_line(folders, names, message):
  with pytest.raises(ValueError, match=f'^here: {message}') as error:
    labels_of(folders, names, 'here')
  assert '\n' not in str(error.value)
