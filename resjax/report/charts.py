"""The charts of the result page, as SVG that stands inside HTML and takes the page's colour for its text and lines."""

import io
import re
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import ticker

from resjax import moved
from resjax.routing import ROUTERS
from resjax.routing.fixed import Fixed
from resjax.routing.oracle import Oracle

_SETTING = ('#2e9e7a', 'D')  # the router of the page's own budget
INK = '#102030'  # stands for the page's own colour
_BLUES = ('#1b4f91', '#4c8fd6', '#a8cdf0', '#7fb8a4', '#e0c48a', '#d99873')


def accuracy(study: dict[str, Any], unit: str) -> Markup:
  """Returns top-1 against cost: a line for each router, the resolutions labelled.

  Args:
    study: As `resjax.measuring.study` returns it.
    unit: 'macs', or 'milliseconds' per image, with their quartiles.
  """
  timed = unit == 'milliseconds'
  lines = _by_milliseconds(study) if timed else _by_macs(study)
  figure, axes = framed(5.8, 4.1)
  for name, points in ((name, points) for name, points in lines.items() if points):
    kind = ROUTERS.get(name)
    color, marker = kind.style if kind else _SETTING
    label = f'{study["setting"]["router"]}, {study["setting"]["how"]}' if name == 'setting' else name
    line = kind.line if kind else '-'
    size = 5 if any('target' in point for point in study['curves'].get(name, ())) else 7
    xs, ys, *ends = zip(*points)
    axes.plot(xs, ys, line, color=color, linewidth=1.6, alpha=0.35 if timed else 1)
    axes.plot(xs, ys, marker, color=color, markersize=size, label=label)
    if timed:
      axes.hlines(ys, *ends, color=color, linewidth=1)
  for entry, (x, y, *_) in zip(study['resolutions'], lines['static']):
    axes.annotate(f'{entry["pixels"]} px', (x, y), (8, -13), textcoords='offset points', color=INK, fontsize=9)
  axes.set_ylabel('top-1 accuracy, %')
  axes.set_xlabel('milliseconds per image' if timed else 'multiply-adds per image')
  if not timed:
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=' '))
  axes.set_xlim(left=0)
  axes.legend(frameon=False, labelcolor=INK, fontsize=9, loc='lower right')
  return svg(figure, f'accuracy-{unit}', f'Top-1 accuracy against {axes.get_xlabel()}, a line for each router')


def shares(study: dict[str, Any]) -> Markup:
  """Returns where each router sends the images at each of its budgets: a panel for each router, bars that add up."""
  names = [name for name, points in study['curves'].items() if points and 'target' in points[0]]
  figure = mpl_figure.Figure(figsize=(10, 2.6), layout='constrained')
  panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
  largest = study['resolutions'][0]['macs']
  for axes, name in zip(panels, names):
    points = study['curves'][name]
    xs = [100 * point['target'] / largest for point in points]
    floor = [0.0] * len(points)
    for place, entry in reversed(list(enumerate(study['resolutions']))):
      heights = [100 * list(point['share'].values())[place] for point in points]
      axes.bar(xs, heights, 7, floor, color=_BLUES[place % len(_BLUES)], label=f'{entry["pixels"]} px')
      floor = [a + b for a, b in zip(floor, heights)]
    axes.set_title(name, fontsize=10, color=INK)
    axes.set(xlim=(0, 100), ylim=(0, 100))
    _plain(axes)
  panels[0].set_ylabel('% of the images')
  figure.supxlabel("budget, % of the largest resolution's multiply-adds", fontsize=10, color=INK)
  handles, labels = panels[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc='outside right center', frameon=False, labelcolor=INK, fontsize=9)
  return svg(figure, 'shares', 'Share of the images at each resolution, by router and budget')


def reliability(study: dict[str, Any]) -> Markup:
  """Returns, for each resolution, how often it is right in each bin of its confidence, and where the images are."""
  entries = study['resolutions']
  figure = mpl_figure.Figure(figsize=(10, 3), layout='constrained')
  panels = figure.subplots(1, len(entries), sharey=True, squeeze=False)[0]
  for place, (axes, entry) in enumerate(zip(panels, entries)):
    bins = [b for b in entry['reliability'] if b['images']]
    most = max(b['images'] for b in bins)
    width = bins[0]['high'] - bins[0]['low']
    middles = [(b['low'] + b['high']) / 2 for b in bins]
    axes.bar(middles, [0.25 * b['images'] / most for b in bins], width * 0.9, color=INK, alpha=0.18)
    axes.plot([0, 1], [0, 1], ':', color=INK, linewidth=1)
    color = _BLUES[place % len(_BLUES)] if place < 2 else Fixed.style[0]
    axes.plot([b['confidence'] for b in bins], [b['accuracy'] for b in bins], 'o-', color=color, markersize=4)
    axes.set_title(f'{entry["pixels"]} px, ECE {100 * entry["ece"]:.1f} %', fontsize=10, color=INK)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel='confidence')
    _plain(axes)
  panels[0].set_ylabel('share that is right')
  return svg(figure, 'reliability', 'Share of right answers against confidence, a panel for each resolution')


def _by_macs(study: dict[str, Any]) -> dict[str, list[tuple[float, ...]]]:
  """(multiply-adds, top-1 in %) of every router's budgets, and of the setting; the oracle's at what it may spend."""
  lines = {name: study['curves'][name] for name in ROUTERS if name in study['curves']}
  lines['setting'] = [study['setting']]
  spent = {name: 'target' if name == Oracle.name else 'macs' for name in lines}
  return {name: [(point[spent[name]], 100 * point['top1']) for point in lines[name]] for name in lines}


def _by_milliseconds(study: dict[str, Any]) -> dict[str, list[tuple[float, ...]]]:
  """(milliseconds, top-1 in %, and the quartiles of the milliseconds) of what was timed."""
  found: dict[str, list[tuple[float, ...]]] = {}
  for way in study['speed']['ways']:
    taken = way['milliseconds']
    found.setdefault(way['name'], []).append((taken['median'], 100 * way['top1'], taken['low'], taken['high']))
  return found


def framed(width: float, height: float) -> tuple[mpl_figure.Figure, mpl_axes.Axes]:
  """A figure of one panel."""
  figure = mpl_figure.Figure(figsize=(width, height), layout='constrained')
  axes = figure.add_subplot()
  _plain(axes)
  axes.margins(y=0.1)
  return figure, axes


def _plain(axes: mpl_axes.Axes) -> None:
  """A light grid and no frame."""
  axes.grid(color=INK, alpha=0.12, linewidth=0.8)
  axes.set_axisbelow(True)
  axes.spines[['top', 'right']].set_visible(False)
  axes.spines[['left', 'bottom']].set_color(INK)
  axes.tick_params(colors=INK, labelsize=9)
  axes.xaxis.label.set(color=INK, size=10)
  axes.yaxis.label.set(color=INK, size=10)


def svg(figure: mpl_figure.Figure, name: str, description: str) -> Markup:
  """The figure as an <svg> element: no size of its own, no addresses, text as text, ids that no other chart has."""
  out = io.StringIO()
  figure.patch.set_visible(False)
  for axes in figure.axes:
    axes.patch.set_visible(False)
  nothing = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
  with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': name, 'font.family': 'sans-serif'}):
    figure.savefig(out, format='svg', metadata=nothing)
  text = out.getvalue()
  box = next(iter(re.findall(r'viewBox="[^"]+"', text)))
  inside = text[text.index('>', text.index('<svg')) + 1 :]
  inside = re.sub(r'<g id="[^"]+"', '<g', inside).replace(INK, 'currentColor')
  inside = re.sub(r'font:[^;\"]*?([0-9.]+px)[^;\"]*', r'font-size: \1; font-family: inherit', inside)
  return Markup(f'<svg {box} role="img" aria-label="{escape(description)}">{inside}')


moved.tell(globals())
