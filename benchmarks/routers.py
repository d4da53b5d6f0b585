"""Does a router pay on photographs? Predictor, cascade, chance and oracle against one size for all, at equal cost.

  python benchmarks/routers.py --json=docs/measured/routers.json --network='as it comes=runs/retarget/start' \
    --network='retargeted=runs/retarget/trials/all-seed_0,runs/retarget/trials/all-seed_1'
  python benchmarks/routers.py --json=docs/measured/routers.json    # its table, nothing is run

Networks are those of `benchmarks/retarget.py`, at five sizes, a size that was not trained with the BatchNorm of the
nearest; several workdirs of one name are its seeds. The images are photographs that no training saw, nette1000 and
photos152, and each size has its own crop of the full image. They are cut into two halves, drawn by the seed: one
trains two predictors, from what the network gets right at each size, the other is scored; then the other way round.
`smallest` learns the smallest size that is right, as DRNet's supervised estimator has it, `likely` how likely each
size is to be right. Budgets are the costs of the sizes between the largest and the smallest, all that a router runs
counted. Knobs are set on the images that are scored, without their labels, so that every way costs the same.

The interval is that of docs/studies.md: of the difference to the one size of that cost, over images and seeds.
"""

import argparse
import hashlib
import itertools
import json
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import retarget
from resjax import compiling, losses, preprocess, trained
from resjax.evidence.intervals import paired
from resjax.models import predictor as predictors
from resjax.network import Network
from resjax.routing.cascade import Cascade, log_odds
from resjax.routing.dial import dialled
from resjax.routing.oracle import Oracle, smallest_right
from resjax.routing.predictor import Predictor
from resjax.routing.random import Random, even_draws
from resjax.routing.router import Dialled

SIZES, TESTS = retarget.SIZES, ('nette1000', 'photos152')
INPUT = 64  # px, of the predictor
STEPS, ROWS, RATE = 200, 64, 1e-3  # of the predictor's training
PREDICTORS = ('smallest', 'likely')  # what they learn
WAYS = ('static', 'random', *PREDICTORS, 'cascade', 'oracle')

Columns = dict[str, np.ndarray]


def columns_of(network: Network, folders: dict[str, pathlib.Path]) -> Columns:
  """Returns of every image `right` bool `[N, 5]`, `odds` `[N, 5]`, `small` uint8 `[N, 64, 64, 3]` and `test` `[N]`."""
  found: dict[str, list[np.ndarray]] = {'right': [], 'odds': [], 'small': [], 'test': []}
  for number, folder in enumerate(folders.values()):
    crops, labels = retarget.crops_of(network.preprocessing, network.class_names, folder)
    right, odds = [], []
    for size, images in zip(SIZES, crops):
      logits = _logits(network, size, images)
      right.append(logits.argmax(-1) == labels)
      odds.append(log_odds(logits.astype(float)))
    small = jax.image.resize(jnp.asarray(crops[0], jnp.float32), (len(labels), INPUT, INPUT, 3), 'linear')
    for name, column in (('right', np.stack(right, 1)), ('odds', np.stack(odds, 1)), ('small', small)):
      found[name].append(np.asarray(column))
    found['test'].append(np.full(len(labels), number))
  columns = {name: np.concatenate(parts) for name, parts in found.items()}
  return columns | {'small': columns['small'].round().astype(np.uint8)}


def _logits(network: Network, size: int, images: np.ndarray) -> np.ndarray:
  """What a network says at one size, `[N, K]`."""
  plain, found = network.view(size), []
  for first in range(0, len(images), retarget.BATCH):
    some = images[first : first + retarget.BATCH]
    padded = np.concatenate([some, np.zeros((retarget.BATCH - len(some), *some.shape[1:]), np.uint8)])
    (inputs,) = preprocess.prepare((padded,), (size,), network.preprocessing.normalize)
    found.append(np.asarray(retarget._logits(network.model)(plain, inputs))[: len(some)])
  return np.concatenate(found)


def scores_of(small: np.ndarray, right: np.ndarray, learns: np.ndarray, seed: int, what: str) -> np.ndarray:
  """Returns the scores `[N, 5]` of a predictor that has learned from some images.

  Args:
    small: uint8 `[N, 64, 64, 3]`.
    right: bool `[N, 5]`.
    learns: int `[M]`, the rows that it learns from; of them it has mirror images, too.
    seed: Of its weights and batches.
    what: One of `PREDICTORS`.
  """
  model, rng = predictors.SmallPredictor(right.shape[1]), np.random.default_rng(seed)
  wanted = smallest_right(right, 0) if what == 'smallest' else right.astype(np.float32)
  (inputs,) = preprocess.prepare((small,), (INPUT,), 'imagenet')
  variables = model.init(jax.random.key(seed), inputs[:1], train=False)
  rule = optax.adamw(optax.cosine_decay_schedule(RATE, STEPS), weight_decay=1e-2)

  @jax.jit
  def step(variables: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
    def loss_of(params: Any) -> Any:
      scores, changed = model.apply({**variables, 'params': params}, x, train=True, mutable=['batch_stats'])
      if what == 'smallest':
        return losses.cross_entropy(scores, y), changed
      return optax.sigmoid_binary_cross_entropy(scores, y).mean(), changed

    grads, changed = jax.grad(loss_of, has_aux=True)(variables['params'])
    updates, state = rule.update(grads, state, variables['params'])
    return {'params': optax.apply_updates(variables['params'], updates), **changed}, state

  state = rule.init(variables['params'])
  for _ in range(STEPS):
    rows = rng.choice(learns, ROWS)
    x = np.asarray(inputs)[rows]
    x = np.where(rng.random(ROWS)[:, None, None, None] < 0.5, x[:, :, ::-1], x)
    variables, state = step(variables, state, x, wanted[rows])
  scores = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, inputs)
  return np.asarray(scores if what == 'smallest' else jax.nn.sigmoid(scores))


def routed(columns: Columns, costs: tuple[float, ...], own: float, seed: int) -> dict[str, Any]:
  """Returns, for each budget and way, which images are right, bool `[N]`, and their mean cost.

  Args:
    columns: As of `columns_of`.
    costs: Multiply-adds at each size.
    own: Those of the predictor.
    seed: Draws the halves, and the predictor's start.
  """
  right, count = columns['right'], len(columns['right'])
  halves = np.array_split(np.random.default_rng(seed).permutation(count), 2)
  routers: dict[str, Dialled] = {what: Predictor(costs, own) for what in PREDICTORS}
  routers |= {'cascade': Cascade(costs), 'random': Random(costs)}
  places = {(size, way): np.full(count, -1) for size in SIZES[1:-1] for way in WAYS}
  for learns, scored in (halves, halves[::-1]):
    reads = {what: scores_of(columns['small'], right, learns, seed, what) for what in PREDICTORS}
    reads |= {'cascade': columns['odds'], 'random': np.zeros(count)}
    for test, (place, size) in itertools.product(range(len(TESTS)), enumerate(SIZES[1:-1], 1)):
      new = scored[columns['test'][scored] == test]
      reads['random'][new] = even_draws(len(new))
      places[size, 'static'][new] = place
      places[size, 'oracle'][new] = Oracle(costs, costs[place]).choose(right[new])
      for way, column in reads.items():
        places[size, way][new] = dialled(routers[way], column[new], costs[place]).choose(column[new])
  charged = {way: routers[way].charged if way in routers else np.asarray(costs) for way in WAYS}
  return {
    f'{size} {way}': {'right': right[np.arange(count), chosen], 'cost': charged[way][chosen]}
    for (size, way), chosen in places.items()
  }


def summed(name: str, seeds: list[Columns], costs: tuple[float, ...], own: float) -> list[dict[str, Any]]:
  """Returns a row for each test: accuracy at each size, and for each budget that of every way and its difference."""
  runs = [routed(columns, costs, own, seed) for seed, columns in enumerate(seeds)]
  rows = []
  for number, test in enumerate(TESTS):
    ours = seeds[0]['test'] == number
    static = [[float(columns['right'][ours, place].mean()) for columns in seeds] for place in range(len(SIZES))]
    row: dict[str, Any] = {'network': name, 'test': test, 'images': int(ours.sum()), 'seeds': len(seeds)}
    row['sizes'] = {str(size): _spread(values) for size, values in zip(SIZES, static)}
    row['best choice'] = _spread([float(columns['right'][ours].any(1).mean()) for columns in seeds])
    row['budgets'] = {}
    for size in SIZES[1:-1]:
      at = {way: np.stack([run[f'{size} {way}']['right'][ours] for run in runs]) for way in WAYS}
      row['budgets'][str(size)] = {
        way: {
          'top1': _spread(at[way].mean(1).tolist()),
          'cost': float(np.mean([run[f'{size} {way}']['cost'][ours].mean() for run in runs])) / max(costs),
          'over static': paired(at[way], at['static'])._asdict(),
        }
        for way in WAYS
      }
    rows.append(row)
  return rows


def _spread(values: list[float]) -> dict[str, float]:
  """Mean, and deviation of the sample."""
  return {'mean': float(np.mean(values)), 'sd': float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}


def markdown(rows: list[dict[str, Any]]) -> str:
  """Returns the table: top-1 in per cent, in brackets the interval of the difference to the one size, in points."""
  lines = ['| network | images | at the cost of | ' + ' | '.join(WAYS) + ' |', '|---' * (3 + len(WAYS)) + '|']
  for row in rows:
    for size, ways in row['budgets'].items():
      cells = [f'{100 * ways["static"]["top1"]["mean"]:.1f}']
      for way in WAYS[1:]:
        low, high = (100 * ways[way]['over static'][end] for end in ('low', 'high'))
        cells.append(f'{100 * ways[way]["top1"]["mean"]:.1f} ({low:+.1f} to {high:+.1f})')
      lines.append(f'| {row["network"]} | {row["test"]}, {row["images"]:,} | {size} px | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def kept(place: pathlib.Path, cache: pathlib.Path, folders: dict[str, pathlib.Path]) -> Columns:
  """Returns the columns of the network in a workdir, kept in a file: they take minutes."""
  network = trained.load(place).at_all(SIZES, 'nearest')[0]
  file = cache / f'{hashlib.sha256(network.digest.encode()).hexdigest()[:12]}.npz'
  if not file.exists():
    cache.mkdir(parents=True, exist_ok=True)
    np.savez(file, **columns_of(network, folders))
  with np.load(file) as found:
    return dict(found)


def main() -> None:
  """Measures, prints and writes."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument(
    '--network', action='append', metavar='NAME=WORKDIR[,WORKDIR]', help='without any, the table of a JSON is printed'
  )
  parser.add_argument('--data', type=pathlib.Path, default=pathlib.Path('../shared/data'))
  parser.add_argument('--workdir', type=pathlib.Path, default=pathlib.Path('runs/routers'), help='of what is kept')
  parser.add_argument('--json', type=pathlib.Path)
  args = parser.parse_args()
  if not args.network:
    found = json.loads(args.json.read_text())
    print(found['machine'] + '\n\n' + markdown(found['rows']))
    return
  compiling.keep_memory()
  compiling.keep_compiled_programs()
  folders = {'nette1000': args.data / 'nette1000', 'photos152': retarget.photos152(args.data, args.workdir)}
  rows = []
  for given in args.network:
    name, _, places = given.partition('=')
    workdirs = [pathlib.Path(place) for place in places.split(',')]
    costs = tuple(map(float, trained.load(workdirs[0]).at_all(SIZES, 'nearest')[0].macs))
    own = float(predictors.Predictor(predictors.SmallPredictor(len(SIZES)), INPUT).macs)
    rows += summed(name, [kept(place, args.workdir / 'columns', folders) for place in workdirs], costs, own)
  found = {'rows': rows, 'machine': retarget.machine()}
  if args.json:
    args.json.write_text(json.dumps(found, indent=1) + '\n')
  print(found['machine'] + '\n\n' + markdown(rows))


if __name__ == '__main__':
  main()
