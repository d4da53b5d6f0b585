"""What a study is: arms as differences from a recipe, and claims that one arm is above another, with their sources."""

import dataclasses
import importlib.util
import inspect
import os
import pathlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from resjax import recipes
from resjax.home import expanded
from resjax.telling import shown

__all__ = ['ENSEMBLE', 'Arm', 'Claim', 'Study', 'read', 'sides']

ENSEMBLE = 'ensemble'


@dataclasses.dataclass(frozen=True)
class Arm:
  """One way to train, which several seeds repeat.

  Attributes:
    fields: By dotted name, what it sets otherwise than the study's recipe.
    times: Multiplies the recipe's epochs.
    recipe: In the place of the study's; '': that.
    start: The arm whose network of the same seed training starts from; '': none. That one may have a start, too.
    prune: Of the start's network the share of the channels inside its blocks that go first, those of the smallest
      weights, see `resjax.pruning`. What starts from a pruned network is as small.
    together: Arms whose networks, each trained apart, answer by the mean of their logits: 'ensemble'. One that stands
      again is trained with another seed. Nothing else is said of such an arm.
    sizes: In pixels, not trained, at which the network is scored as well, in each way of `resjax.unseen`.
    fractions: Of `eval.crop_fraction`, with which it is scored as well.
    recalibrated: It is scored with BatchNorm's statistics of 1,024 training images, the same at each size, in place of
      those that training left. It is not trained anew where another arm has the same network; what starts from it,
      starts from what training left.
    about: A few words for the table.
  """

  fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  times: float = 1.0
  recipe: str = ''
  start: str = ''
  prune: float = 0.0
  together: tuple[str, ...] = ()
  sizes: tuple[int, ...] = ()
  fractions: tuple[float, ...] = ()
  recalibrated: bool = False
  about: str = ''


@dataclasses.dataclass(frozen=True)
class Claim:
  """That one side is right more often than the other one, on the same images.

  Attributes:
    left: 'ARM@WAY', such as 'RS-Net@32' or 'RS-Net@ensemble'; several, as a tuple, stand for their mean.
    right: As `left`: what it is said to be above.
    text: The claim in words.
    source: Who says so, and where.
  """

  left: str | tuple[str, ...]
  right: str | tuple[str, ...]
  text: str
  source: str


@dataclasses.dataclass(frozen=True)
class Study:
  """Arms, and what is claimed of them.

  Attributes:
    title: Of tables and pages.
    recipe: As `recipes.make` takes it.
    arms: By name.
    claims: All that is put to the test, fixed before a run; the source of one that was not says so.
    fields: By dotted name, what all arms set otherwise than the recipe.
    scale: What the data are called; runs on the same ones are kept together.
    seeds: How many, from 0 on, where nothing else is asked for.
    about: A sentence or two for the page.
  """

  title: str
  recipe: str
  arms: Mapping[str, Arm]
  claims: Sequence[Claim]
  fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  scale: str = 'digits'
  seeds: int = 5
  about: str = ''

  def __post_init__(self) -> None:
    """Checks names.

    Raises:
      ValueError: An arm's name has a comma or an @; one that is named is not there; or there are none.
    """
    if not self.arms:
      raise ValueError('arms: got none, expected one or more')
    for name, arm in self.arms.items():
      if not name or set(name) & {',', '@'}:
        raise ValueError(f"arms: got {shown(name)}, expected a name without ',' and '@'")
      if arm.start and arm.start not in self.arms:
        raise ValueError(f'arm {shown(name)}: starts from {shown(arm.start)}, expected one of {self._known()}')
      if not isinstance(arm.prune, int | float) or not 0 <= arm.prune < 1 or (arm.prune and not arm.start):
        raise ValueError(f'arm {shown(name)}: got prune {shown(arm.prune)}, expected 0 to below 1, and a start')
      if not isinstance(arm.recalibrated, bool):
        raise ValueError(f'arm {shown(name)}: got recalibrated {shown(arm.recalibrated)}, expected True or False')
      if arm.together:
        self._check_together(name, arm)
    for name in self.arms:
      self.origins(name)
    for claim in self.claims:
      for arm_name, _ in (*sides(claim.left), *sides(claim.right)):
        if arm_name not in self.arms:
          raise ValueError(f'claim {shown(claim.text)}: names {shown(arm_name)}, expected one of {self._known()}')

  def _check_together(self, name: str, arm: Arm) -> None:
    """Raises ValueError unless an arm is some others together, which start from none."""
    if arm != Arm(together=arm.together, about=arm.about) or len(arm.together) < 2:
      raise ValueError(
        f'arm {shown(name)}: got together {shown(arm.together)}, expected two or more, and no other field'
      )
    for member in arm.together:
      if member not in self.arms or self.arms[member].start or self.arms[member].together:
        raise ValueError(f'arm {shown(name)}: got {shown(member)} in together, expected an arm that starts from none')
      if self.arms[member].recalibrated:
        raise ValueError(f'arm {shown(name)}: got {shown(member)} in together, expected one that is not recalibrated')

  def origins(self, name: str) -> list[str]:
    """Returns the arms that an arm's network comes from, the nearest first.

    Raises:
      ValueError: It comes from itself.
    """
    found: list[str] = []
    while before := self.arms[found[-1] if found else name].start:
      if before in (name, *found):
        raise ValueError(f'arm {shown(name)}: starts from {shown(before)} again, expected an end')
      found.append(before)
    return found

  def _known(self) -> str:
    """The names of the arms."""
    return ', '.join(self.arms)


def sides(side: str | tuple[str, ...]) -> list[tuple[str, str]]:
  """Returns the arms and ways of one side of a claim.

  Raises:
    ValueError: It is not of the form 'ARM@WAY'.
  """
  found = []
  for text in (side,) if isinstance(side, str) else side:
    arm, at, way = text.partition('@')
    if not (arm and at and way):
      raise ValueError(f"claims: got {shown(text)}, expected 'ARM@WAY', such as 'RS-Net@32'")
    found.append((arm, way))
  return found


def read(file: str | pathlib.Path, argument: str = '') -> Study:
  """Returns the study in a file.

  Args:
    file: With a function `get_study`; what follows a colon is given to it. Or a recipe, which is a study of one arm.
    argument: Is given to it where no colon is, if it takes one.

  Raises:
    FileNotFoundError: There is no such file.
    ValueError: It is no study, or fails.
  """
  if str(file).partition(':')[0] in recipes.NAMES:
    return _of_recipe(file)
  name, _, given = (str(file), '', '') if os.path.isfile(file) else str(file).partition(':')
  path = pathlib.Path(expanded(name, 'study'))
  if not path.is_file():
    raise FileNotFoundError(f'study: no file {name}, expected one such as configs/studies/main.py')
  for root in path.absolute().parents[:3]:  # studies may import each other as `configs.studies.NAME`
    if (root / 'configs').is_dir() and str(root) not in sys.path:
      sys.path.append(str(root))
  spec = importlib.util.spec_from_file_location(path.stem, path)
  if spec is None or spec.loader is None:
    raise ValueError(f'study: got {name}, expected a Python file with a function get_study')
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    if not hasattr(module, 'get_study') and hasattr(module, 'get_config'):
      return _of_recipe(file)
    takes = inspect.signature(module.get_study).parameters
    study = module.get_study(*filter(None, [given or argument * bool(takes)]))
  except Exception as error:  # whatever a user's file does
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f', line {last.lineno} of {last.filename}' if last.filename != __file__ else ''
    said = next(iter(str(error).splitlines()), '')[:300]
    raise ValueError(f'study: {name} fails ({type(error).__name__}: {said}{where}); expected a study') from error
  if not isinstance(study, Study):
    raise ValueError(f'study: get_study of {name} returned {shown(study)}, expected a resjax.evidence.Study')
  return study


def _of_recipe(recipe: str | pathlib.Path) -> Study:
  """A recipe with several seeds, of which nothing is claimed."""
  name = recipes.name_of(recipe)
  return Study(f'Recipe {name}', str(recipe), {name: Arm()}, (), scale=name)
