"""The picture of a run: accuracy against multiply-adds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from resjax.report import results as results_lib
from resjax.routing import ROUTERS

if TYPE_CHECKING:  # it takes half a second, and a run that begins draws nothing
  from matplotlib import axes as mpl_axes
  from matplotlib import figure as mpl_figure

_BLUE, _RED, _GREY = '#1f5fa8', '#c8443c', '#5c6570'


def accuracy_against_macs(results: dict[str, Any], path: str | os.PathLike[str]) -> None:
  """Saves the picture that `draw` returns.

  Args:
    results: As `results.read` returns them.
    path: File to write; its ending chooses the format (`.png`, `.pdf`, `.svg`).
  """
  draw(results).savefig(path)


def draw(results: dict[str, Any]) -> mpl_figure.Figure:
  """Returns the picture of top-1 accuracy against multiply-adds.

  One labelled point per resolution, joined by a line; the ensemble and each router, where there
  are any, by markers of their own; the cascade at other thresholds as a dotted line. The axis of
  multiply-adds is logarithmic where they differ by more than ten times. Matplotlib's global state
  is left alone.
  """
  from matplotlib import figure as mpl_figure
  from matplotlib import ticker

  figure = mpl_figure.Figure(figsize=(7, 4.5), dpi=150, layout='constrained')
  axes = figure.add_subplot()
  macs = _draw_resolutions(axes, results)
  macs += _draw_others(axes, results)
  axes.set_title(results_lib.title(results), loc='left', fontweight='bold', pad=12)
  axes.set_xlabel('multiply-adds per image')
  axes.set_ylabel('top-1 accuracy (%)')
  axes.margins(x=0.12, y=0.16)
  if max(macs) > 10 * min(macs):
    axes.set_xscale('log')
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
  axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=' '))
  axes.grid(color='#e3e6ea', linewidth=0.8)
  axes.set_axisbelow(True)
  axes.spines[['top', 'right']].set_visible(False)
  axes.spines[['left', 'bottom']].set_color('#9aa3ad')
  axes.tick_params(color='#9aa3ad', labelcolor=_GREY)
  return figure


def _draw_resolutions(axes: mpl_axes.Axes, results: dict[str, Any]) -> list[float]:
  """The line of resolutions; returns the multiply-adds drawn."""
  resolutions = results['resolutions']
  macs = [entry['macs'] for entry in resolutions.values()]
  top1 = [100 * entry['top1'] for entry in resolutions.values()]
  axes.plot(macs, top1, color=_BLUE, linewidth=2)
  axes.plot(macs, top1, 'o', color=_BLUE, markersize=7, zorder=4)
  for name, x, y in zip(resolutions, macs, top1):
    _label(axes, f'{name} px', x, y, _BLUE, (8, -17))
  return macs


def _draw_others(axes: mpl_axes.Axes, results: dict[str, Any]) -> list[float]:
  """The ensemble, the routers and the cascade's curve; returns the multiply-adds drawn."""
  resolutions = results['resolutions']
  macs = []
  if len(resolutions) > 1:
    macs.append(sum(entry['macs'] for entry in resolutions.values()))
    top1 = 100 * results['ensemble']['top1']
    axes.plot(macs, [top1], 'D', color=_RED, markersize=8, zorder=4)
    _label(axes, 'ensemble', macs[0], top1, _RED, (0, 9))
  routers = results.get('routers', {})
  if curve := results.get('cascade_curve'):
    axes.plot([x for x, _ in curve], [100 * y for _, y in curve], ':', color=_GREY, linewidth=1, zorder=1)
  for name, entry in routers.items():
    color, marker = ROUTERS[name].style if name in ROUTERS else (_GREY, 'H')
    axes.plot(entry['macs'], 100 * entry['top1'], marker, color=color, markersize=8, zorder=4, label=name)
    macs.append(entry['macs'])
  if routers:
    axes.legend(title='routed', frameon=False, labelcolor=_GREY)
  return macs


def _label(axes, text, x, y, color, offset) -> None:
  """A text beside its point, `offset` points away, with a white edge where it crosses a line."""
  from matplotlib import patheffects

  axes.annotate(
    text,
    (x, y),
    xytext=offset,
    textcoords='offset points',
    ha='center',
    color=color,
    fontsize=9,
    zorder=3,
    path_effects=[patheffects.withStroke(linewidth=3, foreground='white')],
  )
