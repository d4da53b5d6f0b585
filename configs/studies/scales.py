"""What the studies are run on: recipe, fields and sizes of each scale, in this place alone."""

import bisect
import dataclasses
from collections.abc import Mapping
from typing import Any

from resjax import macs, models, pruning, recipes
from resjax.evidence import Claim

RSNET = 'RS-Net, Wang et al., ECCV 2020'
DRNET = 'DRNet, Zhu et al., NeurIPS 2021'
USNET = 'US-Nets, Yu and Huang, ICCV 2019'
IMPLIED = f'implied by {RSNET}'


@dataclasses.dataclass(frozen=True)
class Scale:
  """Data, network and schedule of all arms.

  Attributes:
    name: What runs are kept under.
    recipe: That the arms differ from.
    fields: That all of them set otherwise.
    sizes: Highest first.
    drnet: Recipe and fields of a predictor that is trained after a network of this scale.
    from_scratch: Times the predictor's epochs: those of the network before it and its own.
    preact: The same network, pre-activation.
    crop_area: Of random crops, where the recipe has none.
  """

  name: str
  recipe: str
  fields: Mapping[str, Any]
  sizes: tuple[int, ...]
  drnet: tuple[str, Mapping[str, Any]]
  from_scratch: float
  preact: str
  crop_area: tuple[float, float] = (0.25, 1.0)

  @property
  def three(self) -> tuple[int, int, int]:
    """The sizes, of a scale that has three.

    Raises:
      ValueError: It has another number.
    """
    if len(self.sizes) != 3:
      others = ', '.join(scale.name for scale in _SCALES.values() if len(scale.sizes) == 3)
      raise ValueError(f'scale: got {self.name!r} of {len(self.sizes)} sizes, expected one of three sizes: {others}')
    return self.sizes

  def ratio(self, size: int) -> float:
    """Returns how many times a network of one size can be trained for the multiply-adds of all sizes."""
    return sum(map(self.macs, self.sizes)) / self.macs(size)

  def macs(self, size: int, prune: float = 0.0) -> int:
    """Returns the multiply-adds at a size, of the network without a share of the channels inside its blocks."""
    config = recipes.make(self.recipe)
    with config.ignore_type():
      config.update_from_flattened_dict(dict(self.fields))
      config.model.inner = pruning.inner_of(models.from_config(config), prune) if prune else ()
    return macs.of_model(models.from_config(config), size)

  def size_of(self, most: int) -> int:
    """Returns the smallest size at which the network takes so many multiply-adds."""
    return 1 + bisect.bisect_left(range(1, self.sizes[0]), most, key=self.macs)


# Handwriting in three sizes, made from scikit-learn's digits: 12,000 to train, 10,000 to score; about a minute a run.
_DRNET = ('drnet_quickstart', {})
DIGITS = Scale('digits', 'quickstart', {}, (32, 16, 8), _DRNET, 2.75, 'preact_resnet_small', (0.5, 1.0))

# A folder of photographs, such as imagenette's 9,469 + 3,925 at 72 px: about 14 minutes a run on two cores.
PHOTOGRAPHS = Scale(
  'photographs',
  'rsnet_r18',
  {
    'resolutions': (64, 48, 32),
    'model.width': 0.25,
    'model.num_classes': 10,
    'data.source': 'folder',
    'data.name': '',
    'data.eval_split': 'val',
    'data.crop_area': (0.25, 1.0),
    'data.normalize': 'imagenet',
    'data.flip': 'shared',
    'data.pyramid': 'device',
    'data.workers': 0,
    'eval.every_epochs': 0,
    'batch_size': 64,
    'epochs': 20.0,
    'optimizer.learning_rate': 0.05,
    'optimizer.warmup_epochs': 1.0,
    'optimizer.weight_decay': 5e-4,
    'optimizer.decay': 'kernels',
    'checkpoint.every_epochs': 5.0,
  },
  (64, 48, 32),
  (
    'drnet_from_rsnet_r18',
    {'drnet.checkpoint': '', 'drnet.start': 'pretrain', 'drnet.budget': 0.6, 'drnet.predictor.width': 1.0,
     'drnet.predictor.size': 32, 'drnet.eta': 1.0, 'epochs': 8.0, 'optimizer.learning_rate': 0.02},
  ),
  3.5,
  'preact_resnet18',
)  # fmt: skip

# The papers' own scale and five sizes, for main.py, crops.py and normalisers.py; docs/evidence.md has what it takes.
IMAGENET = Scale(
  'imagenet',
  'rsnet_r18',
  {},
  (224, 192, 160, 128, 96),
  ('drnet_from_rsnet_r18', {}),
  2.0,
  'preact_resnet18',
  (0.08, 1.0),
)

_SCALES = {scale.name: scale for scale in (DIGITS, PHOTOGRAPHS, IMAGENET)}


def of(name: str) -> Scale:
  """Returns a scale by its name.

  Raises:
    ValueError: There is none of that name.
  """
  if name not in _SCALES:
    raise ValueError(f'scale: got {name!r}, expected one of {", ".join(_SCALES)}')
  return _SCALES[name]


def above(left: str, right: str, sizes: tuple[int, ...], text: str, source: str) -> list[Claim]:
  """Returns a claim for each size: one arm is above another one there.

  Args:
    left: An arm.
    right: Another one; {} stands for the size.
    sizes: In pixels.
    text: In words.
    source: Who says so.
  """
  return [Claim(f'{left}@{size}', f'{right.format(size)}@{size}', text, source) for size in sizes]
