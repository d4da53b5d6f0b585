"""Several ways in turns: in which order, and which calls count."""

from resjax.measuring import turns


class Clock:
  """A clock that only calls move: `Clock.way` returns what takes some seconds, more at the first of calls in a row."""

  def __init__(self):
    self.now, self.last, self.calls = 0.0, '', ''

  def way(self, name: str, seconds: float, first: float):
    def run() -> None:
      self.now += seconds if self.last == name else first
      self.last = name
      self.calls += name

    return run

  def perf_counter(self) -> float:
    return self.now


def test_the_ways_take_turns_at_being_first(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(turns, 'time', clock)
  ways = {'a': clock.way('a', 1.0, 1.0), 'b': clock.way('b', 2.0, 2.0)}
  assert turns.seconds(ways, rounds=2, warm_up=2) == {'a': [1.0, 1.0], 'b': [2.0, 2.0]}
  assert clock.calls == 'abbaabba'


def test_a_turn_begins_with_calls_that_do_not_count(monkeypatch):
  """The first call of a turn is slow for what ran before it: it is not counted, nor are those until all is settled."""
  clock = Clock()
  monkeypatch.setattr(turns, 'time', clock)
  ways = {'a': clock.way('a', 1.0, 5.0), 'b': clock.way('b', 2.0, 7.0)}
  assert turns.seconds(ways, rounds=2, warm_up=1, settle=6.0) == {'a': [1.0, 1.0], 'b': [2.0, 2.0]}
  assert clock.calls == 'bbaaa' + 7 * 'a' + 'bb' + 'bbbb' + 'aaa'
  assert turns.seconds(ways, rounds=1, warm_up=0)['b'] == [7.0]  # without, it counts
