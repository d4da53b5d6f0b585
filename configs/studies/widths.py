"""Width against resolution at about equal multiply-adds, see docs/width.md.

Command:  resjax study configs/studies/widths.py
"""

from configs.studies import scales
from configs.studies.scales import RSNET, USNET
from resjax.evidence import Arm, Claim, Study

WIDTHS = (1.0, 0.5, 0.25)


def get_study(scale: str = 'digits') -> Study:
  """Returns the study."""
  at = scales.of(scale)
  largest, *_ = at.three
  ways = [str(largest), *(f'{largest}x{width}' for width in WIDTHS[1:])]
  narrow = {'resolutions': (largest,), 'widths': WIDTHS}
  arms = {
    'resolution': Arm({'distillation': 'none'}, about='all sizes, all channels'),
    'resolution distilled': Arm({'distillation': 'full'}, about='as RS-Net'),
    'width': Arm(narrow | {'distillation': 'none'}, about='the largest size, three shares of the channels'),
    'width distilled': Arm(narrow | {'distillation': 'full'}, about='the ensemble and every wider one teach'),
    'width in place': Arm(narrow | {'distillation': 'inplace'}, about='the widest teaches, and alone has labels'),
  }
  claims = [
    Claim(f'resolution{kind}@{size}', f'width{kind}@{way}', 'at equal cost resolution is the better lever', RSNET)
    for kind in ('', ' distilled')
    for size, way in zip(at.sizes, ways, strict=True)
  ]
  claims += [
    Claim(f'width in place@{way}', f'width@{way}', 'in-place distillation helps the narrow widths', USNET)
    for way in ways[1:]
  ]
  about = 'One network for three sizes against one for three widths of the same cost.'
  return Study(f'Width, {at.name}', at.recipe, arms, claims, at.fields, at.name, about=about)
