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

from resjax import report, trained
from resjax.data import sources
from resjax.inference import Classifier, calibrating
from resjax.inference.engines import Engines
from resjax.inference.images import of_source
from resjax.measuring import curves, study
from resjax.routing import Columns, Dialled
from resjax.routing.dial import Follower
from resjax.routing.fixed import Fixed
from resjax.routing.oracle import Oracle
from resjax.routing.random import even_draws
from resjax.routing.score import score

ALLOWED = 0.03  # of the budget
CHUNK = 256  # images between two turns of a knob that follows


def targets_of(router: Dialled, reference: Columns) -> np.ndarray:
  """Ten budgets between the ends of what a router can be set to, the ends left out."""
  return np.linspace(*calibrating.limits(router, reference), study.BUDGETS + 2)[1:-1]


def through_engine(engines: Engines, router: Dialled, crops: np.ndarray, scored: study.Scored) -> dict[str, Any]:
  """What one setting comes to when the engine runs it, beside what the columns say."""
  column = router.read(scored.table)
  ran = router.run(engines.images(crops, promote=False, draw=even_draws))
  places = router.choose(column)
  guess = np.take_along_axis(scored.table['guess'], places[:, None], 1)[:, 0]
  return {
    'elsewhere': int((ran.places != places).sum()),
    'other_class': int((ran.logits.argmax(1) != guess).sum()),
    'macs': float(ran.macs.mean()),
    'top1': float((ran.logits.argmax(1) == scored.labels).mean()),
  }


def off_by_chance(router: Dialled, tables: list[Columns], groups: list[np.ndarray]) -> float:
  """One standard error of the difference between both splits' mean costs, where the groups are independent."""
  errors = []
  for columns, group in zip(tables, groups, strict=True):
    cost = router.charged[router.choose(router.read(columns))]
    errors.append(np.linalg.norm(np.bincount(group, cost - cost.mean())) / len(cost))
  return float(np.hypot(*errors))


def followed(router: Dialled, reference: Columns, seen: Columns, target: float, names: list[str]) -> dict[str, Any]:
  """What comes of letting the knob follow what was spent, chunk by chunk, as `resjax predict --follow` does."""
  follower = Follower(router, router.read(reference), target)
  column, places = router.read(seen), []
  for start in range(0, len(column), CHUNK):
    places.append(follower.router.choose(column[start : start + CHUNK]))
    follower.spent(places[-1])
  return score(np.concatenate(places), {'top1': seen['right']}, router.charged, names)


def judge(
  engines: Engines, name: str, reference: Columns, seen: Columns, groups: list[np.ndarray]
) -> list[dict[str, Any]]:
  """A router's budgets, each with what was reached and the random mix and the oracle beside it."""
  costs, names = tuple(map(float, engines.macs)), curves.names_of(engines)
  router, found = engines.router(name, reference), []
  for target in targets_of(router, reference):
    afforded = max(min(target, max(costs)), min(costs))
    mix = calibrating.set_to(engines.router('random'), reference, afforded)
    chance = curves.point(mix, seen, names)['top1']
    best = curves.point(Oracle(costs, afforded), seen, names)['top1']
    set_to = calibrating.set_to(router, reference, target)
    point = {'target': float(target), **curves.point(set_to, seen, names)}
    recovered = (point['top1'] - chance) / (best - chance) if best > chance else None
    scatter = off_by_chance(set_to, [reference, seen], groups) / target
    after = followed(router, reference, seen, target, names)
    found.append(
      point
      | {'off': point['macs'] / target - 1, 'random': chance, 'oracle': best, 'recovered': recovered}
      | {'off_by_chance': scatter, 'off_followed': after['macs'] / target - 1, 'top1_followed': after['top1']}
    )
  return found


def measure(workdir: str, images: int) -> dict[str, Any]:
  """All routers of a run."""
  run = trained.read(workdir)
  config, classifier = run.config, Classifier(run.network, workdir=workdir)
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
  engines, reference = classifier.engines, classifier.calibrated
  found = {'calibration': len(reference['energy']), 'images': len(crops), 'routers': {}, 'engine': {}}
  for name in engines.routers:
    found['routers'][name] = judge(engines, name, reference, scored.table, groups)
    router = engines.router(name, reference)
    middle = targets_of(router, reference)[study.BUDGETS // 2]
    found['engine'][name] = through_engine(engines, calibrating.set_to(router, reference, middle), crops, scored)
  found['static'] = [
    {'pixels': r, **curves.point(Fixed(tuple(map(float, engines.macs)), place), scored.table, curves.names_of(engines))}
    for place, r in enumerate(classifier.resolutions)
  ]
  identity = engines.engine.runtime.identity
  machine = f'{identity.machine}, {identity.processors} processors'
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
