"""A budget as it is typed: shares, multiply-adds, milliseconds; one meaning everywhere."""

import numpy as np
import pytest

from resjax.routing import Budget

LARGEST = 2e9


@pytest.mark.parametrize(
  ('typed', 'unit', 'target'),
  [
    (0.6, 'share', 1.2e9),
    ('0.6', 'share', 1.2e9),
    (1, 'share', 2e9),
    ('1.0', 'share', 2e9),
    (np.float32(0.5), 'share', 1e9),
    (np.float64(0.5), 'share', 1e9),
    ('5e-05', 'share', 1e5),
    (1.5, 'macs', 1.5),
    ('9e8', 'macs', 9e8),
    (9e8, 'macs', 9e8),
    (900_000_000, 'macs', 9e8),
    ('12ms', 'ms', 12),
    (' 0.5 ms ', 'ms', 0.5),
    ('1e1ms', 'ms', 10),
  ],
)
def test_what_is_typed_means_one_thing(typed, unit, target):
  budget = Budget.parse(typed)
  assert (budget.unit, budget.timed) == (unit, unit == 'ms')
  assert budget.target(LARGEST) == pytest.approx(target, rel=1e-12)
  assert Budget.parse(budget) is budget


def test_text_and_number_are_the_same_budget():
  assert Budget.parse('0.6') == Budget.parse(0.6) and len({Budget.parse('0.60'), Budget.parse(0.6)}) == 1
  assert Budget.parse('12') != Budget.parse('12ms')
  assert (str(Budget.parse('12ms')), str(Budget.parse(0.6)), str(Budget.parse('9e8'))) == ('12ms', '0.6', '9e+08')


@pytest.mark.parametrize(
  'typed', [0, -1, 0.0, 'much', '', '1.2.3', 'inf', float('inf'), float('nan'), '0ms', '12s', '12 ms ms', None, True]
)
def test_what_is_no_budget_is_refused_in_one_line(typed):
  with pytest.raises(ValueError, match=r'^budget: got .*, expected a share such as 0.6, multiply-adds such as 9e8, or'):
    Budget.parse(typed)


@pytest.mark.parametrize('typed', ['0.6', '9e8', '12ms', '123456789', '0.123456789', '12.3456789ms'])
def test_what_is_kept_of_a_budget_is_read_as_the_same(typed):
  budget = Budget.parse(typed)
  assert Budget.parse(budget.exact) == budget and (len(typed) > 5 or budget.exact == str(budget))
