"""What of BatchNorm is private to each size: all of it, or nothing; with distillation and without.

Command:  resjax study configs/studies/normalisers.py
"""

from configs.studies import scales
from configs.studies.scales import RSNET, above
from resjax.evidence import Arm, Study


def get_study(scale: str = 'digits') -> Study:
  """Returns the study."""
  at = scales.of(scale)
  arms = {
    'private': Arm({'distillation': 'full'}, about='every size has its own BatchNorm'),
    'shared': Arm({'distillation': 'full', 'shared_batch_norm': True}, about='one BatchNorm for all sizes'),
    'private undistilled': Arm({'distillation': 'none'}),
    'shared undistilled': Arm({'distillation': 'none', 'shared_batch_norm': True}),
  }
  claims = [
    *above('private', 'shared', at.sizes, 'private BatchNorm is above shared, most at both ends', RSNET),
    *above('private undistilled', 'shared undistilled', at.sizes, 'also without distillation', RSNET),
  ]
  about = 'Private against shared normalisers.'
  return Study(f'Normalisers, {at.name}', at.recipe, arms, claims, at.fields, at.name, about=about)
