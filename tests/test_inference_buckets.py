import itertools
import time

import numpy as np
import pytest

from resjax.inference import buckets
from resjax.inference.buckets import Planner, closed_sizes


def least_cover(seconds, sizes, images):
  """The least cost of buckets that hold so many images, tried in all ways."""
  if images <= 0:
    return 0.0
  return min(s + least_cover(seconds, sizes, images - size) for s, size in zip(seconds, sizes, strict=True))


def brute_force(seconds, sizes, choice, allowed=lambda run: True):
  """The least cost over all ways to run every image at its own resolution or a higher one."""
  best = np.inf
  for ran in itertools.product(*(range(place + 1) for place in choice)):
    run = np.bincount(ran, minlength=len(seconds))
    if allowed(run):
      best = min(best, sum(least_cover(s, sizes, n) for s, n in zip(seconds, run, strict=True)))
  return best


def check(plan, planner, choice):
  """Every image runs once, at its own resolution or a higher one; the costs add up; no bucket overflows."""
  rows = np.concatenate([g.rows for g in plan.groups]) if plan.groups else np.empty(0, int)
  assert sorted(rows) == list(range(len(choice)))
  assert (plan.ran <= choice).all()
  for group in plan.groups:
    assert 0 < len(group.rows) <= group.bucket and group.bucket in planner.buckets
    assert (plan.ran[group.rows] == group.place).all()
  cost = sum(planner.seconds[g.place, planner.buckets.index(g.bucket)] for g in plan.groups)
  np.testing.assert_allclose(plan.seconds, cost, rtol=1e-12)


def tables(rng, places, sizes):
  """Costs per call: some as on a machine (a start, and a price per image), some of any kind."""
  if rng.random() < 0.5:
    return rng.uniform(0.1, 3, (places, len(sizes)))
  price = np.sort(rng.uniform(0.1, 1, places))[::-1]
  return rng.uniform(0, 2) + price[:, None] * np.array(sizes)


@pytest.mark.parametrize('sizes', [(1, 2, 4), (2, 3), (1, 5), (6,)])
def test_the_plan_is_the_cheapest_there_is(sizes):
  rng = np.random.default_rng(sizes[-1])
  for _ in range(25):
    seconds = tables(rng, 3, sizes)
    planner = Planner(seconds, sizes)
    choice = rng.integers(0, 3, rng.integers(1, 1 + min(6, max(sizes))))
    plan = planner.plan(choice)
    check(plan, planner, choice)
    np.testing.assert_allclose(plan.seconds, brute_force(seconds, sizes, choice), rtol=1e-12)


def test_without_promotion_every_image_runs_at_its_own_resolution():
  rng = np.random.default_rng(0)
  for _ in range(20):
    seconds = tables(rng, 3, (1, 2, 4))
    planner = Planner(seconds, (1, 2, 4))
    choice = rng.integers(0, 3, 4)
    plan = planner.plan(choice, promote=False)
    check(plan, planner, choice)
    np.testing.assert_array_equal(plan.ran, choice)
    own = [least_cover(s, (1, 2, 4), (choice == place).sum()) for place, s in enumerate(seconds)]
    np.testing.assert_allclose(plan.seconds, sum(own), rtol=1e-12)


def test_many_images_pass_up_a_few_or_all(monkeypatch):
  monkeypatch.setattr(buckets, 'MOST_CARRIED', 2)
  rng = np.random.default_rng(1)
  felt = (np.array([[1, 1, 1, 9], [0.1, 0.1, 9, 9]]), np.array([0, 1, 1, 1, 1, 1]))  # three up: 1.1
  cases = [(tables(rng, 2, (1, 2, 4, 7)), rng.integers(0, 2, 7)) for _ in range(20)]
  for seconds, choice in [felt, *cases]:
    planner = Planner(seconds, (1, 2, 4, 7))
    few_or_all = (0, 1, 2, low := (choice == 1).sum())
    plan = planner.plan(choice)
    check(plan, planner, choice)
    family = brute_force(seconds, planner.buckets, choice, lambda run, low=low, up=few_or_all: low - run[1] in up)
    np.testing.assert_allclose(plan.seconds, family, rtol=1e-12)
  seconds, choice = felt
  assert abs(Planner(seconds, (1, 2, 4, 7)).plan(choice).seconds - 1.2) < 1e-9
  assert abs(brute_force(seconds, (1, 2, 4, 7), choice) - 1.1) < 1e-9  # the bound is felt


def test_leftovers_are_decomposed_padded_or_promoted_as_the_table_says():
  sizes, choice = (1, 2, 4), np.array([0, 1, 1, 1])

  def ran(seconds):
    plan = Planner(np.array(seconds, float), sizes).plan(choice)
    return [(g.place, g.bucket, len(g.rows)) for g in plan.groups]

  assert ran([[4, 8, 16], [1, 2, 4]]) == [
    (0, 1, 1),
    (1, 2, 2),
    (1, 1, 1),
  ]  # by the image: exact sizes, large ones first
  assert ran([[4, 8, 16], [2, 2.5, 3]]) == [(0, 1, 1), (1, 4, 3)]  # a start is dear: one padded bucket
  assert ran([[4, 4.5, 16], [3, 3.5, 9]]) == [(0, 2, 2), (1, 2, 2)]  # a place is free above: one is promoted
  assert ran([[4, 4.5, 5], [3, 3.5, 9]]) == [(0, 4, 4)]  # grouping loses: all at one resolution


def test_images_keep_their_order_and_the_last_are_promoted():
  planner = Planner(np.array([[4, 4.5, 16], [3, 3.5, 9]]), (1, 2, 4))
  plan = planner.plan(np.array([1, 1, 0, 1]))
  assert [g.rows.tolist() for g in plan.groups] == [[2, 3], [0, 1]]
  np.testing.assert_array_equal(plan.ran, [1, 1, 0, 0])


@pytest.mark.parametrize('price', [0.1, 0.3, 0.7])
def test_of_equal_costs_few_calls_and_little_padding(price):
  sizes = closed_sizes(16)
  by_the_image = Planner(price * np.array([sizes]), sizes)
  assert [g.bucket for g in by_the_image.plan(np.zeros(15, int)).groups] == [8, 4, 2, 1]
  by_the_call = Planner(np.full((1, len(sizes)), price), sizes)
  assert [g.bucket for g in by_the_call.plan(np.zeros(5, int)).groups] == [8]


def test_an_empty_batch_has_an_empty_plan():
  plan = Planner(np.ones((2, 1)), (1,)).plan(np.empty(0, int))
  assert plan.groups == [] and plan.seconds == 0 and plan.ran.shape == (0,)


@pytest.mark.parametrize(
  'max_batch, multiple, sizes',
  [
    (1, 1, (1,)),
    (8, 1, (1, 2, 4, 8)),
    (48, 1, (1, 2, 4, 8, 16, 32, 48)),
    (3, 1, (1, 2, 3)),
    (32, 8, (8, 16, 32)),
    (20, 8, (8, 16, 24)),
    (1, 8, (8,)),
  ],
)
def test_closed_sizes(max_batch, multiple, sizes):
  assert closed_sizes(max_batch, multiple) == sizes


@pytest.mark.slow  # on a machine that may be busy with other things
def test_planning_128_images_takes_less_than_a_millisecond():
  sizes = closed_sizes(128)
  planner = Planner(np.outer([1, 0.5, 0.2], [1.5 + b for b in sizes]), sizes)
  rng = np.random.default_rng(0)
  times = []
  for _ in range(50):
    choice = rng.integers(0, 3, 128)
    begin = time.perf_counter()
    planner.plan(choice)
    times.append(time.perf_counter() - begin)
  assert min(times) < 1e-3  # of fifty, so that other work on the machine does not count


def test_bad_input_is_refused_in_one_line():
  for wrong in (0, -1, 2.0):
    with pytest.raises(ValueError, match=r'max_batch: got .*, expected a positive integer'):
      closed_sizes(wrong)
  for wrong in ((), (0, 1), (2, 1), (1, 1)):
    with pytest.raises(ValueError, match='buckets: got .* expected ascending positive integers'):
      Planner(np.ones((2, len(wrong))), wrong)
  with pytest.raises(ValueError, match=r'seconds: got shape \(2, 3\), expected \[resolutions, 2 buckets\]'):
    Planner(np.ones((2, 3)), (1, 2))
  for wrong in (0.0, -1.0, np.nan, np.inf):
    with pytest.raises(ValueError, match='seconds: got .* expected positive numbers'):
      Planner(np.full((1, 1), wrong), (1,))


@pytest.mark.parametrize('place', [0, 1, 2])
def test_one_image_has_the_plan_of_the_search_without_it(place, monkeypatch):
  planner = Planner([[3.0, 2.0], [1.0, 1.5], [2.0, 2.5]], (1, 2))  # at the highest two images cost less than one
  choice = np.array([place])
  fast = planner.plan(choice, promote=False)
  run, seconds = planner._images_at(np.bincount(choice, minlength=3), False)
  assert (fast.seconds, list(run)) == (seconds, [int(p == place) for p in range(3)])
  check(fast, planner, choice)
  ((at, bucket, rows),) = fast.groups
  assert (at, bucket, list(rows), list(fast.ran)) == (place, 2 if place == 0 else 1, [0], [place])
  monkeypatch.setattr(planner, '_images_at', None)
  planner.plan(choice, promote=False)
