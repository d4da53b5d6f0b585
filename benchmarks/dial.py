"""Does the budget dial meet its budgets, and what does each router make of them?

The dial is set on the run's calibration split; every router is asked for 10 budgets, evenly between the multiply-adds
of its cheapest and its dearest setting; what was reached is counted on the evaluation split, which the calibration has
never seen.

  python benchmarks/dial.py --workdir=runs/drnet_quickstart [--images=10000] [--json=FILE]

`off` is the reached mean cost over the budget, less one; `±` is one standard error of what chance alone makes of it, as
both splits are samples. On scaled_digits what is drawn are handwritings, some 300 in a split, which all its images
show; elsewhere images. `random` is the top-1 of a random mix set to the same budget on the same images, `oracle` that
of the best choice there is, which knows the answers; `of the way` is the router's share of the way from the one to the
other. Beyond the largest resolution's cost, where a cascade can go, the mix has nothing to buy: it stays at the
largest. Knobs are applied to what the network said of each image at every resolution; once for each router, all images
are run through the engine instead, and the differences are counted.
"""

import argparse
import json
import pathlib
import sys
from typing import Any

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from resjax import dial, report
from resjax.data import sources
from resjax.inference import Classifier, calibration
from resjax.inference.images import of_source
from resjax.measuring import curves, study

ALLOWED = 0.03  # of the budget
CHUNK = 256  # images between two turns of a knob that follows


def targets_of(router: dial.Router, reference: calibration.Table) -> np.ndarray:
  """Ten budgets between the ends of what a router can be set to, the ends left out."""
  return np.linspace(*calibration.reachable(router, reference), study.BUDGETS + 2)[1:-1]


def through_engine(classifier: Classifier, router: dial.Router, crops: np.ndarray, scored: Any, reference: Any) -> dict:
  """What one setting comes to when the engine runs it, beside what the columns say."""
  column = calibration.column(router, scored.table, reference)
  ran = classifier.network.run(crops, router, column, promote=False)
  places = router.choose(column)
  guess = np.take_along_axis(scored.table['guess'], places[:, None], 1)[:, 0]
  return {
    'elsewhere': int((ran.places != places).sum()),
    'other_class': int((ran.logits.argmax(1) != guess).sum()),
    'macs': float(ran.macs.mean()),
    'top1': float((ran.logits.argmax(1) == scored.labels).mean()),
  }


def off_by_chance(router: dial.Router, reference: Any, table: Any, groups: list[np.ndarray]) -> float:
  """One standard error of the difference between both splits' mean costs, where the groups are independent."""
  errors = []
  for columns, group in zip((reference, table), groups, strict=True):
    cost = router.charged[router.choose(calibration.column(router, columns, reference))]
    errors.append(np.linalg.norm(np.bincount(group, cost - cost.mean())) / len(cost))
  return float(np.hypot(*errors))


def followed(network: Any, name: str, reference: Any, scored: Any, target: float) -> dict[str, Any]:
  """What comes of letting the knob follow what was spent, chunk by chunk, as `resjax predict --follow` does."""
  follower = calibration.follower(network.router(name), reference, target)
  column = calibration.column(follower.router, scored.table, reference)
  places = []
  for start in range(0, len(column), CHUNK):
    places.append(follower.router.choose(column[start : start + CHUNK]))
    follower.spent(places[-1])
  right = scored.table['guess'] == scored.labels[:, None]
  return curves.point(np.concatenate(places), right, follower.router.charged)


def judge(network: Any, name: str, reference: Any, scored: Any, groups: list[np.ndarray]) -> list[dict[str, Any]]:
  """A router's budgets, each with what was reached and the random mix and the oracle beside it."""
  targets = targets_of(network.router(name), reference)
  points = curves.curves(network, reference, scored.table, scored.labels, targets)[name]
  right = scored.table['guess'] == scored.labels[:, None]
  costs, found = network.costs, []
  for point in points:
    target = point['target']
    afforded = max(min(target, max(costs)), min(costs))
    mix = calibration.dialled(network.router('random'), reference, afforded)
    chance = curves.point(mix.choose(calibration.column(mix, scored.table, reference)), right, mix.charged)['top1']
    best = curves.point(curves.oracle(right, costs, afforded), right, costs)['top1']
    share = (point['top1'] - chance) / (best - chance) if best > chance else None
    router = calibration.dialled(network.router(name), reference, target)
    scatter = off_by_chance(router, reference, scored.table, groups) / target
    beside = {'random': chance, 'oracle': best, 'recovered': share, 'off_by_chance': scatter}
    after = followed(network, name, reference, scored, target)
    after = {'off_followed': after['macs'] / target - 1, 'top1_followed': after['top1']}
    found.append(point | {'off': point['macs'] / target - 1} | beside | after)
  return found


def measure(workdir: str, images: int) -> dict[str, Any]:
  """All routers of a run."""
  classifier = Classifier.load(workdir)
  config, network = classifier.config, classifier.network
  if not config.eval.calibration_split:
    raise ValueError(f'{workdir}: no eval.calibration_split, expected one apart from the scored images')
  other = sources.create(config, config.eval.calibration_split)
  numbers = study.sample(len(other), images)
  if classifier.calibrate(of_source(other, numbers)) < len(numbers):
    raise ValueError(f'{workdir}: unreadable images in {config.eval.calibration_split}, expected none')
  source = sources.create(config, config.data.eval_split)
  scored, _ = study.score(classifier, source, study.sample(len(source), images))
  groups = [
    source.handwriting[rows] if hasattr(source, 'handwriting') else np.arange(len(rows))
    for source, rows in ((other, numbers), (source, scored.numbers))
  ]
  crops = study.cropped(classifier, source, scored.numbers)
  reference = classifier.calibrated
  found = {'calibration': len(reference['energy']), 'images': len(crops), 'routers': {}, 'engine': {}}
  for name in network.routers:
    found['routers'][name] = judge(network, name, reference, scored, groups)
    middle = targets_of(network.router(name), reference)[study.BUDGETS // 2]
    router = calibration.dialled(network.router(name), reference, middle)
    found['engine'][name] = through_engine(classifier, router, crops, scored, reference)
  right = scored.table['guess'] == scored.labels[:, None]
  found['static'] = [
    {'pixels': r, 'macs': cost, 'top1': float(right[:, place].mean())}
    for place, (r, cost) in enumerate(zip(classifier.resolutions, network.costs))
  ]
  identity = network.engine.runtime.identity
  machine = f'{identity["machine"]}, {identity["processors"]} processors'
  return found | {'machine': machine, 'versions': report.versions()}


def show(found: dict[str, Any]) -> None:
  """Prints a table for the fixed resolutions and one for the budgets."""
  print('| resolution | multiply-adds | top-1 % |\n|---|---|---|')
  for entry in found['static']:
    print(f'| {entry["pixels"]} | {entry["macs"] / 1e6:.2f} M | {100 * entry["top1"]:.1f} |')
  head = 'router | budget | reached | off % | ± % | top-1 % | random % | oracle % | of the way %'
  head += ' | following: off % | top-1 %'
  print(f'\n| {head} |')
  print('|---|---|---|---|---|---|---|---|---|---|---|')
  for name, points in found['routers'].items():
    for p in points:
      spread = '' if name == 'random' else f'{100 * p["off_by_chance"]:.1f}'  # the mix is dealt out evenly
      share = '' if p['recovered'] is None or name == 'random' else f'{100 * p["recovered"]:.0f}'
      accuracies = ' | '.join(f'{100 * p[key]:.1f}' for key in ('top1', 'random', 'oracle'))
      costs = f'{p["target"] / 1e6:.2f} M | {p["macs"] / 1e6:.2f} M | {100 * p["off"]:+.1f} | {spread}'
      after = f'{100 * p["off_followed"]:+.1f} | {100 * p["top1_followed"]:.1f}'
      print(f'| {name} | {costs} | {accuracies} | {share} | {after} |')
  print(f'\ncalibrated on {found["calibration"]:,} images, scored on {found["images"]:,} others; {found["machine"]}')
  for name, ran in found['engine'].items():
    elsewhere = f'{ran["elsewhere"]} images elsewhere, {ran["other_class"]} with another class'
    print(f'through the engine, {name}: {ran["macs"] / 1e6:.2f} M, top-1 {100 * ran["top1"]:.1f} %; {elsewhere}')
  for what, key in (('missed', 'off'), ('missed where the knob follows', 'off_followed')):
    missed = [f'{name} {p["target"] / 1e6:.2f} M' for name, points in found['routers'].items() for p in points
              if abs(p[key]) > ALLOWED]  # fmt: skip
    print(f'{what} by more than {100 * ALLOWED:.0f} %: {", ".join(missed) or "none"}')


def main() -> None:
  """Measures, prints, writes."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', required=True, help='of a finished run on scaled_digits or other data')
  parser.add_argument('--images', type=int, default=10_000, help='of each split at most')
  parser.add_argument('--json', help='write what was measured')
  options = parser.parse_args()
  found = measure(options.workdir, options.images)
  show(found)
  if options.json:
    pathlib.Path(options.json).write_text(json.dumps(found, indent=2) + '\n')


if __name__ == '__main__':
  main()
