"""Sizes that were not trained: BatchNorm of the nearest, interpolated, recalibrated; against an I-Net off its own size.

Command:  resjax study configs/studies/new_sizes.py
"""

from configs.studies import scales
from configs.studies.scales import RSNET
from resjax.evidence import Arm, Claim, Study

OURS = 'no paper: how BatchNorm is had for a new size'
FIELD = 'Touvron et al., "Fixing the train-test resolution discrepancy", NeurIPS 2019'


def get_study(scale: str = 'digits') -> Study:
  """Returns the study."""
  at = scales.of(scale)
  largest, middle, smallest = at.three
  upper, lower = (largest + middle) // 2, (middle + smallest) // 2
  new, fractions = (upper, lower), (0.6, 0.75)
  arms = {
    'RS-Net': Arm({'distillation': 'full'}, sizes=new, fractions=fractions),
    'parallel': Arm({'distillation': 'none'}, sizes=new),
    f'I-Net {largest}': Arm({'resolutions': (largest,)}, sizes=(upper, middle, lower, smallest), fractions=fractions),
    **{f'I-Net {size}': Arm({'resolutions': (size,)}, about='trained for it') for size in new},
  }
  own, claims = f'I-Net {largest}', []
  for size in new:
    claims += [
      Claim(f'RS-Net@{size} interpolated', f'{own}@{size} nearest', 'a new size is above an I-Net off its own', RSNET),
      Claim(f'RS-Net@{size} interpolated', f'I-Net {size}@{size}', 'and above an I-Net that was trained for it', RSNET),
      Claim(f'RS-Net@{size} interpolated', f'RS-Net@{size} nearest', 'interpolated is above the nearest', OURS),
      Claim(f'RS-Net@{size} recalibrated', f'RS-Net@{size} interpolated', 'recalibrated is above interpolated', OURS),
      Claim(f'{own}@{size} recalibrated', f'{own}@{size} nearest', 'new statistics help an I-Net off its size', OURS),
      Claim(
        f'{own}@{size} nearest crop 0.75', f'{own}@{size} nearest', 'larger objects help below the trained size', FIELD
      ),
    ]
  about = 'What a network gets right at sizes between those that it was trained at, and with other crops.'
  return Study(f'New sizes, {at.name}', at.recipe, arms, claims, at.fields, at.name, about=about)
