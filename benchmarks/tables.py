"""Tables of docs/, made from the figures in docs/measured/, which the benchmarks write by `--json`.

  python benchmarks/tables.py           # writes them
  python benchmarks/tables.py --check   # says whether they are there as they should be

A table stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`, and is made from NAME.json and all NAME-*.json;
without such a file it says that nothing was measured.
"""

import argparse
import json
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator

import cpu_tables
from figures import Figures, spread, table

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = {
  ROOT / 'docs' / 'performance.md': ('gpu', 'startup', 'routing', 'runtimes', 'train_step', 'conv_layers'),
  ROOT / 'docs' / 'export.md': ('engine_runtimes', 'engine_waits', 'engine_one', 'int8'),
}
MEASURED = ROOT / 'docs' / 'measured'


def of(figures: Figures, what: str) -> Iterator[tuple[str, Figures, Figures]]:
  """Yields the part's name, its options and the figure, of all figures of a kind that were found."""
  for name, part in figures['parts'].items():
    for figure in part.get('figures', ()):
      if figure['what'] == what and 'error' not in figure:
        yield name, part['options'], figure


def gpu(figures: Figures) -> list[str]:
  """Returns the lines of all that benchmarks/gpu.py found."""
  machine = figures['machine']
  versions = ', '.join(f'{name} {version}' for name, version in machine['versions'].items())
  flags = f' XLA_FLAGS: `{machine["flags"]}`.' if machine['flags'] else ''
  lines = [
    f'{machine["gpu"]} (name, driver, memory); {machine["cpus"]} processors, {machine["cpu"]}; {versions}.{flags}'
  ]
  most = {figure['kind']: figure['flops'] for _, _, figure in of(figures, 'matmul')}
  if most:
    sizes = {figure['size'] for _, _, figure in of(figures, 'matmul')}
    products = ', '.join(f'{kind} {spread(flops, 1e-12)}' for kind, flops in most.items())
    lines += ['', f'Matrix products of {max(sizes):,} x {max(sizes):,}, TFLOP/s: {products}.']
    lines += [f'A copy: {spread(f["bytes"], 1e-12, 2)} TB/s, read and written.' for _, _, f in of(figures, 'copy')]
  for part in (steps, host, routed, drnet, layers, kernels):
    lines += part(figures)
  missing = []
  for name, part in figures['parts'].items():
    if why := part.get('error') or part.get('skipped'):
      missing.append(f'{name}{", after its rows" if part.get("figures") else ""} ({why})')
    missing += [f'{name}, {f["batch"]} images ({f["error"]})' for f in part.get('figures', ()) if 'error' in f]
  return lines + (['', f'Not measured: {"; ".join(missing)}.'] if missing else [])


def steps(figures: Figures) -> list[str]:
  """The training step: resjax's and PyTorch's."""
  most = next((f['flops']['median'] for _, _, f in of(figures, 'matmul') if f['kind'] == 'bfloat16'), None)
  ours = {(o['model'], f['batch']): f for _, o, f in of(figures, 'step') if f['way'] == 'joint'}
  rows = []
  for name, options, figure in of(figures, 'step'):
    torch = name.startswith('torch')
    joint = ours.get((options['model'], figure['batch']))
    rate = figure['images_per_s']['median']
    flops = joint and joint['flops']['median'] * rate / joint['images_per_s']['median']
    over = joint and joint['ms']['median'] / figure['ms']['median']
    way = f'PyTorch, {figure["way"]}' if torch else figure['way']
    peak = f'{figure["peak_bytes"] / 2**30:,.1f}' if figure['peak_bytes'] else '–'
    cells = [options['model'], str(figure['batch']), way, spread(figure['ms'], 1, 1), f'{rate:,.0f}']
    cells += [f'{over:.2f}' if over else '–', f'{flops / most:.0%}' if flops and most else '–']
    rows.append(([options['model'], figure['batch'], torch], [*cells, f'{figure["start_s"]:,.0f}', peak]))
  head = 'network | images | step | ms | images/s | joint over it | of the matrix products | start, s | peak, GiB'
  return table(head, [cells for _, cells in sorted(rows, key=lambda row: row[0])])


def host(figures: Figures) -> list[str]:
  """The way of the batches from the host."""
  rows = []
  for _, options, found in of(figures, 'loader'):
    rows.append([options['model'], str(found['batch']), found['source'], str(found['threads'])])
    rows[-1] += [f'{found[name]:,.0f}' for name in ('host_images_per_s', 'images_per_s')]
    rows[-1].append(f'{found["idle_share"]:.1%}')
  return table('network | images | source | threads | host alone, images/s | training, images/s | device idle', rows)


def routed(figures: Figures) -> list[str]:
  """What routing saves."""
  rows = []
  for _, options, figure in of(figures, 'routed'):
    mix = figure['routed'][0]
    low, high = mix['real_over_theoretical_quartiles']
    largest = next(f for f in figure['static'] if f['resolution'] == options['resolutions'][0])
    row = [options['model'], str(figure['batch'])]
    row += [f'{found["images_per_second"]:,.0f}' for found in (largest, mix)]
    row += [f'{mix["speedup"]:.2f} of {mix["theoretical_speedup"]:.2f}']
    rows.append([*row, f'{mix["real_over_theoretical"]:.2f} [{low:.2f}, {high:.2f}]'])
  return table('network | images | images/s at the largest | of the mix | speed-up | real / theory', rows)


def drnet(figures: Figures) -> list[str]:
  """DRNet's first losses, and its quickstart."""
  lines = [
    f"DRNet's first {len(f['here'])} losses differ from the CPU's by {f['largest_difference']:.1e} at most "
    f'(precision of products: {f["precision"]}).'
    for _, _, f in of(figures, 'first losses')
  ]
  for _, _, f in of(figures, 'quickstart'):
    top1 = ', '.join(f'{100 * value:.1f} % at {size} px' for size, value in f['top1'].items())
    lines.append(f'`drnet_quickstart` there: {top1}; {f["train_s"]:.0f} s of training, {f["seconds"]:.0f} s in all.')
  return ['', *lines] if lines else []


def layers(figures: Figures) -> list[str]:
  """Layers as XLA has them, and as on a CPU."""
  found: dict[tuple[str, int], dict[bool, Figures]] = {}
  for what in ('max_pool 3x3 / 2', 'depthwise 3x3'):
    for _, _, figure in of(figures, what):
      found.setdefault((what, figure['batch']), {})[figure['own']] = figure['ms']
  rows = [
    [what, str(batch), spread(ms[False], 1, 3), spread(ms[True], 1, 3)]
    for (what, batch), ms in found.items()
    if len(ms) == 2
  ]
  return table("layer, both ways, bfloat16 | images | XLA's own, ms | as on a CPU, ms", rows)


def kernels(figures: Figures) -> list[str]:
  """What takes the time of a step."""
  rows = []
  for _, options, figure in of(figures, 'profile'):
    spent = dict(figure['ms'])
    whole = spent.pop('all')
    if whole:
      dearest = ', '.join(f'{name[:48]} {ms / whole:.0%}' for name, ms in list(spent.items())[:8])
      rows.append([options['model'], str(figure['batch']), f'{whole:,.1f}', dearest])
  return table('network | images | kernels, ms | the dearest', rows)


def startup(figures: Figures) -> list[str]:
  """Returns the lines of what benchmarks/startup.py found."""
  versions = ', '.join(f'{name} {version}' for name, version in figures['versions'].items())
  before, rows = any('before' in row['seconds'] for row in figures['rows']), []
  for row in figures['rows']:
    cells = [row['way']]
    for side in ('now', 'before') if before else ('now',):
      cells += [spread(row[kind][side], digits=1) if side in row[kind] else '–' for kind in ('seconds', 'cpu')]
    if before:
      cells.append(spread(row['cpu_ratio'], digits=2) if row['cpu_ratio'] else '–')
    rows.append([*cells, str(row['rounds'])])
  head = 'start | s | CPU s' + ' | before, s | before, CPU s | CPU, now over before' * before + ' | rounds'
  return [f'{figures["machine"]}; {versions}; `predict` is {figures["model"]}.', *table(head, rows)]


TABLES: dict[str, Callable[[list[Figures]], list[str]]] = {
  'gpu': lambda runs: gpu(*runs),
  'startup': lambda runs: startup(*runs),
  'routing': cpu_tables.routing,
  'runtimes': cpu_tables.runtimes,
  'train_step': cpu_tables.training,
  'conv_layers': cpu_tables.conv_layers,
  'engine_runtimes': cpu_tables.engine,
  'engine_waits': cpu_tables.waits,
  'engine_one': cpu_tables.one,
  'int8': cpu_tables.int8,
}


def filled(text: str, names: Iterable[str], measured: pathlib.Path) -> str:
  """Returns a document's text with its tables as the files say.

  Args:
    text: As it is.
    names: Of its tables.
    measured: The files' folder.

  Raises:
    ValueError: A table's markers are not there once each, in their order.
  """
  for name in names:
    files = sorted([*measured.glob(f'{name}.json'), *measured.glob(f'{name}-*.json')])
    runs = [json.loads(file.read_text()) for file in files]
    lines = TABLES[name](runs) if runs else ['Not measured so far.']
    between = f'<!-- {name}: begin -->', f'<!-- {name}: end -->'
    if [text.count(mark) for mark in between] != [1, 1] or text.index(between[0]) > text.index(between[1]):
      raise ValueError(f'expected {between[0]} and {between[1]} once each, in this order')
    body = '\n'.join(lines)
    pattern = f'({re.escape(between[0])}\n).*?({re.escape(between[1])})'
    text = re.sub(pattern, lambda found, body=body: f'{found[1]}{body}\n{found[2]}', text, flags=re.DOTALL)
  return text


def main() -> None:
  """Writes the tables, or checks them."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--check', action='store_true', help='write nothing; exit code 1 where a table is another')
  options = parser.parse_args()
  for document, names in DOCUMENTS.items():
    before = document.read_text()
    after = filled(before, names, MEASURED)
    if options.check and after != before:
      sys.exit(f'error: {document}: not what python benchmarks/tables.py makes of {MEASURED}')
    if not options.check:
      document.write_text(after)


if __name__ == '__main__':
  main()
