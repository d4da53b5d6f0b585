"""Writes the tables of docs/evidence.md and docs/drnet.md from the records in docs/evidence: none is typed by hand.

Command:  python benchmarks/evidence.py [--page=PAGE.md] [--check]

A table stands between `<!-- study STUDY.py:SCALE FOLDER -->`, the records of which are in FOLDER beside the page, and
`<!-- end of study -->`; all else on the page stays. `<!-- study STUDY.py:SCALE FOLDER routers -->` has a row for each
network with a predictor, and nothing else. With --check nothing is written, and a page that is not what the records
say is an error.
"""

import argparse
import functools
import pathlib
import re
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from resjax.evidence import Study, definition, jobs, running, verdicts
from resjax.report import evidence
from resjax.report.table import macs_text

ROOT = pathlib.Path(__file__).parents[1]
PAGES = (ROOT / 'docs' / 'evidence.md', ROOT / 'docs' / 'drnet.md')
BLOCK = re.compile(r'(<!-- study (\S+) (\S+)( routers)? -->\n).*?(<!-- end of study -->)', re.DOTALL)
MOST_WAYS = 6  # that stand beside each other


def main() -> None:
  """Writes the pages, or checks them."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--page', type=pathlib.Path, help='default: all of them')
  parser.add_argument('--check', action='store_true')
  options = parser.parse_args()
  for page in [options.page] if options.page else PAGES:
    try:
      before = page.read_text(encoding='utf-8')
      text = written(before, page.parent)
    except (ValueError, OSError) as error:
      sys.exit(f'error: {error}')
    if options.check and text != before:
      sys.exit(f'error: {page} is not what its records say: python benchmarks/evidence.py')
    if not options.check:
      page.write_text(text, encoding='utf-8')


def written(text: str, folder: pathlib.Path) -> str:
  """Returns a page with its tables made anew.

  Args:
    text: Of the page.
    folder: That it is in.

  Raises:
    ValueError: A study or a record is damaged, or a table has no end.
    FileNotFoundError: There is no such study.
  """
  records = functools.cache(lambda name: running.Kept(folder / name).all())

  def block(found: re.Match[str]) -> str:
    begin, study, name, alone, end = found.groups()
    lines = routers(study, records(name)) if alone else tables(study, name, records(name))
    return begin + '\n'.join(lines) + '\n' + end

  page, blocks = BLOCK.subn(block, text)
  if any(text.count(mark) != blocks for mark in ('<!-- study ', '<!-- end of study -->')):
    raise ValueError(
      f'got {blocks} tables, expected each "<!-- study" to be written as above, with an end before the next'
    )
  return page


def findings(place: str, kept: dict[str, Any]) -> tuple[Study, dict[str, Any]]:
  """Returns a study and what its finished runs say."""
  study = definition.read(f'{ROOT / place}')
  seeds = sorted({record.about['seed'] for record in kept.values()})
  return study, verdicts.findings(study, jobs.of_study(study, seeds) if seeds else [], kept)


def tables(place: str, folder: str, kept: dict[str, Any]) -> list[str]:
  """Returns what the records of a study say, as lines of Markdown.

  Args:
    place: Of the study, from the root of the project.
    folder: Of its records, beside the page.
    kept: Finished runs by key.
  """
  study, found = findings(place, kept)
  data = '' if study.scale == 'digits' else ' --data.dir=DIR'
  command = f'resjax study {place}{data} --records=docs/{folder}'
  head = [f'**{study.title}.** {study.about}', '', '```', command, '```', '']
  if not found['finished']:
    return [*head, 'Not run yet.']
  versions = ', '.join(f'{name} {" or ".join(found["versions"][name])}' for name in ('jax', 'flax', 'python'))
  images = ' to '.join(f'{count:,}' for count in found['images'])
  dates = ' to '.join(dict.fromkeys((found['dates'][0], found['dates'][-1])))
  said = (
    f'{found["finished"]} runs, {evidence.duration(found["seconds"])} of training; {images} test images; '
    f'{"; ".join(found["machines"])}; {versions}; {dates}.'
  )
  return [*head, *accuracies(found), '', *claims(found), '', said]


def accuracies(found: dict[str, Any]) -> list[str]:
  """Returns the table of arms, top-1 in per cent, mean and deviation over the seeds."""
  arms = {name: arm for name, arm in found['arms'].items() if arm['seeds']}
  ways = evidence.ways_of(found)
  if len(ways) > MOST_WAYS:
    rows = [
      [name, way, macs_text(entry['macs']['mean']), evidence.spread_text(entry['top1'], len(arm['seeds']))]
      for name, arm in arms.items()
      for way, entry in arm['ways'].items()
    ]
    return markdown(['arm', 'way', 'multiply-adds', 'top-1 %'], rows)
  rows = [
    [name, str(len(arm['seeds']))]
    + [evidence.spread_text(arm['ways'][way]['top1'], len(arm['seeds'])) if way in arm['ways'] else '' for way in ways]
    for name, arm in arms.items()
  ]
  return markdown(['arm', 'seeds', *(f'{way} px' if way.isdecimal() else way for way in ways)], rows)


def routers(place: str, kept: dict[str, Any]) -> list[str]:
  """Returns the table of networks with a predictor: its cost, and what is right by each router."""
  _, found = findings(place, kept)
  rows, largest = [], ''
  for name, arm in found['arms'].items():
    if 'predictor' not in arm['ways']:
      continue
    largest = max(filter(str.isdecimal, arm['ways']), key=int)
    share = arm['ways']['predictor']['macs']['mean'] / arm['ways'][largest]['macs']['mean']
    top1 = [arm['ways'][way]['top1'] for way in ('predictor', largest, 'random', 'cascade', 'oracle')]
    about = f'{name}: {arm["about"]}' if arm['about'] else name
    rows.append([about, f'{100 * share:.0f}', *(evidence.spread_text(each, len(arm['seeds'])) for each in top1)])
  if not rows:
    return ['Not run yet.']
  return markdown(['training', 'cost %', 'predictor', f'static {largest} px', 'random', 'cascade', 'oracle'], rows)


def claims(found: dict[str, Any]) -> list[str]:
  """Returns the table of claims: difference in points, interval, seeds in which it is above 0, verdict."""
  rows = []
  for claim in found['claims']:
    points = '' if claim['difference'] is None else f'{100 * claim["difference"]:+.2f}'
    above = f'{claim["above"]} of {claim["seeds"]}' if claim['seeds'] else ''
    verdict = claim['verdict'] + f' ({claim["note"]})' * bool(claim['note'])
    words = f'{claim["text"]} ({claim["source"]})'
    rows.append([evidence.claim_text(claim), words, points, evidence.interval_text(claim), above, verdict])
  interval = f'{100 * found["level"]:.0f} % interval'
  return markdown(['claim', 'in words', 'points', interval, 'seeds above', 'verdict'], rows)


def markdown(heads: list[str], rows: list[list[str]]) -> list[str]:
  """Returns a table."""
  return ['| ' + ' | '.join(row) + ' |' if row else '|---' * len(heads) + '|' for row in [heads, [], *rows]]


if __name__ == '__main__':
  main()
