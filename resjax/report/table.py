"""The result of a run as a table for the terminal."""

from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from resjax.report import results as results_lib
from resjax.telling import printable

_LOWER = {
  'host': 'each resolution from the full image (host)',
  'device': 'the lower resolutions from the largest crop (device)',
}


# Above it, what the classes get stands in results.json alone.
_MOST_CLASSES = 12


def show(results: dict[str, Any], console: Console | None = None) -> None:
  """Prints the result: on a terminal with its colours, else as plain text of 80 columns.

  Args:
    results: As `results.read` returns them.
    console: Where to print; standard output by default.

  Raises:
    ValueError: An entry is missing or of another kind.
  """
  try:
    shown = render(results)
  except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
    raise ValueError(
      f'{results_lib.NAME}: damaged ({type(error).__name__}: {error}); delete it to score the run anew'
    ) from None
  (console or Console()).print(shown)


def render(results: dict[str, Any]) -> Group:
  """Returns the result as something that rich prints.

  A row for each resolution, the ensemble (whose multiply-adds are the sum over the resolutions) and
  each router; then parameters, images, time, and how evaluation made the lower resolutions. Where
  the results have `groups`, a second table tells top-1 for each group of images; where routers say
  what they sent where, another one does.
  """
  parts: list[RenderableType] = [accuracy(results, results_lib.title(results)), Text(_caption(results), style='dim')]
  if any('share' in router for router in results.get('routers', {}).values()):
    parts += [Text(), _shares(results), Text(_routing(results), style='dim')]
  if results.get('groups'):
    parts += [Text(), _groups(results)]
  parts += [Text(f'warning: {line}', style='yellow') for line in results.get('warnings', [])]
  return Group(Text(), *parts)


def macs_text(macs: float) -> str:
  """Returns multiply-adds with their unit: `333.62 M`, `1.81 G`."""
  return f'{macs / 1e9:.2f} G' if macs >= 1e9 else f'{macs / 1e6:.2f} M'


def accuracy(results: dict[str, Any], title: str | None = None) -> Table:
  """Returns the table of multiply-adds and accuracy of each resolution, the ensemble and the routers.

  Args:
    results: Reads `resolutions`, `ensemble` where there are several, and `routers` where there are any.
    title: Stands above; None: nothing does.
  """
  table = _table(title)
  for column in ('resolution', 'multiply-adds', 'top-1 %', 'top-5 %'):
    table.add_column(column, justify='right')
  resolutions = results['resolutions']
  for name, entry in resolutions.items():
    table.add_row(name, macs_text(entry['macs']), _percent(entry['top1']), _percent(entry['top5']))
  others = dict(results.get('routers', {}))
  if len(resolutions) > 1:
    macs = sum(entry['macs'] for entry in resolutions.values())
    others = {'ensemble': results['ensemble'] | {'macs': macs}} | others
  for number, (name, entry) in enumerate(others.items()):
    if number == 0:
      table.add_section()
    top5 = _percent(entry['top5']) if 'top5' in entry else ''
    deviation = f' ± {_percent(entry["top1_sd"])}' if 'top1_sd' in entry else ''
    table.add_row(Text(name), macs_text(entry['macs']), _percent(entry['top1']) + deviation, top5)
  return table


def _shares(results: dict[str, Any]) -> Table:
  """What each router sent to each resolution; what the predictor did with the images of each need and class."""
  rows = {name: router['share'] for name, router in results['routers'].items() if 'share' in router}
  parts = [rows, {f'needs {name}': share for name, share in results.get('needed', {}).get('share', {}).items()}]
  classes = results.get('share_by_class', {})
  if len(classes) <= _MOST_CLASSES:
    parts.append({f'class {name}': share for name, share in classes.items()})
  table = _table('images sent to each resolution, %')
  table.add_column('by', justify='right')
  for name in results['resolutions']:
    table.add_column(name, justify='right')
  for part in parts:
    table.add_section()
    for name, share in part.items():
      table.add_row(Text(printable(name)), *(_percent(share[resolution]) for resolution in results['resolutions']))
  return table


def _routing(results: dict[str, Any]) -> str:
  """What the predictor costs, and how often it finds what is known to be needed."""
  lines = []
  if predictor := results.get('predictor'):
    total = results['routers']['predictor']['macs']
    lines.append(
      f'multiply-adds per image: {macs_text(predictor["mean_macs_without"])}, '
      f'{macs_text(total)} with the predictor; budget {macs_text(predictor["budget"])}'
    )
  if needed := results.get('needed'):
    lines.append(
      f'sent to the resolution that is needed: {_percent(needed["agreement"])} %, '
      f'or to one that is right: {_percent(needed["agreement_or_right"])} %'
    )
  return '\n'.join(lines)


def _groups(results: dict[str, Any]) -> Table:
  """Top-1 of each group of images at each resolution."""
  table = _table('top-1 % by group of images')
  table.add_column('resolution', justify='right')
  for group in results['groups']:
    table.add_column(Text(printable(group)), justify='right')
  for name in results['resolutions']:
    table.add_row(name, *(_percent(top1[name]) for top1 in results['groups'].values()))
  return table


def _table(title: str | None) -> Table:
  """An empty table in the house's style."""
  return Table(title=title, title_justify='left', title_style='bold', box=box.SIMPLE_HEAD)


def _caption(results: dict[str, Any]) -> str:
  """Parameters, time, images; how evaluation made the lower resolutions; what it could not read."""
  images = sorted({entry['images'] for entry in results['resolutions'].values()})
  seconds = round(results['train_seconds'])
  minutes, hours = seconds // 60 % 60, seconds // 3600
  took = f'{hours} h {minutes} min' if hours else f'{minutes} min {seconds % 60} s'
  lines = [
    f'{results["params"]:,} parameters; trained in {took}',
    f'evaluated on {" to ".join(f"{count:,}" for count in images)} images',
  ]
  if len(results['resolutions']) > 1:
    pyramid = results['config']['eval']['pyramid']
    lines[-1] += f', {_LOWER.get(pyramid, pyramid)}'
  if size := results.get('size'):
    lines.append(
      f'{size["quantise"]} bits: {size["packed"] / 1e6:,.2f} MB packed, {size["plain"] / 1e6:,.2f} MB in float32; run '
      'in float32, so size is what it saves'
    )
  if unreadable := results.get('unreadable'):
    lines.append(f'{unreadable:,} unreadable images were not scored')
  return '\n'.join(lines)


def _percent(fraction: float) -> str:
  return f'{100 * fraction:.1f}'
