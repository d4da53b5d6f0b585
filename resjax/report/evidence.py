"""What a study found, as tables for the terminal, as a picture, and as one HTML file that needs nothing else."""

import os
from typing import Any

from markupsafe import Markup
from matplotlib import figure as mpl_figure
from matplotlib import ticker
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from resjax.report import charts, page
from resjax.report.table import macs_text
from resjax.resolution import is_name
from resjax.telling import printable

_COLORS = ('#1b4f91', '#d64a41', '#2e9e7a', '#b0761c', '#7a4fa3', '#4c8fd6', '#5c6570', '#c2578f', '#87a922', '#00838f')
_MOST_WAYS = 6  # that stand beside each other
_MARKERS = 'osD^vP*X<>'
_STYLES = {'shown': 'green', 'refuted': 'red'}
_VERDICTS = ('shown', 'refuted', 'open at this scale', 'not run')


def show(found: dict[str, Any], console: Console | None = None) -> None:
  """Prints what was found.

  Args:
    found: As `resjax.evidence.verdicts.findings` returns it.
    console: Where to print; standard output by default.
  """
  parts: list[RenderableType] = [Text(), _accuracies(found)]
  if any(claim['seeds'] for claim in found['claims']):
    parts.append(_claims(found))
  parts.append(Text(summary(found), style='dim'))
  (console or Console()).print(Group(*parts))


def summary(found: dict[str, Any]) -> str:
  """Returns how many runs, of how many images and seconds, and how many claims came out how."""
  verdicts = [claim['verdict'] for claim in found['claims']]
  counts = ', '.join(f'{verdicts.count(each)} {each}' for each in _VERDICTS if each in verdicts)
  images = ' to '.join(f'{count:,}' for count in found['images']) or 'no'
  return (
    f'{found["finished"]} of {found["wanted"]} runs finished, {duration(found["seconds"])} of training; '
    f'{images} test images\n{len(verdicts)} claims{": " * bool(counts)}{counts}'
  )


def duration(seconds: float) -> str:
  """Returns seconds as hours and minutes."""
  minutes = round(seconds / 60)
  return (
    f'{minutes // 60} h {minutes % 60} min' if minutes >= 60 else f'{minutes} min' if minutes else f'{seconds:.0f} s'
  )


def spread_text(spread: dict[str, float], count: int) -> str:
  """Returns an accuracy over seeds in percent: `95.9 ± 0.4`."""
  mean = f'{100 * spread["mean"]:.1f}'
  return f'{mean} ± {100 * spread["sd"]:.1f}' if count > 1 else mean


def interval_text(claim: dict[str, Any]) -> str:
  """Returns a claim's interval in points."""
  return '' if claim['low'] is None else f'{100 * claim["low"]:+.2f} to {100 * claim["high"]:+.2f}'


def ways_of(found: dict[str, Any]) -> list[str]:
  """Returns the ways of all arms: numbers first, the highest first, then the others as they come."""
  ways = list(dict.fromkeys(way for arm in found['arms'].values() for way in arm['ways']))
  return sorted((w for w in ways if w.isdecimal()), key=int, reverse=True) + [w for w in ways if not w.isdecimal()]


def side_text(side: str | list[str] | tuple[str, ...]) -> str:
  """Returns one side of a claim in words: `RS-Net at 32`."""
  names = [side] if isinstance(side, str) else side
  return 'mean of ' * (len(names) > 1) + ', '.join(' at '.join(name.split('@')) for name in names)


def claim_text(claim: dict[str, Any]) -> str:
  """Returns a claim in short: `RS-Net > I-Net 32, at 32`."""
  left, right = claim['left'], claim['right']
  if isinstance(left, str) and isinstance(right, str) and left.partition('@')[2] == right.partition('@')[2]:
    return f'{left.partition("@")[0]} > {right.partition("@")[0]}, at {left.partition("@")[2]}'
  return f'{side_text(left)} > {side_text(right)}'


def draw(found: dict[str, Any]) -> mpl_figure.Figure:
  """Returns the picture of accuracy against multiply-adds: a line for each arm, mean and deviation over its seeds."""
  figure, axes = charts.framed(7.6, 4.6)
  for number, (name, arm) in enumerate(found['arms'].items()):
    points = sorted((way['macs']['mean'], way['top1']['mean'], way['top1']['sd']) for way in arm['ways'].values())
    if not points:
      continue
    macs, means, deviations = ([100 * y for y in column] if place else list(column)
                               for place, column in enumerate(zip(*points)))  # fmt: skip
    color, marker = _COLORS[number % len(_COLORS)], _MARKERS[number % len(_MARKERS)]
    sized = sorted((arm['ways'][w]['macs']['mean'], 100 * arm['ways'][w]['top1']['mean'])
                   for w in arm['ways'] if is_name(w) and '_' not in w)  # fmt: skip
    axes.plot(*zip(*sized), color=color, linewidth=1.2, alpha=0.6)
    axes.errorbar(macs, means, deviations, fmt=marker, color=color, markersize=5, capsize=2, linewidth=1, label=name)
  axes.set_xscale('log')
  axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
  axes.xaxis.set_minor_locator(ticker.NullLocator())
  axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=' '))
  axes.set_xlabel('multiply-adds per image')
  axes.set_ylabel('top-1 accuracy, %')
  if axes.has_data():
    figure.legend(loc='outside right center', frameon=False, fontsize=8, labelcolor=charts.INK)
  return figure


def save_picture(found: dict[str, Any], path: str | os.PathLike[str]) -> None:
  """Saves what `draw` returns; the file's ending chooses the format."""
  draw(found).savefig(path, dpi=150)


def render(found: dict[str, Any]) -> str:
  """Returns the page.

  Args:
    found: As for `show`, and the `command` that made it.
  """
  environment = page.environment()
  environment.filters |= {'short': claim_text, 'interval': interval_text, 'duration': duration}
  environment.filters['spread'] = spread_text
  picture: Markup = charts.svg(draw(found), 'evidence', 'Top-1 accuracy against multiply-adds, a line for each arm')
  template = environment.get_template('evidence.html.j2')
  return template.render(found=found, picture=picture, ways=ways_of(found), summary=summary(found).replace('\n', '; '))


def _accuracies(found: dict[str, Any]) -> Table:
  """A row for each arm, a column for each way."""
  ways = ways_of(found)
  if len(ways) > _MOST_WAYS:
    return _by_way(found)
  table = Table(title=f'{found["title"]}: top-1 %', title_justify='left', title_style='bold', box=box.SIMPLE_HEAD)
  table.add_column('arm')
  for way in ('seeds', *ways, 'minutes'):
    table.add_column(way, justify='right')
  for name, arm in found['arms'].items():
    count = len(arm['seeds'])
    cells = [spread_text(arm['ways'][way]['top1'], count) if way in arm['ways'] else '' for way in ways]
    minutes = f'{arm["seconds"]["mean"] / 60:.1f}' if arm['seconds'] else ''
    table.add_row(Text(printable(name)), str(count), *cells, minutes)
  return table


def _by_way(found: dict[str, Any]) -> Table:
  """A row for each way of each arm."""
  table = Table(title=f'{found["title"]}: top-1 %', title_justify='left', title_style='bold', box=box.SIMPLE_HEAD)
  table.add_column('arm')
  for column in ('way', 'seeds', 'multiply-adds', 'top-1 %'):
    table.add_column(column, justify='right')
  for name, arm in found['arms'].items():
    count = len(arm['seeds'])
    for way, entry in arm['ways'].items():
      macs, top1 = macs_text(entry['macs']['mean']), spread_text(entry['top1'], count)
      table.add_row(Text(printable(name)), way, str(count), macs, top1)
  return table


def _claims(found: dict[str, Any]) -> Table:
  """A row for each claim."""
  table = Table(title='claims', title_justify='left', title_style='bold', box=box.SIMPLE_HEAD)
  table.add_column('claim')
  for column in ('points', f'{100 * found["level"]:.0f} % interval', 'seeds', 'verdict'):
    table.add_column(column, justify='right')
  for claim in (claim for claim in found['claims'] if claim['seeds']):
    points = '' if claim['difference'] is None else f'{100 * claim["difference"]:+.2f}'
    seeds = f'{claim["above"]}/{claim["seeds"]}' if claim['seeds'] else ''
    text = claim_text(claim)
    style = _STYLES.get(claim['verdict'], '')
    table.add_row(Text(printable(text)), points, interval_text(claim), seeds, Text(claim['verdict'], style=style))
  return table


__all__ = ['draw', 'macs_text', 'render', 'save_picture', 'show', 'summary', 'ways_of']
