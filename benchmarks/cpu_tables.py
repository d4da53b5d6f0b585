"""Tables of what the benchmarks found on a CPU; see tables.py. Each is made of the figures of all runs of its kind."""

from figures import Figures, heading, spread, table


def left_out(run: Figures) -> list[str]:
  """Returns the lines on what a run could not measure."""
  why = '; '.join(f'{name} ({reason})' for name, reason in run.get('skipped', {}).items())
  return ['', f'Not measured: {why}.'] if why else []


def training(runs: list[Figures]) -> list[str]:
  """Returns the lines of what benchmarks/train_step.py found."""
  lines = []
  for run in runs:
    rows = []
    for name, way in run['ways'].items():
      ratios = [spread(way[key], digits=2) if key in way else '1' for key in ('ratio', 'cpu_ratio')]
      starts = ', '.join(f'{1e3 * seconds:,.0f}' for seconds in way['of_starts'])
      cells = [name, spread(way['seconds'], 1e3), starts, *ratios]
      rows.append([*cells, f'{way["start_s"]:,.1f}', f'{way["mib"]:,.0f}'])
    head = 'step | ms | of each start | resjax over it [quartiles] | CPU | start, s | MiB'
    lines += [*heading(run), *table(head, rows)]
    lines += left_out(run)
  return lines[1:]


def conv_layers(runs: list[Figures]) -> list[str]:
  """Returns the lines of what benchmarks/conv_layers.py found."""
  lines, parts = [], ('forward', 'input', 'kernel')
  for run in runs:
    rows, spent = [], {(way, part): 0.0 for way in ('XLA', 'PyTorch') for part in parts}
    for row in run['rows']:
      side, inputs, outputs, kernel, stride = row['layer']
      for way, found in row['ways'].items():
        cells = [f'{kernel}x{kernel}/{stride}, {inputs} to {outputs} at {side} px', way]
        for part in parts:
          seconds = found[part]['median'] if part in found else 0
          if (way, part) in spent:
            spent[way, part] += row['times'] * seconds
          cells += [f'{1e3 * seconds:.1f}', spread(found[part]['over_pytorch'], 1, 2)] if seconds else ['–', '–']
        best = min(each['median'] for each in found.values())
        rows.append(
          [*cells, f'{1e-9 * row["macs"] / found["forward"]["median"]:.0f}', f'{1e-9 * row["macs"] / best:.0f}']
        )
    for way in ('XLA', 'PyTorch'):
      cells = [(f'{1e3 * spent[way, part]:.1f}', f'{spent[way, part] / spent["PyTorch", part]:.2f}') for part in parts]
      rows.append(['ResNet-18 without shortcuts', way, *(cell for pair in cells for cell in pair), '', ''])
    head = 'convolution | by | forward, ms | over PyTorch | input, ms | over PyTorch | kernel, ms | over PyTorch'
    lines += [*heading(run), *table(f'{head} | GMAC/s forward | at best', rows)]
  return lines[1:]


def runtimes(runs: list[Figures]) -> list[str]:
  """Returns the lines of what benchmarks/runtimes.py found."""
  lines = []
  for run in runs:
    rows = []
    for row in run['rows']:
      cells = [row['model'], str(row['resolution']), str(row['batch']), row['runtime'], f'{row["ms"]:.2f}']
      ratios = [spread(found, 1, 2) if found else '–' for found in (row, row.get('over_onnx'))]
      rows.append(cells + ratios)
    head = 'network | input | batch | runtime | ms per image | over PyTorch [quartiles] | over ONNX Runtime'
    lines += [*heading(run), *table(head, rows), *left_out(run)]
  return lines[1:]


def routing(runs: list[Figures]) -> list[str]:
  """Returns the lines of what `resjax benchmark` found."""
  lines = []
  for run in runs:
    machine, versions = run['machine'], run['versions']
    software = ', '.join(f'{name} {versions[name]}' for name in ('python', 'jax', 'jaxlib', 'flax') if name in versions)
    lines += ['', f'{"; ".join(run["notes"])}. {machine["runtime"]} on {machine["processors"]} processors of ']
    lines[-1] += f'{machine["machine"]}, {run["dtype"]}, {run["rounds"]} rounds; {software}.'
    rows = []
    for mix in run['routed']:
      largest = next(
        entry
        for entry in run['static']
        if (entry['scope'], entry['batch'], entry['resolution']) == (mix['scope'], mix['batch'], run['resolutions'][0])
      )
      low, high = mix['real_over_theoretical_quartiles']
      row = [mix['scope'], str(mix['batch']), *(f'{each["images_per_second"]:,.1f}' for each in (largest, mix))]
      row += [f'{each["p50_ms"]:,.1f}' for each in (largest, mix)]
      row += [f'{mix["speedup"]:.2f} of {mix["theoretical_speedup"]:.2f}']
      row += [f'{mix["real_over_theoretical"]:.2f} [{low:.2f}, {high:.2f}]']
      rows.append([*row, f'{mix["cpu_over_theoretical"]:.2f}' if 'cpu_over_theoretical' in mix else '–'])
    head = 'scope | batch | images/s at the largest | of the mix | p50 ms at the largest | of the mix | speed-up'
    lines += table(f'{head} | real / theory | by CPU seconds', rows)
  return lines[1:]


def engine(runs: list[Figures]) -> list[str]:
  """Returns the lines of what benchmarks/engine_runtimes.py found."""
  lines = []
  for run in runs:
    rows = []
    for row in run['rows']:
      cells = [row['model'], str(row['resolution']), str(row['batch']), f'{row["ms"]["xla"]:.1f}']
      for way in ('onnx', 'once'):
        cells += [f'{row["ms"][way]:.1f}', spread(row['ratio'][way], digits=2)]
      rows.append(cells)
    head = 'model | input | batch | XLA, ms per image | ONNX Runtime | ratio [quartiles] | once | ratio [quartiles]'
    lines += [*heading(run), *table(head, rows)]
  return lines[1:]


def waits(runs: list[Figures]) -> list[str]:
  """Returns the lines of what benchmarks/engine_runtimes.py --waits found."""
  lines = []
  for run in runs:
    rows = [[r['model'], r['what'], spread(r['sleep'], 1, 1), spread(r['spin'], 1, 1)] for r in run['rows']]
    lines += [*heading(run), *table('model | what | threads sleep, ms [quartiles] | spin', rows)]
  return lines[1:]


def one(runs: list[Figures]) -> list[str]:
  """Returns the lines of what benchmarks/engine_runtimes.py --one found."""
  lines = []
  for run in runs:
    rows = []
    for row in run['rows']:
      rows.append([row['model'], str(row['resolution']), *(f'{row[key]:.3f}' for key in ('alone', 'predict'))])
      rows[-1] += [spread(row['ratio'], 1, 3), f'{1e3 * (row["predict"] - row["alone"]):.0f}']
    head = 'model | input | ONNX Runtime alone, ms | predict_crops, ms | ratio [quartiles] | more, us'
    lines += [*heading(run), *table(head, rows)]
  return lines[1:]


def int8(runs: list[Figures]) -> list[str]:
  """Returns the lines of what benchmarks/int8.py found."""
  lines = []
  for run in runs:
    batches = list(next(iter(run['rows']))['gain'])
    rows = []
    for row in run['rows']:
      cells = [str(row['resolution']), row['way'], f'{row["right"]} of {row["of"]}', f'{row["agree"]}']
      cells += [f'{row["mb"]:.1f}']
      for batch in batches:
        cells += [f'{row["ms"][batch]:.2f}', *(spread(row[key][batch], 1, 2) for key in ('gain', 'cpu_gain'))]
      rows.append(cells)
    head = 'input | what | right | as float32 says | MB'
    for batch in batches:
      head += f' | {batch}: ms an image | float32 over it [quartiles] | CPU'
    lines += [*heading(run), *table(head, rows)]
  return lines[1:]
