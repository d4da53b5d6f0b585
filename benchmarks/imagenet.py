"""What it would take to put the papers' claims to the test on ImageNet: multiply-adds, hours, disk, by arm and machine.

  python benchmarks/imagenet.py [--seeds=3] [--price=v5e-8=9.6 --price=8xH100=20] [--page=docs/evidence.md] [--check]

Nothing is run. Work is counted: three times the multiply-adds of the forward passes for every training image, once for
every image that is scored. A run takes what its chips take, or its hosts, which load the images, whichever is longer.
At the fast end the chips reach the share of their peak that the step of the same network reached on one H200
(docs/measured/gpu.json, 256 images in bfloat16), and a vCPU loads what a core did in docs/data.md; at the slow end
they reach half of that share (32 images on a chip were not measured, nor any TPU), and a vCPU loads what one did
beside that H200. A price is of the machine for an hour, in what you name it; there is none by default.
"""

import argparse
import json
import pathlib
import re
import sys
import textwrap
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from resjax import drnet, models
from resjax.evidence import definition, jobs
from resjax.planning.topology import CHIPS

ROOT = pathlib.Path(__file__).parents[1]
BLOCK = re.compile(r'(<!-- budget -->\n).*?(<!-- end of budget -->)', re.DOTALL)
TRAIN, VAL = 1_281_167, 50_000  # images of ImageNet
H200 = 989e12  # FLOP/s of its peak in bfloat16, dense, as NVIDIA says; the H100 SXM has the same
SLOW = 0.5  # of the measured share of the peak

LOADS = 415.0  # images/s of a core, `benchmarks/loader.py` in docs/data.md, the pyramid on the device

# Chips, the peak of one, FLOP/s in bfloat16 (v5e: Google's figure; H100 SXM: NVIDIA's), and vCPUs (v5e-8: Google's
# figure; p5.48xlarge: Amazon's).
MACHINES = {'v5e-8': (8, 2 * CHIPS['v5e'].peak, 224), '8xH100': (8, H200, 192)}

MAIN = ('RS-Net', 'parallel', *(f'I-Net {size}' for size in (224, 192, 160, 128, 96)), 'RS-Net vanilla',
        'RS-Net shared BN')  # fmt: skip
# The part of the measurement that a network's speed is from; the study; its arms; fields for all.
STUDIES = (
  ('train resnet18', 'configs/studies/main.py:imagenet', MAIN),
  ('train resnet50', 'drnet_r50', ('drnet_r50',)),
)


class Row(NamedTuple):
  """An arm: one run of it."""

  part: str
  arm: str
  epochs: float
  macs: float  # forward, of one image at all sizes
  work: float  # multiply-adds of the run
  params: int


def rows_of(part: str, study: str, arms: tuple[str, ...]) -> list[Row]:
  """Returns a row for each arm of a study."""
  found = definition.read(f'{ROOT / study}' if '/' in study else study)
  return [_row(part, job.arm, job.config) for job in jobs.of_study(found, [0], arms)]


def _row(part: str, arm: str, config: ConfigDict) -> Row:
  """What a run of a config is; with a predictor, the epochs of the network alone come first."""
  each, epochs = jobs.work(config) / config.epochs, config.epochs
  own, scored = 0.0, int(config.eval.every_epochs > 0) * epochs + 1
  if config.method == 'drnet':
    own = float(drnet.predictor_of(config).macs)
    epochs += config.drnet.pretrain.epochs * (config.drnet.start == 'pretrain')
    scored += config.drnet.pretrain.epochs
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  model = models.from_config(config)
  shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)['params']
  work = 3 * TRAIN * (each * epochs + own * config.epochs) + VAL * scored * (each + own)
  return Row(part, arm, epochs, each + own, work, sum(leaf.size for leaf in jax.tree.leaves(shapes)))


def share_of(measured: dict[str, Any], part: str) -> float:
  """Returns the share of the H200's peak that a network's training step reached."""
  (step,) = (f for f in measured['parts'][part]['figures'] if f['what'] == 'step' and f['way'] == 'joint')
  return step['flops']['median'] / H200


def loaded(measured: dict[str, Any]) -> float:
  """Returns how many images a second a processor loaded beside the H200."""
  (loader,) = (f for f in measured['parts']['train resnet18']['figures'] if f['what'] == 'loader')
  return loader['host_images_per_s'] / measured['machine']['cpus']


def hours(row: Row, machine: str, share: float, slowly: float) -> tuple[float, float]:
  """Returns the hours of a run on all chips of a machine, at the fast end and at the slow one.

  Args:
    row: Of the run.
    machine: One of `MACHINES`.
    share: Of a chip's peak that is reached.
    slowly: Images that a vCPU loads in a second, at the slow end.
  """
  chips, peak, cpus = MACHINES[machine]
  computed, images = 2 * row.work / (chips * peak * share), row.epochs * TRAIN
  fast, slow = max(computed, images / cpus / LOADS), max(computed / SLOW, images / cpus / slowly)
  return fast / 3600, slow / 3600


def written(seeds: int, prices: dict[str, float], measured: dict[str, Any]) -> str:
  """Returns the tables, commands and assumptions, as Markdown."""
  rows = [row for study in STUDIES for row in rows_of(*study)]
  shares, slowly = {part: share_of(measured, part) for part, *_ in STUDIES}, loaded(measured)
  head = ['run', 'epochs', 'multiply-adds forward', 'of the run', *(f'hours on {name}' for name in MACHINES)]
  lines = ['| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|']
  for row in rows:
    spans = ['{:.1f} to {:.1f}'.format(*hours(row, name, shares[row.part], slowly)) for name in MACHINES]
    cells = [row.arm, f'{row.epochs:g}', f'{row.macs / 1e9:.2f} G', f'{row.work / 1e18:.2f} E', *spans]
    lines.append('| ' + ' | '.join(cells) + ' |')
  for part, study, _ in STUDIES:
    ours = [row for row in rows if row.part == part]
    spans = []
    for name in MACHINES:
      ends = [seeds * sum(hours(row, name, shares[part], slowly)[end] for row in ours) for end in (0, 1)]
      cost = ' ({:,.0f} to {:,.0f})'.format(*(end * prices[name] for end in ends)) if name in prices else ''
      spans.append('**{:,.0f} to {:,.0f}**'.format(*ends) + cost)
    name = f'**{study.partition("/studies/")[2] or study}, {seeds} seeds**'
    lines.append(f'| {name} | | | {seeds * sum(row.work for row in ours) / 1e18:.1f} E | ' + ' | '.join(spans) + ' |')
  kept = seeds * sum(3 * 16 * row.params for row in rows)
  said = ', '.join(f'{100 * share:.0f} % ({part.partition(" ")[2]})' for part, share in shares.items())
  commands = [_command(study, arms, seeds) for _, study, arms in STUDIES]
  assumed = (
    f'Assumed, fast to slow: the chips reach {said} of their peak, as the same steps do on an H200 with 256 images, or '
    f'half of it; a vCPU loads {LOADS:.0f} images/s, or {slowly:.0f}. A machine does one run at a time on its eight '
    f'chips, 32 images on each. Disk: ImageNet, about 150 GB, and {kept / 1e9:.0f} GB of checkpoints (three of each '
    'run, at most 16 bytes a parameter).'
  )
  return '\n'.join(['```', *commands, '```', '', *lines, '', *textwrap.wrap(assumed, 120)])


def _command(study: str, arms: tuple[str, ...], seeds: int) -> str:
  """What to type."""
  some = f" --arms='{','.join(arms)}'" if len(arms) > 1 else ''
  return (
    f'resjax study {study}{some} \\\n  --seeds={seeds} --config.data.dir=DIR --config.model.dtype=bfloat16 '
    '--config.data.pyramid=device \\\n  --workdir=runs/imagenet --records=docs/evidence/imagenet'
  )


def main() -> None:
  """Prints, and writes the page or checks it."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--seeds', type=int, default=3)
  parser.add_argument('--price', action='append', default=[], metavar='MACHINE=PRICE')
  parser.add_argument('--page', type=pathlib.Path, help='what stands there between the marks of the budget is replaced')
  parser.add_argument('--check', action='store_true', help='the page is only compared')
  options = parser.parse_args()
  prices = {name: float(price) for name, _, price in (given.partition('=') for given in options.price)}
  if unknown := prices.keys() - MACHINES.keys():
    sys.exit(f'error: --price: got {", ".join(unknown)}, expected one of {", ".join(MACHINES)}')
  text = written(options.seeds, prices, json.loads((ROOT / 'docs' / 'measured' / 'gpu.json').read_text()))
  print(text)
  if options.page:
    before = options.page.read_text(encoding='utf-8')
    after = BLOCK.sub(lambda found: f'{found[1]}{text}\n{found[2]}', before)
    if options.check and after != before:
      sys.exit(f'error: {options.page} is not what is counted: python benchmarks/imagenet.py --page={options.page}')
    if not options.check:
      options.page.write_text(after, encoding='utf-8')


if __name__ == '__main__':
  main()
