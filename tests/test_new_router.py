"""A router of one's own: one class and one entry, and it is listed, judged, charted and told of in help texts."""

import argparse
import dataclasses
from typing import ClassVar

import numpy as np
import pytest
import test_judge
import test_page

from resjax import routing
from resjax.commands import predict
from resjax.report import charts, page
from resjax.routing.router import Dialled


@dataclasses.dataclass(frozen=True)
class Lowest(Dialled):
  """Goes by the log-odds at the lowest resolution alone."""

  name: ClassVar[str] = 'lowest'
  help: ClassVar[str] = 'how sure the lowest resolution is'
  style: ClassVar[tuple[str, str]] = ('#123456', 'h')
  line: ClassVar[str] = '-.'
  reads: ClassVar[str] = 'odds'

  costs: tuple[float, ...]
  knob: float = 0.0

  def choose(self, column):
    """In equal steps of the knob from the highest down."""
    steps = np.arange(1, len(self.costs))
    return (column[:, -1:] + self.knob > 10 * steps / len(self.costs)).sum(1)


@pytest.fixture(autouse=True)
def listed(monkeypatch):
  monkeypatch.setitem(routing.ROUTERS, 'lowest', Lowest)


def test_it_is_judged_beside_the_predictor():
  (found, needed), (calibration, _) = test_judge.table(), test_judge.table(1)
  for other in (calibration, None):
    routers = test_judge.compare(found, needed, calibration=other)['routers']
    assert list(routers) == ['predictor', 'random', 'cascade', 'lowest', 'oracle', 'known']
    assert 0 < routers['lowest']['top1'] <= 1 and sum(routers['lowest']['share'].values()) == pytest.approx(1)
    assert routers['lowest']['macs'] == pytest.approx(routers['predictor']['macs'], rel=0.3)


def test_it_has_its_line_in_every_chart():
  study = test_page.make()
  study['curves']['lowest'] = test_page.points((0.7, 0.8), recovered=0.5)
  study['speed']['ways'].append(test_page.way('lowest', 2e6, 0.7, target=1.5e6))
  for chart in (charts.accuracy(study, 'macs'), charts.accuracy(study, 'milliseconds'), charts.shares(study)):
    assert '>lowest</' in chart
  assert '#123456' in charts.accuracy(study, 'macs')
  assert page.render(study, test_page.pictures()).count('<td>lowest</td>') >= 2


def test_one_that_reads_the_predictors_scores_is_offered_where_there_is_a_predictor(monkeypatch):
  assert 'lowest' in routing.names_for(False)
  monkeypatch.setattr(Lowest, 'reads', 'scores')
  assert 'lowest' not in routing.names_for(False) and 'lowest' in routing.names_for(True)


def test_the_command_tells_of_it():
  parser = argparse.ArgumentParser()
  predict.add_arguments(parser)
  assert 'lowest: how sure the lowest resolution is' in ' '.join(parser.format_help().split())
