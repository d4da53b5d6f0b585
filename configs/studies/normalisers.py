"""What of BatchNorm is private to each size: all of it, a part, or nothing; with distillation and without.

Command:  resjax study configs/studies/normalisers.py
"""

from configs.studies import scales
from configs.studies.scales import RSNET, above
from resjax.evidence import Arm, Study

OURS = 'no paper: which part of BatchNorm does it'


def get_study(scale: str = 'digits') -> Study:
  """Returns the study."""
  at = scales.of(scale)
  arms = {
    'private': Arm({'distillation': 'full'}, about='every size has its own BatchNorm'),
    'shared': Arm({'distillation': 'full', 'shared_batch_norm': True}, about='one BatchNorm for all sizes'),
    'affine only': Arm({'distillation': 'full', 'private': 'affine'}, about='scale and bias, one set of statistics'),
    'statistics only': Arm({'distillation': 'full', 'private': 'statistics'}, about='one scale and bias for all sizes'),
    'private undistilled': Arm({'distillation': 'none'}),
    'shared undistilled': Arm({'distillation': 'none', 'shared_batch_norm': True}),
  }
  claims = [
    *above('private', 'shared', at.sizes, 'private BatchNorm is above shared, most at both ends', RSNET),
    *above('private undistilled', 'shared undistilled', at.sizes, 'also without distillation', RSNET),
    *above('private', 'affine only', at.sizes, 'it takes private statistics', OURS),
    *above('private', 'statistics only', at.sizes, 'it takes private scales and offsets', OURS),
  ]
  about = 'What of the normalisers each size must have for itself.'
  return Study(f'Normalisers, {at.name}', at.recipe, arms, claims, at.fields, at.name, about=about)
