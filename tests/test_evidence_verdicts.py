"""What finished runs say: accuracies, verdicts, and how both are shown."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from resjax.evidence import Arm, Claim, Study, jobs, verdicts
from resjax.evidence.records import Record, Way
from resjax.report import evidence

IMAGES = 400
CLAIMS = [
  Claim('good@32', 'poor@32', 'the good one is above', 'Someone, 2020'),
  Claim('poor@32', 'good@32', 'the poor one is above', 'nobody'),
  Claim('good@32', 'twin@32', 'one is above its twin', 'nobody'),
  Claim(('good@32', 'poor@32'), 'poor@ensemble', 'a mean of two', 'nobody'),
  Claim('good@32', 'missing@32', 'one of which there is no run', 'nobody'),
]
STUDY = Study(
  'A <study>', 'quickstart', {name: Arm() for name in ('good', 'poor', 'twin', 'missing')}, CLAIMS, about='What & why.'
)  # fmt: skip
SHARES = {'good': 0.9, 'twin': 0.9, 'poor': 0.6}


def findings(seeds=5, names=tuple(SHARES)):
  """Of made-up runs: seeds that scatter, images of which some are hard for all."""
  rng = np.random.default_rng(0)
  hard = rng.random(IMAGES)
  wanted = [jobs.Job(name, seed, jobs.recipes.make('quickstart')) for seed in range(seeds) for name in STUDY.arms]
  kept = {}
  for number, job in enumerate(wanted):
    job.config.seed, job.config.batch_size = job.seed, 64 + list(STUDY.arms).index(job.arm)
    if job.arm in names:
      right = hard + rng.normal(0, 0.1, IMAGES) < SHARES[job.arm] + rng.normal(0, 0.02)
      ways = {'32': Way(right, 2e6), 'ensemble': Way(right | (rng.random(IMAGES) < 0.5), 3e6)}
      about = {'images': IMAGES, 'seconds': 60.0 + number, 'machine': '2 × M', 'date': '2026-01-02', 'params': 1234,
               'epochs': 3.5, 'versions': {'jax': '1.2'}}  # fmt: skip
      kept[job.key] = Record(job.key, ways, about)
  return verdicts.findings(STUDY, wanted, kept)


@pytest.mark.parametrize(
  ('low', 'high', 'expected'),
  [(0.1, 0.2, 'shown'), (-0.2, -0.1, 'refuted'), (-0.1, 0.1, 'open at this scale'), (0.0, 0.1, 'open at this scale')],
)
def test_the_rule(low, high, expected):
  assert verdicts.verdict(low, high) == expected


def test_each_claim_has_the_verdict_of_its_interval():
  claims = findings()['claims']
  found = [claim['verdict'] for claim in claims]
  assert found == ['shown', 'refuted', 'open at this scale', 'refuted', 'not run']
  first, second, *_ = claims
  assert first['difference'] == pytest.approx(-second['difference']) and 0.2 < first['difference'] < 0.4
  assert (first['above'], second['above'], first['seeds']) == (5, 0, 5)
  assert first['left_mean'] - first['right_mean'] == pytest.approx(first['difference'])


def test_a_mean_of_sides_is_their_mean():
  found = findings()
  mean = (found['arms']['good']['ways']['32']['top1']['mean'] + found['arms']['poor']['ways']['32']['top1']['mean']) / 2
  assert found['claims'][3]['left_mean'] == pytest.approx(mean)


def test_two_seeds_are_too_few_for_a_verdict():
  claims = findings(seeds=2)['claims']
  assert {claim['verdict'] for claim in claims} == {'open at this scale', 'not run'}
  assert claims[0]['note'] == '2 seeds, expected 3 or more for a verdict' and claims[0]['difference'] > 0.2
  assert findings(seeds=1)['claims'][0]['note'] == '1 seed, expected 3 or more for a verdict'


def test_arms_have_mean_and_deviation():
  arm = findings()['arms']['good']
  assert arm['seeds'] == [0, 1, 2, 3, 4] and 0 < arm['ways']['32']['top1']['sd'] < 0.05
  assert arm['ways']['32']['macs'] == {'mean': 2e6, 'sd': 0} and arm['seconds']['mean'] == pytest.approx(60 + 8)
  assert findings()['arms']['missing']['ways'] == {} and findings()['finished'] == 15


def test_a_way_that_is_not_there_is_named():
  run = Record('key', {'32': Way(np.ones(3, bool), 1)}, {})
  with pytest.raises(ValueError, match=r"^claims: 'good@predictor': expected one of 32$"):
    verdicts.judged(Claim('good@predictor', 'good@32', '', ''), {'good': {0: run}})


def test_the_tables_say_what_was_found():
  console = Console(width=120, record=True, file=io.StringIO())
  evidence.show(findings(), console)
  text = console.export_text()
  assert 'A <study>: top-1 %' in text and 'good > poor, at 32' in text and '15 of 20 runs finished' in text
  assert re.search(r'mean of good at 32, poor at 32 > poor at ensemble .* refuted', text)
  assert '5 claims: 1 shown, 2 refuted, 1 open at this scale, 1 not run' in text and '5/5' in text


def test_many_ways_are_shown_as_rows():
  found = findings()
  ways = found['arms']['good']['ways']
  ways |= {f'{size} nearest': ways['32'] for size in range(8)}
  console = Console(width=80, record=True, file=io.StringIO())
  evidence.show(found, console)
  assert re.search(r'good +7 nearest +5 +2.00 M', console.export_text())


def test_the_page_needs_nothing_else_and_shows_names_as_text():
  page = evidence.render(findings() | {'command': 'resjax study a.py'})
  assert 'A &lt;study&gt;' in page and 'What &amp; why.' in page and '<svg' in page and 'Someone, 2020' in page
  assert not re.search(r'(src|href)="(?!data:|#)', page) and 'class="refuted"' in page and 'resjax study a.py' in page


def test_a_study_without_runs_has_a_page_too():
  found = findings(names=()) | {'command': 'x'}
  assert found['finished'] == 0 and 'not run' in evidence.render(found)


def test_each_network_is_trained_once():
  """A record of several has the seconds of all; those that have records of their own are not counted again."""
  one, two, three = (jobs.Job('one', seed, jobs.recipes.make('quickstart')) for seed in range(3))
  for job in (one, two, three):
    job.config.seed = job.seed
  both, all_three = (jobs.Job('together', 0, one.config, members=of) for of in ((one, two), (one, two, three)))
  again = jobs.Job('again', 0, one.config, recalibrated=True)
  about = {'images': 2, 'machine': 'M', 'date': '2026-01-02', 'params': 1, 'epochs': 1.0, 'versions': {}}
  seconds = {one: 10, two: 20, both: 30, all_three: 37, again: 10}
  ways = {'32': Way(np.ones(2, bool), 1e6)}
  kept = {job.key: Record(job.key, ways, about | {'seconds': spent}) for job, spent in seconds.items()}
  study = Study('A study', 'quickstart', {name: Arm() for name in ('one', 'together', 'again')}, [])
  assert verdicts.findings(study, [one, two, both], kept)['seconds'] == 30
  assert verdicts.findings(study, [one, both], kept)['seconds'] == 30
  assert verdicts.findings(study, [one, two, all_three], kept)['seconds'] == 37
  assert verdicts.findings(study, [one, again, both], kept)['seconds'] == 30  # scored twice, trained once
