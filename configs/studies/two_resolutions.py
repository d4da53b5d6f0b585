"""Two sizes in one network without distillation: does the larger one gain, does the smaller one lose?

Command:  resjax study configs/studies/two_resolutions.py
"""

import itertools

from configs.studies import scales
from configs.studies.scales import RSNET
from resjax.evidence import Arm, Claim, Study


def get_study(scale: str = 'digits') -> Study:
  """Returns the study."""
  at = scales.of(scale)
  arms = {f'I-Net {size}': Arm({'resolutions': (size,)}, about='one size alone') for size in at.sizes}
  claims = []
  for large, small in itertools.combinations(at.sizes, 2):
    pair = f'{large} and {small}'
    arms[pair] = Arm({'resolutions': (large, small), 'distillation': 'none'}, about='two sizes, private BatchNorm')
    claims += [
      Claim(f'{pair}@{large}', f'I-Net {large}@{large}', 'the larger of two sizes gains by the smaller one', RSNET),
      Claim(f'I-Net {small}@{small}', f'{pair}@{small}', 'and the smaller one loses', RSNET),
    ]
  about = 'What two sizes do to each other where nobody teaches.'
  return Study(f'Two resolutions, {at.name}', at.recipe, arms, claims, at.fields, at.name, about=about)
