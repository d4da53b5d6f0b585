"""What a trained run gets right, image by image: at each size, all together, and by each way to choose a size."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from resjax import checkpoint, drnet, macs, trained
from resjax.data import sources
from resjax.evidence import elsewhere
from resjax.evidence.definition import ENSEMBLE
from resjax.evidence.records import Way
from resjax.measuring import together as answers
from resjax.resolution import at_widths
from resjax.routing.cascade import Cascade
from resjax.routing.judge import crossed
from resjax.routing.known import Known
from resjax.routing.oracle import Oracle
from resjax.routing.predictor import Predictor
from resjax.routing.random import shuffled
from resjax.routing.router import Router
from resjax.training import evaluate
from resjax.training.run import Run

__all__ = ['ways_of']


def ways_of(
  run: Run,
  workdir: pathlib.Path,
  sizes: Sequence[int] = (),
  fractions: Sequence[float] = (),
  recalibrated: bool = False,
) -> dict[str, Way]:
  """Returns what a finished run gets right on its evaluation split, by the names of the ways.

  Args:
    run: As of `run.build`, with the run's config.
    workdir: That it was trained in.
    sizes: Others, at which it is scored as well, see `elsewhere.ways_of`.
    fractions: Of crops, likewise.
    recalibrated: With statistics of training images at each size, see `elsewhere.recalibrated`.

  Returns:
    '32' and so on, 'ensemble' where there are several sizes; with a predictor 'predictor', 'random', in the same mix,
    'cascade', at the same cost, 'oracle', and 'known', where the data know it.

  Raises:
    ValueError: There is no image that can be read, or the checkpoint is damaged; or as of `elsewhere.recalibrated`.
    OSError: The disk does not let it be read.
  """
  variables = checkpoint.load(workdir, sharding=run.devices.replicated).variables
  if recalibrated:
    variables = elsewhere.recalibrated(run, variables)
  found = evaluate.score(run, variables, run.eval_source)
  if run.eval_source.needed is not None:
    found = found | {'needed': np.asarray(run.eval_source.needed)}
  table = evaluate.readable(found)
  if not len(table['ranks']):
    raise ValueError(f'images: none of {len(run.eval_source)} could be read, expected some to score')
  resolutions = at_widths(run.config)
  costs = [macs.of_model(run.model, size) for size in resolutions]
  right = table['ranks'] == 0
  ways = {str(size): Way(right[:, place], cost) for place, (size, cost) in enumerate(zip(resolutions, costs))}
  if len(resolutions) > 1:
    ways[ENSEMBLE] = Way(right[:, len(resolutions)], sum(costs))
  if 'scores' in table:
    ways |= _routed(run, variables, table, costs)
  if sizes or fractions:
    ways |= elsewhere.ways_of(run, variables, sizes, fractions, np.flatnonzero(found['ranks'][:, 0] >= 0))
  return ways


def together(source: Any, workdirs: Sequence[pathlib.Path]) -> dict[str, Way]:
  """Returns what networks of one data set get right by the mean of their logits, 'ensemble'.

  Args:
    source: Its images are scored.
    workdirs: Of the networks.

  Raises:
    ValueError: A checkpoint is damaged, or their classes differ.
    OSError: The disk does not let one be read.
  """
  found = answers.evaluate([trained.load(place) for place in workdirs], [*map(str, workdirs)], source)
  return {ENSEMBLE: Way(found.ranks[:, 0] == 0, float(found.macs[0]))}


def _routed(run: Run, variables: Any, table: evaluate.Table, costs: list[int]) -> dict[str, Way]:
  """The ways of DRNet: its predictor and its rivals, see `routing.judge`."""
  config = run.config
  calibration = None
  if config.eval.calibration_split:
    other = sources.create(config, config.eval.calibration_split)
    calibration = evaluate.readable(evaluate.score(run, variables, other))
  each, own = tuple(map(float, costs)), drnet.predictor_of(config).macs
  right = table['ranks'][:, : len(costs)] == 0
  seen = {**table, 'right': right}
  predictor, cascade = Predictor(each, own), Cascade(each)
  known = Known(each, at_widths(config))
  choice = predictor.choose(predictor.read(seen))
  spent = _way(choice, right, predictor.charged).macs
  column = None if calibration is None else cascade.read(calibration)
  choices: dict[str, tuple[np.ndarray, Router]] = {
    'predictor': (choice, predictor),
    'random': (shuffled(choice, np.random.default_rng(config.seed)), predictor),
    'cascade': (crossed(cascade, cascade.read(seen), spent, column), cascade),
    'oracle': (Oracle(each).choose(right), Oracle(each)),
  }
  if 'needed' in seen and known.knows(seen['needed']):
    choices['known'] = (known.choose(known.read(seen)), known)
  return {name: _way(picked, right, router.charged) for name, (picked, router) in choices.items()}


def _way(choice: np.ndarray, right: np.ndarray, charged: Any) -> Way:
  """What a choice int `[N]` gets right, and its mean cost."""
  return Way(right[np.arange(len(choice)), choice], float(np.asarray(charged)[choice].mean()))


def accuracies(ways: Mapping[str, Way]) -> dict[str, float]:
  """Returns the share of the images that each way gets right."""
  return {name: float(way.right.mean()) for name, way in ways.items()}
